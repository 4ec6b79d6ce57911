"""The one writer of files and folders: each is there whole, or not at all.

What is being written lies beside its place under a name that begins with `UNFINISHED`, on the same disk; a run that
was killed leaves it behind, and `remove_left_overs` takes it away.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".unfinished-"


def is_read_only(path: Path) -> bool:
    """Whether a file exists that is write-protected. The superuser could write it, and should not."""
    return path.is_file() and (not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK))


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A path to write to, whose file takes the place of `path` at the end of the block.

    A file that is there keeps its mode; where `path` is a link, the file that it leads to is replaced.

    Args:
        path (`str | Path`): The file; its folder exists.

    Yields:
        `Path`: Nothing is there yet. Whatever the block raises, nothing is left of it.

    Raises:
        ValueError: If the file that is there is read-only.
    """
    place = Path(os.path.realpath(path))
    if is_read_only(place):
        raise ValueError(f"cannot write {path}: it is read-only; choose another name, or make it writable")
    unfinished = _beside(place)
    try:
        yield unfinished
        if place.exists():
            unfinished.chmod(stat.S_IMODE(place.stat().st_mode))
        os.replace(unfinished, place)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: str | Path, sync: bool = False) -> Iterator[Path]:
    """A new folder to write to, which takes the place of `path` at the end of the block.

    Args:
        path (`str | Path`): The folder; where it is a link, what it leads to is replaced.
        sync (`bool`): Whether to wait until all of it is on the disk before it gets its name.

    Yields:
        `Path`: Whatever the block raises, nothing is left of it.
    """
    place = Path(os.path.realpath(path))
    unfinished = _beside(place)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        if sync:
            for part in [*unfinished.rglob("*"), unfinished]:
                _sync(part)
        with _moved_aside(place):
            os.replace(unfinished, place)
        if sync:
            _sync(place.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes a file of UTF-8, see `whole_file`."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def remove(path: Path) -> None:
    """Removes a file or folder. It is renamed first, so that an interrupted removal leaves nothing under its name."""
    left_over = _beside(path)
    os.replace(path, left_over)
    _delete(left_over)


def remove_left_overs(folder: Path) -> None:
    """Removes unfinished files that killed runs have left in a folder."""
    for path in folder.glob(f"{UNFINISHED}*"):
        _delete(path)


@contextmanager
def _moved_aside(place: Path) -> Iterator[None]:
    """Moves an existing file or folder out of the way, and puts it back if the block fails."""
    if not place.exists():
        yield
        return
    former = _beside(place)
    os.replace(place, former)
    try:
        yield
    except OSError:
        os.replace(former, place)
        raise
    _delete(former)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _beside(place: Path) -> Path:
    return place.with_name(UNFINISHED + secrets.token_hex(8))  # its own name might be as long as a name may be


def _sync(path: Path) -> None:
    """Waits until a file or folder is on the disk."""
    if path.is_dir() and os.name != "posix":
        return  # Windows does so without being asked
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
