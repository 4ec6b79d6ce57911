"""Beards of targets: short ones are repainted with the face, long ones stay."""

from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.faces.texture import to_lab
from faceswap_diffusion.masks.outlines import beard_mask, below_chin, dilate, erode, upper_half, upper_lip

BEYOND_JAW = 0.08
"""How far beyond the mesh a short beard may reach, relative to the square root of the face's area."""

INSIDE_JAW, MOSTLY = 0.1, 0.4
"""Width of the border of chin and jaw, in the same unit, of which this share has a beard if a face has one."""

BEARD, ROUGH = 15.0, 1.8
"""Least difference in CIELAB between a beard and the skin of the cheeks, and its least roughness in L*."""

DENSE = 40.0
"""From this difference in CIELAB on it is one without being rough: in dark hair, single hairs are not seen."""

LIKE = 0.6
"""What differs from the beard by less than this share of its difference from skin has the beard's colour."""

LONG_BELOW, LONG_WITHIN, LONG_DEPTH = 0.85, 0.45, 48.0
"""Shares of what is below the chin, and around mouth and chin, that have its colour if a beard is long, and its least
difference from skin in CIELAB: a shadowed neck differs less."""

LONG_REACH = 0.16
"""How far below the chin that is, relative to the square root of the face's area: a short beard's neck is there."""

BEARD_GAP = 0.06
"""Gaps narrower than this, in the same unit, belong to a long beard."""


@dataclass(frozen=True, eq=False)
class Beard:
    """A beard, and what its picture looks like beside it.

    Args:
        jaw (`np.ndarray` of shape `(S, S)`, float32): Where it is found in the border of chin and jaw, 0 or 1.
        from_skin, from_beard (`np.ndarray` of shape `(S, S)`, float32): CIELAB distances from the colour of the
            cheeks, and from its own.
        hairy (`np.ndarray` of shape `(S, S)`, bool): What may be hair.
        lower (`np.ndarray` of shape `(S, S)`, float32): The lower half of the picture, 0 or 1.
        unit (`float`): Square root of the face's area, in pixels.
    """

    jaw: np.ndarray
    from_skin: np.ndarray
    from_beard: np.ndarray
    hairy: np.ndarray
    lower: np.ndarray
    unit: float


def find_beard(face: np.ndarray, skin: np.ndarray, landmarks: np.ndarray, pixels: np.ndarray) -> Beard | None:
    """Looks for a beard, which is rough and has another colour than the skin of the cheeks.

    Args:
        face (`np.ndarray`): (S, S) float32, 1 where the face is.
        skin (`np.ndarray`): (S, S) float32, 1 where a parser sees skin.
        landmarks (`np.ndarray`): (478, 2), x, y in crop pixels.
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB, the crop.

    Returns:
        [`Beard`], *optional*: `None` if chin and jaw have none.
    """
    size = len(face)
    unit, lower = float(np.sqrt(face.sum())), 1 - upper_half(landmarks, size)
    lab = to_lab(pixels)
    smooth = cv2.GaussianBlur(lab, (0, 0), size / 256)
    cheeks = face * skin * (1 - lower) > 0
    border = (face - erode(face, INSIDE_JAW * unit)) * beard_mask(landmarks, size)
    if not cheeks.any() or not border.any():
        return None
    from_skin = np.linalg.norm(smooth - np.median(smooth[cheeks], axis=0), axis=2)
    hairy = (from_skin > DENSE) | (from_skin > BEARD) & (_roughness(lab[..., 0]) > ROUGH)
    jaw = border * hairy
    if jaw.sum() < MOSTLY * border.sum():
        return None
    from_beard = np.linalg.norm(smooth - np.median(smooth[jaw > 0], axis=0), axis=2)
    return Beard(jaw, from_skin, from_beard, hairy, lower, unit)


def beyond_jaw(beard: Beard, face: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The part of a short beard that hangs over the mesh's edge.

    Args:
        beard ([`Beard`]): From `find_beard`.
        face (`np.ndarray`): (S, S) float32, 1 where the face is.
        background (`np.ndarray`): (S, S) float32, 1 where a parser sees no person.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.
    """
    hairy = beard.hairy & (beard.from_beard < beard.from_skin)
    beyond = dilate(face, BEYOND_JAW * beard.unit) * beard.lower * (1 - face) * (1 - background)
    beyond *= dilate(beard.jaw, (INSIDE_JAW + BEYOND_JAW) * beard.unit)
    return dilate(cv2.morphologyEx(beyond * hairy, cv2.MORPH_OPEN, np.ones((3, 3))), 0.02 * beard.unit) * beyond


def long_beard(beard: Beard, landmarks: np.ndarray) -> np.ndarray:
    """A beard that hangs far below the chin, with mouth and moustache.

    It covers what a face without it would show there, and no model of faces knows that: half of it repainted is worse
    than all of it left.

    Args:
        beard ([`Beard`]): From `find_beard`.
        landmarks (`np.ndarray`): (478, 2), x, y in crop pixels.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside; all 0 if the beard is not long.
    """
    size = len(beard.jaw)
    of_beard = (beard.from_beard < LIKE * beard.from_skin) | (beard.from_skin > DENSE)
    below = below_chin(landmarks, size, LONG_REACH * beard.unit) > 0
    if not below.any():
        return np.zeros((size, size), np.float32)
    shares = of_beard[below].mean(), of_beard[beard_mask(landmarks, size) > 0].mean()
    depth = np.median(beard.from_skin[beard.jaw > 0])
    if shares[0] < LONG_BELOW or shares[1] < LONG_WITHIN or depth < LONG_DEPTH:
        return np.zeros((size, size), np.float32)
    _, pieces = cv2.connectedComponents((of_beard * beard.lower).astype(np.uint8))
    within = np.unique(pieces[(beard.jaw > 0) & of_beard & (beard.lower > 0)])
    whole = np.isin(pieces, within[within > 0]).astype(np.float32)
    whole = np.maximum.reduce([whole, beard_mask(landmarks, size), upper_lip(landmarks, size)])
    return erode(dilate(whole, BEARD_GAP / 2 * beard.unit), BEARD_GAP / 2 * beard.unit)


def _roughness(lightness: np.ndarray) -> np.ndarray:
    """Local mean of the finest detail of L* (S, S), which hair has and shadows have not."""
    pixel = len(lightness) / 256
    fine = np.abs(lightness - cv2.GaussianBlur(lightness, (0, 0), 1.5 * pixel))
    return cv2.GaussianBlur(fine, (0, 0), 3 * pixel)
