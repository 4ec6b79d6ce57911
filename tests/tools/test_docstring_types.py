"""The types of docstrings, as the reference of the documentation shows them."""

import sys
from pathlib import Path

import pytest

pytest.importorskip("griffe", reason="needs the extra docs")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from docstring_types import without_markup  # pyright: ignore[reportMissingImports]


def test_types_lose_their_markup_and_descriptions_keep_theirs():
    docstring = """Does.

    Args:
        image (`np.ndarray` of shape `(H, W, 3)`, uint8): A picture, see `crop`.
        low, high (`int`, *optional*): *Two* numbers.
        settings: As for `swap`.

    Returns:
        `np.ndarray` of shape `(H, W)`, int32: An index, or `NOTHING`: outside.
    """
    assert (
        without_markup(docstring)
        == """Does.

    Args:
        image (np.ndarray of shape (H, W, 3), uint8): A picture, see `crop`.
        low, high (int, optional): *Two* numbers.
        settings: As for `swap`.

    Returns:
        np.ndarray of shape (H, W), int32: An index, or `NOTHING`: outside.
    """
    )
