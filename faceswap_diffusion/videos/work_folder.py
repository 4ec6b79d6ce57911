"""What a long job has done so far, so that the same job goes on where it was stopped."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from faceswap_diffusion.writing import UNFINISHED, remove, remove_left_overs, whole_folder, write_text

MANIFEST, LOCK, FACTS = "manifest.json", "lock", "segment.json"
FORMAT = "faceswap-diffusion video parts 1"

Setting = str | int | float | bool | None


class WorkFolder:
    """A folder that holds the finished segments of a job; a context in which no other process may use it.

    Args:
        path (`Path`): The folder; it is made if it is missing.
        settings (`Mapping[str, str | int | float | bool | None]`): All that the segments depend on.

    Raises:
        ValueError: On entry, if another process works in it, its segments were made with other settings, or it holds
            something else.
    """

    def __init__(self, path: Path, settings: Mapping[str, Setting]):
        self.path = path
        self.settings = dict(settings)
        self._lock: IO[str] | None = None

    def __enter__(self) -> "WorkFolder":
        """Begins, or goes on."""
        if self.path.is_dir() and not (self.path / MANIFEST).exists():
            _check_unused(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(self.path)
        try:
            self._begin()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Lets other processes use the folder."""
        assert self._lock is not None
        self._lock.close()

    def _begin(self) -> None:
        remove_left_overs(self.path)
        manifest = self.path / MANIFEST
        if manifest.exists():
            _check_settings(self.path, _read(manifest), self.settings)
        else:
            write_text(manifest, json.dumps({"format": FORMAT, "settings": self.settings}, indent=2))

    def segments(self) -> list[tuple[Path, dict[str, Any]]]:
        """The finished segments in order: the folder of each, and its facts."""
        found = []
        while (folder := self._folder(len(found))).is_dir():
            found.append((folder, _read(folder / FACTS)))
        return found

    @contextmanager
    def new_segment(self, number: int) -> Iterator[tuple[Path, dict[str, Any]]]:
        """A folder for a segment, there whole or not at all, and its facts, to be filled within the block."""
        facts: dict[str, Any] = {}
        with whole_folder(self._folder(number), sync=True) as folder:
            yield folder, facts
            (folder / FACTS).write_text(json.dumps(facts), encoding="utf-8")

    def remove(self) -> None:
        """Removes the folder with all that is in it."""
        remove(self.path)

    def _folder(self, number: int) -> Path:
        return self.path / f"{number:06d}"


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read {path}: it is damaged ({error}); remove {path.parent} and begin anew") from None


def _check_unused(path: Path) -> None:
    """A folder with something else in it is not taken, for it is removed at the end."""
    others = [entry.name for entry in path.iterdir() if entry.name != LOCK and not entry.name.startswith(UNFINISHED)]
    if others:
        raise ValueError(f"{path} is in use for something else (it holds {others[0]}): name another work folder")


def _check_settings(path: Path, manifest: Mapping[str, Any], settings: Mapping[str, Setting]) -> None:
    """Names all settings that have changed, with both values."""
    if manifest.get("format") != FORMAT:
        raise ValueError(f"{path} was begun by another version of this program: remove it and begin anew")
    former = manifest["settings"]
    changed = [
        f"{name} was {former.get(name)!r} and is {settings.get(name)!r}"
        for name in {**former, **settings}
        if former.get(name) != settings.get(name)
    ]
    if changed:
        raise ValueError(
            f"{path} holds parts that were made with other settings: {'; '.join(changed)}. Give the former ones to go "
            "on, or remove the folder to begin anew"
        )


def _locked(folder: Path) -> IO[str]:
    """Opens the folder's lock file and holds it, until it is closed or the process ends, however it does.

    Raises:
        ValueError: If another process holds it.
    """
    file = open(folder / LOCK, "a", encoding="utf-8")  # noqa: SIM115 - as long as the job
    try:
        _hold(file)
    except OSError:
        file.close()
        raise ValueError(
            f"another process works in {folder}: wait until it has ended, or name another output or work folder"
        ) from None
    if not os.path.exists(folder / LOCK):  # the other has just ended, and removed the folder
        file.close()
        folder.mkdir(parents=True, exist_ok=True)
        return _locked(folder)
    return file


def _hold(file: IO[str]) -> None:
    if os.name == "nt":
        import msvcrt

        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
