"""Pictures in a folder, in the order in which people would list them."""

import re
from pathlib import Path
from typing import Any

PICTURES = {".avif", ".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def natural_key(path: Path) -> list[Any]:
    """Sort key that orders numbers in names by value: 9.jpg before 10.jpg."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def is_picture(path: Path) -> bool:
    """Whether a name ends as that of a picture."""
    return path.suffix.lower() in PICTURES


def pictures_in(folder: Path) -> list[Path]:
    """The pictures of a folder in natural order.

    Raises:
        ValueError: If the folder does not exist or has no pictures.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder")
    found = sorted(filter(is_picture, folder.iterdir()), key=natural_key)
    if not found:
        raise ValueError(f"{folder} has no pictures ({', '.join(sorted(PICTURES))})")
    return found
