"""Names of identity files. It imports no PyTorch, so that the command line checks them before it loads anything."""

from os import PathLike
from pathlib import Path

from faceswap_diffusion.provenance.save import check_place

SUFFIX = ".safetensors"


def is_identity_file(source: object) -> bool:
    """Whether a source is the path of a saved identity, by its suffix."""
    return isinstance(source, str | PathLike) and Path(source).suffix == SUFFIX


def check_identity_output(path: str | PathLike, overwrite: bool = True) -> Path:
    """Checks before the work that an identity can be saved to a path.

    Args:
        path (`str | PathLike`): Ends in .safetensors.
        overwrite (`bool`): Whether a file that exists may be replaced.

    Returns:
        `Path`: The path.

    Raises:
        ValueError: If the suffix is another one, or as `provenance.save.check_place` says.
    """
    path = Path(path)
    if not is_identity_file(path):
        raise ValueError(f"cannot save {path}: an identity is a safetensors file; end the name in {SUFFIX}")
    check_place(path, overwrite)
    return path
