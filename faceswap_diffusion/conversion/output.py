"""Writes the result of a conversion: to a temporary place, renamed only when everything has succeeded."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from faceswap_diffusion.writing import is_read_only, whole_file, whole_folder


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
    if _is_there(path) and not overwrite:
        raise ValueError(f"{path} exists: choose another name, or pass --overwrite to replace it")
    if is_read_only(path):
        raise ValueError(f"{path} is read-only: choose another name, or make it writable")
    if path.is_dir() and any(path.iterdir()) and not (path / "model_index.json").is_file():
        raise ValueError(f"{path} is a folder of other things than a checkpoint and is not replaced: remove it first")
    return path


def _is_there(path: Path) -> bool:
    try:
        return bool(path.lstat())
    except FileNotFoundError:
        return False
    except OSError as error:  # as for a name that is too long
        raise ValueError(f"cannot write {path}: {error.strerror}") from None


@contextmanager
def written(path: str | Path, overwrite: bool = False, as_file: bool = False) -> Iterator[Path]:
    """Gives a temporary folder or file to write a result to, and moves it to its place at the end of the block.

    Args:
        path (`str` or `Path`): Folder or file.
        overwrite (`bool`): Whether an existing one is replaced.
        as_file (`bool`): Whether the result is a file.

    Yields:
        `Path`: A folder, or the path of a file that does not exist yet, on the same disk.

    Raises:
        ValueError: If it cannot be written, for example because the disk is full. Then nothing is left behind, and an
            existing result is kept.
    """
    path = check_output(path, overwrite)
    try:
        with (whole_file if as_file else whole_folder)(path) as unfinished:
            yield unfinished
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot write {path}: {reason}") from error
