"""Draws the regions of faces, and what is in front of them, over a photo with a legend."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points, uncrop
from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.masks.occlusion import cover_mask, load_occlusion_network
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.masks.regions import repaint_mask

CROP_SIZE = 256
IN_FRONT = "in front of the face"
COLORS = {
    "hair": (150, 90, 30),
    "upper-face": (90, 140, 255),
    "lower-face": (0, 190, 190),
    "nose": (255, 150, 0),
    "mouth": (230, 0, 60),
    "brows": (255, 240, 0),
    "eyes": (0, 210, 60),
    IN_FRONT: (255, 255, 255),
}
"""What is drawn, the upper layers last."""

STRENGTH, IN_FRONT_STRENGTH = 0.55, 0.9
"""How far a pixel takes the colour of the upmost region there; what is in front stands out."""


def draw_masks(rgb: np.ndarray, faces: Sequence[Face]) -> Image.Image:
    """Tints the regions of faces and adds a legend below.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        faces (`Sequence[Face]`): In pixels of `rgb`.
    """
    colors, shares = np.zeros(rgb.shape, np.float32), np.zeros((*rgb.shape[:2], 1), np.float32)
    for face in faces:
        for name, mask in masks_of_face(rgb, face).items():
            colors += mask[..., None] * (np.array(COLORS[name], np.float32) - colors)
            shares += mask[..., None] * ((IN_FRONT_STRENGTH if name == IN_FRONT else STRENGTH) - shares)
    tinted = rgb + shares * (colors - rgb)
    return _with_legend(Image.fromarray(np.round(np.clip(tinted, 0, 255)).astype(np.uint8)))


def masks_of_face(rgb: np.ndarray, face: Face) -> dict[str, np.ndarray]:
    """The masks of a face in its photo, (H, W) float32 in [0, 1], by the names of `COLORS`."""
    matrix = ffhq_matrix(face.landmarks68, CROP_SIZE)
    landmarks = transform_points(face.landmarks if len(face.landmarks) == 478 else face.landmarks68, matrix)
    pixels = crop(rgb, matrix, CROP_SIZE)
    labels = load_face_parser().parse(pixels)
    crops = {name: repaint_mask(labels, landmarks, name, pixels=pixels) for name in COLORS if name != IN_FRONT}
    crops[IN_FRONT] = cover_mask(load_occlusion_network().find(pixels, landmarks))
    size = (rgb.shape[1], rgb.shape[0])
    return {name: np.clip(uncrop(crops[name], matrix, size), 0, 1) for name in COLORS}


def _with_legend(image: Image.Image) -> Image.Image:
    """Adds a strip with the colours and their names, in as many rows as it takes."""
    unit = max(12, image.width // 40)
    places, left, top = [], unit // 2, image.height + unit // 2
    for name in COLORS:
        width = round(ImageDraw.Draw(image).textlength(name, font_size=unit)) + 2 * unit
        if left > unit and left + width > image.width:
            left, top = unit // 2, top + round(1.5 * unit)
        places.append((name, left, top))
        left += width
    sheet = Image.new("RGB", (image.width, top + round(1.5 * unit)), "black")
    sheet.paste(image)
    draw = ImageDraw.Draw(sheet)
    for name, left, top in places:
        draw.rectangle((left, top, left + unit, top + unit), fill=COLORS[name])
        draw.text((left + 1.3 * unit, top + unit / 2), name, fill="white", font_size=unit, anchor="lm")
    return sheet
