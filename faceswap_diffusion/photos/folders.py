"""Which files are pictures and which are videos, and a folder's pictures in the order in which people list them."""

import re
from os import PathLike
from pathlib import Path
from typing import Any

PICTURES = {".avif", ".bmp", ".heic", ".heif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
VIDEOS = {".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv"}


def natural_key(path: Path) -> list[Any]:
    """Sort key that orders numbers in names by value: 9.jpg before 10.jpg."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def is_picture(path: Path) -> bool:
    """Whether a name ends as that of a picture."""
    return path.suffix.lower() in PICTURES


def is_video(path: str | PathLike) -> bool:
    """Whether a name ends as that of a video."""
    return Path(path).suffix.lower() in VIDEOS


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
