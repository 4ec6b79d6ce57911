"""An imitation of the Hugging Face Hub on the loopback: as much of its HTTP API as loading and pushing need."""

import base64
import hashlib
import json
import re
from collections.abc import Hashable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants, hf_api


def list_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def name_of(content: Hashable) -> str:
    """40 hexadecimal digits for a content, like SHA-1's; Python keeps the hash of bytes, which may be large."""
    return f"{hash(content) % 2**64:040x}"


class HubImitation:
    """A server of repositories, each a dictionary from path to content, with one commit each.

    A branch other than "main" is a repository of the name "owner/name@branch". `requests` holds "METHOD path" of
    everything that was asked for. The next transfer of more than `cut_after` bytes breaks off there.
    """

    def __init__(self):
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.cut_after: int | None = None
        handler = type("Handler", (HubHandler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        Thread(target=self.server.serve_forever, daemon=True).start()

    def stand_in(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
        """Takes the Hub's place in this process, whose libraries read its address when they were imported."""
        monkeypatch.setattr(constants, "ENDPOINT", self.url)
        template = self.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hf_api.api, "endpoint", self.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def commit(self, name: str) -> str:
        return name_of(tuple(sorted(self.repositories[name].items())))


class HubHandler(BaseHTTPRequestHandler):
    hub: HubImitation
    protocol_version = "HTTP/1.1"

    def log_message(self, *args) -> None:
        pass

    def reply(self, content: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        cut_after = self.hub.cut_after
        if self.command == "GET" and cut_after is not None and len(content) > cut_after:
            self.hub.cut_after, self.close_connection = None, True
            content = content[:cut_after]
        if self.command != "HEAD":
            self.wfile.write(content)

    def reply_json(self, value: object) -> None:
        self.reply(json.dumps(value).encode())

    def missing(self, code: str) -> None:
        self.reply(b'{"error": "not found"}', 404, **{"X-Error-Code": code})

    def handle_request(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            body = b"".join(iter(self.read_chunk, b""))
        path = self.path.split("?")[0]
        self.hub.requests.append(f"{self.command} {path}")
        if path == "/api/repos/create":
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.hub.repositories.setdefault(name, {})
            return self.reply_json({"url": f"{self.hub.url}/{name}", "name": name})
        if path == "/api/validate-yaml":
            return self.reply_json({"errors": [], "warnings": []})
        match = re.match(r"/(?:api/models/)?([^/]+/[^/]+)(?:/(\w+)(?:/([^/]+)(?:/(.*))?)?)?$", path)
        if match is None or match[1] not in self.hub.repositories:
            return self.missing("RepoNotFound")
        name, action, revision, rest = match.groups()
        if name in self.hub.gated:
            return self.reply(b'{"error": "gated"}', 403, **{"X-Error-Code": "GatedRepo"})
        if revision not in (None, "main"):
            branches = [other for other in self.hub.repositories if other.split("@")[0] == name]
            meant = [branch for branch in branches if revision in (self.hub.commit(branch), *branch.split("@")[1:])]
            if not meant:
                return self.missing("RevisionNotFound")
            name = meant[0]
        return getattr(self, f"do_{action or 'revision'}")(name, rest, body)

    do_GET = do_HEAD = do_POST = handle_request

    def read_chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        chunk = self.rfile.read(size)
        self.rfile.readline()
        return chunk

    def do_revision(self, name: str, rest: str | None, body: bytes) -> None:
        files = self.hub.repositories[name]
        siblings = [{"rfilename": path} for path in files]
        self.reply_json({"id": name, "modelId": name, "sha": self.hub.commit(name), "siblings": siblings, "tags": []})

    def do_tree(self, name: str, rest: str | None, body: bytes) -> None:
        files = self.hub.repositories[name]
        self.reply_json(
            [
                {"type": "file", "path": path, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for path, content in files.items()
            ]
        )

    def do_resolve(self, name: str, rest: str, body: bytes) -> None:
        files = self.hub.repositories[name]
        if rest not in files:
            return self.missing("EntryNotFound")
        etag = name_of(files[rest])
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": self.hub.commit(name), "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            size = len(files[rest])
            headers["Content-Range"] = f"bytes {start}-{size - 1}/{size}"
            self.hub.requests.append(f"RANGE {start}")
        return self.reply(files[rest][start:], 206 if start else 200, **headers)

    def do_preupload(self, name: str, rest: str | None, body: bytes) -> None:
        wanted = json.loads(body)["files"]
        self.reply_json(
            {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in wanted]}
        )

    def do_commit(self, name: str, rest: str | None, body: bytes) -> None:
        for line in filter(None, body.splitlines()):
            operation = json.loads(line)
            if operation["key"] == "file":
                file = operation["value"]
                self.hub.repositories[name][file["path"]] = base64.b64decode(file["content"])
        oid = self.hub.commit(name)
        self.reply_json({"success": True, "commitOid": oid, "commitUrl": f"{self.hub.url}/{name}/commit/{oid}"})
