"""Draws the faces of a target, so that one is chosen by a click."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

LARGEST_SIDE = 1280
"""Of pictures that are shown, in pixels: larger ones take a phone long to load."""

CHOSEN, OTHER = (255, 140, 0), (255, 255, 255)

NUMBER_SIZE = 8
"""Of the numbers of faces, in widths of a box's line."""

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class ShownTarget:
    """A target as it is shown.

    Args:
        path (`str`): The uploaded file.
        is_video (`bool`): Whether it is a video, of which the first frame is shown.
        boxes (`tuple[Box, ...]`): Of its faces, left to right: x0, y0, x1, y1 in pixels of the picture shown.
    """

    path: str
    is_video: bool
    boxes: tuple[Box, ...]

    def at(self, x: float, y: float) -> int | None:
        """The face at a point of the picture shown; the smallest, where boxes overlap."""
        hit = [index for index, box in enumerate(self.boxes) if box[0] <= x <= box[2] and box[1] <= y <= box[3]]
        return min(hit, key=lambda index: _area(self.boxes[index]), default=None)

    def largest(self) -> int:
        """The face with the largest box."""
        return max(range(len(self.boxes)), key=lambda index: _area(self.boxes[index]))


def reduced(image: Image.Image) -> Image.Image:
    """A picture with no side longer than `LARGEST_SIDE`."""
    scale = LARGEST_SIDE / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), reducing_gap=3)


def draw_boxes(image: Image.Image, boxes: Sequence[Box], chosen: Collection[int]) -> Image.Image:
    """Draws the boxes of faces with their numbers.

    Args:
        image (`PIL.Image.Image`): In mode RGB.
        boxes (`Sequence[Box]`): In its pixels.
        chosen (`Collection[int]`): Whose boxes stand out.
    """
    image = image.copy()
    draw = ImageDraw.Draw(image)
    line = max(2, round(max(image.size) / 300))
    for index, box in enumerate(boxes):
        color, width = (CHOSEN, 2 * line) if index in chosen else (OTHER, line)
        draw.rectangle(box, outline=(0, 0, 0), width=width + 2)
        draw.rectangle(box, outline=color, width=width)
        label = draw.textbbox((box[0], box[1]), str(index), font_size=NUMBER_SIZE * line, anchor="lb")
        draw.rectangle((label[0], label[1] - line, label[2] + 2 * line, label[3]), fill=color)
        draw.text((box[0] + line, box[1]), str(index), fill=(0, 0, 0), font_size=NUMBER_SIZE * line, anchor="lb")
    return image


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
