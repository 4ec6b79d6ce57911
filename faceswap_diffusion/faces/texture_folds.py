"""Folds that a smile makes in skin, which a face without that smile does not have."""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import NOSE_478
from faceswap_diffusion.faces.texture import (
    HAIRY,
    FaceTexture,
    blur_known,
    resize_texture,
    resized_plane,
    smoothstep,
    to_lab,
)
from faceswap_diffusion.faces.texture_light import excess
from faceswap_diffusion.faces.texture_regions import SIDE, coordinates, filled, plain_skin

LEVELS = (0.3, 0.86)
"""Texture coordinates v between which a smile folds the skin: from the lower lids to below the lips."""

MARGIN, SOFT = 0.012, 0.015
"""What is left alone around eyes and lips, and the softness of the edge, as shares of the texture's side."""

FINE_SIGMA, FOLD_SIGMA, SKIN_SIGMA = 0.005, 0.006, 0.05
"""Standard deviations, in the same unit, of blurs that take pores off, that leave folds, and that leave only skin."""

BEARD_SIGMA = 0.012
"""The same for telling beards: a beard is dark over a wide area, and a fold is not."""

FOLDED = (1.5, 4.0)
"""Differences in L* between the two, from which on something is, and wholly is, a fold. Pores differ by less."""

REST, CREASE = ((2.0, 4.0), (1.0, 2.0)), (4.0, 6.0)
"""What stays of a fold in L*, and in a* and b*: all up to the first, and never more than the second. The same for the
L* of its fine lines."""


def find_folds(texture: FaceTexture) -> FaceTexture:
    """Finds what a smile may have folded on cheeks, under eyes and around the mouth.

    Args:
        texture ([`FaceTexture`]): The texture.

    Returns:
        [`FaceTexture`]: With `folds`, what to add in CIELAB to take them off, if there are any.
    """
    small = resize_texture(texture, SIDE)
    lab, zone = to_lab(small.pixels), folding_skin(SIDE) * (small.confidence > 0)
    if not (zone > 0.5).any():
        return texture
    lightness = cv2.GaussianBlur(lab[..., 0], (0, 0), BEARD_SIGMA * SIDE)
    weights = zone * smoothstep(lightness / max(float(np.median(lightness[zone > 0.5])), 1), *HAIRY)
    known = np.dstack([lab, np.ones_like(lightness)])
    smooth = blur_known(known, weights, SKIN_SIGMA * SIDE, doubt=0.02)
    smooth = resized_plane(smooth[..., :3] / np.maximum(smooth[..., 3:], 1e-3), SIDE)
    difference = cv2.GaussianBlur(lab[..., 0] - smooth[..., 0], (0, 0), FOLD_SIGMA * SIDE)
    share = cv2.GaussianBlur(weights * smoothstep(np.abs(difference), *FOLDED), (0, 0), FOLD_SIGMA * SIDE)
    return replace(texture, folds=_flattening(texture, smooth, share)) if share.any() else texture


def _flattening(texture: FaceTexture, smooth: np.ndarray, share: np.ndarray) -> np.ndarray:
    """What to add to a texture in CIELAB, (T, T, 3) float32, to bring it closer to a smooth one by a share (S, S).

    Only what is as wide as a fold is taken off, and of what is finer, what is darker than pores.
    """
    size, rows = len(texture.confidence), np.nonzero(share.any(axis=1))[0]
    window = slice(rows[0] * size // SIDE, (rows[-1] + 1) * size // SIDE)
    lab = to_lab(texture.pixels[window])
    beyond = lab - resized_plane(smooth, size)[window]
    broad = cv2.GaussianBlur(beyond, (0, 0), FINE_SIGMA * size)
    surplus = np.concatenate([excess(broad[..., :1], REST[0]), excess(broad[..., 1:], REST[1])], axis=2)
    surplus[..., 0] += np.minimum(excess((beyond - broad)[..., 0], CREASE), 0)
    folds = np.zeros_like(texture.pixels)
    folds[window] = -resized_plane(share, size)[window][..., None] * surplus
    return folds


@lru_cache(maxsize=1)
def folding_skin(size: int) -> np.ndarray:
    """Skin that a smile folds, without the nose, (size, size) float32 in [0, 1]."""
    v, _ = coordinates(size)
    skin = plain_skin(size, MARGIN) & (filled(NOSE_478[0], size) == 0) & (v > LEVELS[0]) & (v < LEVELS[1])
    return cv2.GaussianBlur(skin.astype(np.float32), (0, 0), SOFT * size)
