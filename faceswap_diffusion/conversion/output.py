"""Writes the result of a conversion: to a temporary place, renamed only when everything has succeeded."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


def check_output(path: str | Path, overwrite: bool) -> Path:
    """Checks early whether a result can be written.

    Args:
        path (`str` or `Path`): File, or folder in Diffusers' layout.
        overwrite (`bool`): Whether an existing result may be replaced.

    Returns:
        `Path`: The absolute path, with links resolved.

    Raises:
        ValueError: If its folder does not exist, or it exists and may not be replaced. Read-only files, and folders
            that are not checkpoints, are never replaced.
    """
    path = Path(path).resolve()
    if not path.parent.is_dir():
        raise ValueError(f"cannot write {path}: there is no folder {path.parent}")
    mode = _mode(path)
    if mode is not None and not overwrite:
        raise ValueError(f"{path} exists: choose another name, or pass --overwrite to replace it")
    if mode is not None and stat.S_ISREG(mode) and not mode & 0o222:
        raise ValueError(f"{path} is read-only: choose another name, or make it writable")
    if path.is_dir() and any(path.iterdir()) and not (path / "model_index.json").is_file():
        raise ValueError(f"{path} is a folder of other things than a checkpoint and is not replaced: remove it first")
    return path


def _mode(path: Path) -> int | None:
    """The mode of an existing file or folder, `None` if there is none."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:  # as for a name that is too long
        raise ValueError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def written(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """Gives a temporary path to write a result to, and moves the result to its place at the end of the block.

    Args:
        path (`str` or `Path`): File or folder.
        overwrite (`bool`): Whether an existing one is replaced.

    Yields:
        `Path`: A path that does not exist yet, on the same disk.

    Raises:
        ValueError: If it cannot be written, for example because the disk is full. Then nothing is left behind, and an
            existing result is kept.
    """
    path = check_output(path, overwrite)
    try:
        with tempfile.TemporaryDirectory(prefix=".unfinished-", dir=path.parent) as folder:
            yield Path(folder, path.name)
            if path.is_file():
                shutil.copymode(path, Path(folder, path.name))
            if path.exists():
                os.replace(path, Path(tempfile.mkdtemp(dir=folder), path.name))
            os.replace(Path(folder, path.name), path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot write {path}: {reason}") from error
