"""Content Credentials (C2PA): a signed statement of how a file was made, written and read by the extra `c2pa`.

Nothing here touches the network, unless a time-stamp server is named.
"""

import io
import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, UnidentifiedImageError

from faceswap_diffusion import __version__
from faceswap_diffusion.provenance.facts import plain_number
from faceswap_diffusion.provenance.signing import Signing, choose_signing

logger = logging.getLogger(__name__)

GENERATOR = "faceswap-diffusion"
SIGNED_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Pillow's names of the formats that are signed, and their media types."""

VIDEO_TYPES = {".mp4": "video/mp4", ".mov": "video/quicktime"}
FACTS = "org.faceswap-diffusion.facts"
PARENT = "target"
UNTRUSTED = "signingCredential.untrusted"

SETTINGS: dict[str, Any] = {
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    "builder": {"thumbnail": {"enabled": False}},  # it would show the target as it was
}


@dataclass(frozen=True)
class ContentCredentials:
    """What the Content Credentials of a file say, and whether that can be relied on.

    Args:
        generator (`str`): The program that wrote them.
        signer (`str`): Whom the certificate names.
        is_valid (`bool`): Whether the signature is right and the file is as it was signed.
        is_trusted (`bool`): Whether a trust list, if one is given, knows the certificate.
        is_altered (`bool`): Whether the file or the statement was changed since.
        digital_source_types (`list[str]`): Of its actions, without the common part of their names.
        problems (`list[str]`): C2PA's codes of what is wrong.
        ingredients (`list[str]`): Titles of what the file was made of.
    """

    generator: str
    signer: str
    is_valid: bool
    is_trusted: bool
    is_altered: bool
    digital_source_types: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    ingredients: list[str] = field(default_factory=list)

    @property
    def is_ours(self) -> bool:
        """Whether this program wrote them."""
        return self.generator == GENERATOR


def can_sign() -> bool:
    """Whether the extra `c2pa` is installed."""
    return find_spec("c2pa") is not None


def sign_picture(
    content: bytes,
    file_format: str,
    provenance: dict[str, Any],
    digital_source_type: str,
    parent: str | PathLike | None = None,
) -> bytes:
    """Adds Content Credentials to a picture, if the extra is installed and the format can hold them.

    Args:
        content (`bytes`): The picture's file.
        file_format (`str`): Pillow's name of its format.
        provenance (`dict[str, Any]`): JSON-serialisable facts.
        digital_source_type (`str`): IPTC's address of how it was made.
        parent (`str | PathLike`, *optional*): The file that it was made of; its own credentials are kept.

    Returns:
        `bytes`: The file, as it was if it cannot be signed.
    """
    media_type = SIGNED_FORMATS.get(file_format)
    signing = choose_signing() if media_type and can_sign() else None
    if media_type is None or signing is None:
        return content
    signed = io.BytesIO()
    _sign(signing, media_type, io.BytesIO(content), signed, _manifest(provenance, digital_source_type), parent)
    return signed.getvalue()


def sign_video(
    path: Path, output: Path, provenance: dict[str, Any], digital_source_type: str, parent: Path | None
) -> bool:
    """Writes a video with Content Credentials.

    Args:
        path (`Path`): The video, MP4 or QuickTime.
        output (`Path`): Where to write it.
        provenance (`dict[str, Any]`): JSON-serialisable facts.
        digital_source_type (`str`): IPTC's address of how it was made.
        parent (`Path`, *optional*): The video that it was made of.

    Returns:
        `bool`: Whether it was written: not without the extra `c2pa`, nor for other kinds of files.
    """
    media_type = VIDEO_TYPES.get(output.suffix.lower())
    signing = choose_signing() if media_type and can_sign() else None
    if media_type is None or signing is None:
        return False
    with path.open("rb") as source, output.open("w+b") as destination:
        _sign(signing, media_type, source, destination, _manifest(provenance, digital_source_type), parent)
    return True


def read_credentials(path: str | PathLike, trust_anchors: str | None = None) -> ContentCredentials | None:
    """Reads and checks the Content Credentials of a file.

    Args:
        path (`str | PathLike`): A picture or a video.
        trust_anchors (`str`, *optional*): PEM of the certificates of those who are trusted; nobody is if left out.

    Returns:
        [`ContentCredentials`], *optional*: `None` if the file has none.

    Raises:
        ModuleNotFoundError: Without the extra `c2pa`.
    """
    import c2pa

    settings = dict(SETTINGS)
    if trust_anchors is not None:
        settings["trust"] = {"trust_anchors": trust_anchors}
    media_type = _media_type(Path(path))
    if media_type is None:
        return None
    try:
        with c2pa.Context(c2pa.Settings.from_dict(settings)) as context, open(path, "rb") as file:
            reader = c2pa.Reader.try_create(media_type, file, context=context)
            return None if reader is None else _credentials(json.loads(reader.json()), reader.get_validation_state())
    except c2pa.C2paError as error:
        logger.warning(f"{fspath(path)}: Content Credentials are there and cannot be read ({error})")
        return None


def _credentials(told: dict[str, Any], state: str | None) -> ContentCredentials:
    manifest = told["manifests"][told["active_manifest"]]
    generators, signature = manifest.get("claim_generator_info") or [{}], manifest.get("signature_info") or {}
    codes = sorted({status["code"] for status in told.get("validation_status", [])})
    problems = [code for code in codes if code != UNTRUSTED]
    actions = [
        action
        for assertion in manifest.get("assertions", [])
        if assertion["label"].startswith("c2pa.actions")
        for action in assertion["data"].get("actions", [])
    ]
    types = {action["digitalSourceType"].rpartition("/")[2] for action in actions if "digitalSourceType" in action}
    return ContentCredentials(
        str(generators[0].get("name", "unknown")),
        str(signature.get("common_name") or signature.get("issuer") or "unknown"),
        is_valid=state in ("Valid", "Trusted"),
        is_trusted=state == "Trusted",
        is_altered=any(code.endswith("mismatch") for code in problems),
        digital_source_types=sorted(types),
        problems=problems,
        ingredients=[str(ingredient.get("title", "")) for ingredient in manifest.get("ingredients", [])],
    )


def _manifest(provenance: dict[str, Any], digital_source_type: str) -> dict[str, Any]:
    facts = json.loads(json.dumps(provenance, default=plain_number))
    actions = [{"action": "c2pa.edited", "digitalSourceType": digital_source_type}]
    return {
        "claim_generator_info": [{"name": GENERATOR, "version": __version__}],
        "assertions": [
            {"label": "c2pa.actions.v2", "data": {"actions": actions}},
            {"label": FACTS, "data": facts},
        ],
    }


def _sign(
    signing: Signing,
    media_type: str,
    source: BinaryIO,
    destination: BinaryIO,
    manifest: dict[str, Any],
    parent: str | PathLike | None,
) -> None:
    """Writes a file with a manifest, to which the action that began it is added."""
    import c2pa

    actions = manifest["assertions"][0]["data"]["actions"]
    with _ingredient(parent) as (ingredient_type, file):
        if file is None:
            actions.insert(0, {"action": "c2pa.created", "digitalSourceType": actions[0]["digitalSourceType"]})
        else:
            actions.insert(0, {"action": "c2pa.opened", "parameters": {"ingredientIds": [PARENT]}})
        info = c2pa.C2paSignerInfo(b"es256", signing.certificates, signing.key, signing.time_stamp_url)
        with (
            c2pa.Context(c2pa.Settings.from_dict(SETTINGS)) as context,
            c2pa.Signer.from_info(info) as signer,
            c2pa.Builder.from_json(json.dumps(manifest), context) as builder,
        ):
            if file is not None:
                described = {"title": PARENT, "relationship": "parentOf", "instance_id": PARENT, "label": PARENT}
                builder.add_ingredient(described, ingredient_type, file)
            builder.sign(signer, media_type, source, destination)


@contextmanager
def _ingredient(path: str | PathLike | None) -> Iterator[tuple[str, BinaryIO | None]]:
    """The file that another was made of, open, with its media type; `None` if there is none that C2PA knows."""
    media_type = _media_type(Path(path)) if path is not None and os.path.isfile(path) else None
    if path is None or media_type is None:
        yield "", None
    else:
        with open(path, "rb") as file:
            yield media_type, file


def _media_type(path: Path) -> str | None:
    """The media type of a file, by its content if it is a picture; `None` for what C2PA does not know."""
    import c2pa

    try:
        with Image.open(path) as image:
            media_type = image.get_format_mimetype()
    except (UnidentifiedImageError, OSError):
        media_type = VIDEO_TYPES.get(path.suffix.lower())
    return media_type if media_type in c2pa.Reader.get_supported_mime_types() else None
