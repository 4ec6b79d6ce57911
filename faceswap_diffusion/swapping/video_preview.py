"""The preview sheet of a video: some of its frames, small, in one picture."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from faceswap_diffusion.provenance.save import save_image

WIDTH = 240  # of a frame on the sheet, in pixels
MOST_COLUMNS = 6
THUMBNAIL = "preview-"


def save_thumbnail(rgb: np.ndarray, seconds: float, folder: Path, index: int) -> None:
    """Saves a small picture of a frame, with its time.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        seconds (`float`): When it is shown.
        folder (`Path`): Where to.
        index (`int`): Its number.
    """
    picture = Image.fromarray(rgb)
    picture.thumbnail((WIDTH, 4 * WIDTH))
    text = f"{int(seconds) // 60}:{seconds % 60:05.2f}"
    ImageDraw.Draw(picture).text((4, 2), text, fill="white", stroke_width=1, stroke_fill="black")
    picture.save(folder / f"{THUMBNAIL}{index:09d}.png")


def write_sheet(folders: Sequence[Path], path: Path, provenance: dict[str, Any] | None) -> None:
    """Puts all small pictures of folders on one sheet, row by row.

    Args:
        folders (`Sequence[Path]`): What `save_thumbnail` has written to.
        path (`Path`): Of the sheet.
        provenance (`dict[str, Any]`, *optional*): See [`provenance.save_image`].
    """
    shown = [Image.open(file) for folder in folders for file in sorted(folder.glob(f"{THUMBNAIL}*.png"))]
    if not shown:
        return
    columns = min(MOST_COLUMNS, len(shown))
    width, height = shown[0].size
    sheet = Image.new("RGB", (columns * width, math.ceil(len(shown) / columns) * height))
    for number, picture in enumerate(shown):
        sheet.paste(picture, (number % columns * width, number // columns * height))
        picture.close()
    save_image(sheet, path, provenance=provenance)
