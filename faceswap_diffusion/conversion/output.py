"""Where a conversion writes: beside the place that is meant, and there only when all of it is well."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from faceswap_diffusion.writing import is_read_only, whole_file, whole_folder


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
    """A new folder or file to write a result to, which takes its place at the end of the block.

    Args:
        path (`str` or `Path`): Folder or file.
        overwrite (`bool`): Whether an older one is replaced.
        as_file (`bool`): Whether the result is a file.

    Yields:
        `Path`: A folder, or the path of a file that does not exist yet, on the same disk.

    Raises:
        ValueError: If it cannot be written, as when the disk is full; nothing is left then, and an older one stays.
    """
    path = check_output(path, overwrite)
    try:
        with (whole_file if as_file else whole_folder)(path) as unfinished:
            yield unfinished
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(f"cannot write {path}: {reason}") from error
