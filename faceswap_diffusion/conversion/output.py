"""Where a conversion writes: beside the place that is meant, and there only when all of it is well."""

import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


def check_output(path: str | Path, overwrite: bool) -> Path:
    """Finds out early whether a result can be written.

    Args:
        path (`str` or `Path`): File, or folder in Diffusers' layout.
        overwrite (`bool`): Whether something older may be replaced.

    Returns:
        `Path`: `path`, absolute, and that which it leads to if it is a link.

    Raises:
        ValueError: If its folder does not exist, or it exists and may not be replaced. A folder that holds something
            else than a checkpoint never may, nor may a file that is read-only.
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
    """The mode of what is there already, `None` if nothing is."""
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:  # as for a name that is too long
        raise ValueError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def written(path: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """A new folder to write a result into, by the name of the result, which takes its place at the end of the block.

    Args:
        path (`str` or `Path`): File or folder.
        overwrite (`bool`): Whether an older one is replaced.

    Yields:
        `Path`: A path that does not exist yet, on the same disk.

    Raises:
        ValueError: If it cannot be written, as when the disk is full; nothing is left then, and an older one stays.
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
