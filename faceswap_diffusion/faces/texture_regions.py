"""Where a face's texture shows plain skin, and what it is examined with."""

from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import BROWS_478, EYES_478, MOUTH_478, NOSE_478
from faceswap_diffusion.faces.surface import NOTHING
from faceswap_diffusion.faces.texture import smoothstep, texture_raster

SIDE = 256
"""Side in texels at which textures are examined and filled."""

FOREHEAD, BEARDLESS, INNER = 0.31, 0.58, 0.24
"""Skin is even above the first texture coordinate v, and above the second at more than the third from the middle."""

SOFT = 0.03
"""Half the width of the border between skin that may be filled and mouth and chin."""

EXAMINED_MARGIN, FILLED_MARGIN, BROW_MARGIN = 0.03, 0.015, 0.012
"""Shares of the texture's side around eyes and lips that are not examined, because of lashes, and not filled; and of
what is left alone around brows."""

WEAK = 0.1
"""Texels of less confidence do not count for the colour of the skin."""


@lru_cache(maxsize=8)
def plain_skin(size: int, margin: float) -> np.ndarray:
    """Skin of a texture, (size, size) bool, as a share of its side away from eyes, brows and lips."""
    raster = texture_raster(size)
    skin = raster.seen != NOTHING
    for outlines, share in ((BROWS_478, BROW_MARGIN), (EYES_478 + MOUTH_478, margin)):
        features = np.maximum.reduce([filled(outline, size) for outline in outlines])
        skin = skin & (cv2.dilate(features, disc(share * size)) == 0)
    return skin


@lru_cache(maxsize=2)
def even_skin(size: int) -> np.ndarray:
    """Skin of forehead, temples and outer cheeks, which has no beard and little shape, (size, size) bool."""
    v, u = coordinates(size)
    return plain_skin(size, EXAMINED_MARGIN) & ((v < FOREHEAD) | (v < BEARDLESS) & (np.abs(u - 0.5) > INNER))


@lru_cache(maxsize=1)
def fillable_skin(size: int) -> np.ndarray:
    """Skin without much shape: all but nose, mouth and chin, (size, size) float32 in [0, 1]."""
    v, u = coordinates(SIDE)
    shaped = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(shaped, [np.round(texture_raster(SIDE).points[list(NOSE_478[0])]).astype(np.int32)], 1)
    below, outer = smoothstep(v - BEARDLESS, -SOFT, SOFT), smoothstep(np.abs(u - 0.5) - INNER, -SOFT, SOFT)
    skin = plain_skin(SIDE, FILLED_MARGIN) * (shaped == 0) * (1 - below * (1 - outer))
    return cv2.resize(skin.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def filled(outline: Sequence[int], size: int) -> np.ndarray:
    """What mesh points surround in a texture, (size, size) float32, 0 or 1."""
    mask = np.zeros((size, size), np.float32)
    cv2.fillPoly(mask, [np.round(texture_raster(size).points[list(outline)]).astype(np.int32)], 1.0)
    return mask


def coordinates(size: int) -> np.ndarray:
    """Texture coordinates v and u of the texels of a square texture, (2, size, size)."""
    return (np.mgrid[:size, :size] + 0.5) / size


def disc(radius: float) -> np.ndarray:
    """A structuring element for morphology, of a radius in texels."""
    side = 2 * round(radius) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
