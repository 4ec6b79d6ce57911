"""Texels that are not the face: strands, edges of hair and hats, shadows of frames; and light from one side."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import BROWS_478, EYES_478, MOUTH_478, NOSE_478
from faceswap_diffusion.faces.surface import NOTHING
from faceswap_diffusion.faces.texture import (
    LEAST_CONFIDENCE,
    FaceTexture,
    blur_known,
    fill_by_mirror,
    resize_texture,
    scale_lightness,
    smoothstep,
    texture_raster,
    to_lab,
)

SIDE = 256
"""Side in texels at which textures are examined and filled."""

FOREHEAD, BEARDLESS, INNER = 0.31, 0.58, 0.24
"""Skin is even above the first texture coordinate v, and above the second at more than the third from the middle."""

EXAMINED_MARGIN, FILLED_MARGIN, BROW_MARGIN = 0.03, 0.015, 0.012
"""Shares of the texture's side around eyes and lips that are not examined, because of lashes, and not filled; and of
what is left alone around brows."""

DARKER, CHROMA = 7.0, 12.0
"""Differences from the skin around in L*, and in a* and b*, from which on a texel is not skin."""

SPREADS = 3.0
"""The same in robust standard deviations of the skin, where that is more."""

MOLE = 0.03
"""Share of the texture's side, about 5 mm: dark spots up to this length are the person's own."""

STRAND = (5.0, 17.0)
"""How much darker in L* than the skin on both its sides a strand of hair is, and a part of it at least. Wrinkles are
less dark."""

DARKEST = 0.05
"""Share of a strand that is as dark as the second of these."""

STRAND_WIDTH = 0.03
"""Share of the texture's side: what is wider is no strand."""

BROW_LEVEL, SIDES = 0.27, 0.3
"""Strands are looked for above the first texture coordinate v, where no frown is, and at more than the second from the
middle, where no crow's foot is."""

MARGIN = 0.02
"""Share of the texture's side by which what is not skin is widened."""

GAP, ISLAND = 0.06, 0.01
"""Shares of the texture's side and area: narrower gaps between such pieces, and smaller islands, are covered too."""

AROUND_BROW, BROW_COVERED = 0.03, 0.5
"""Width of the skin around a brow, as a share of the texture's side, of which this share is covered if the brow is."""

SKIN_SIDE = 64
"""Side in texels of the smooth skin that holes are filled with."""

WEAK = 0.1
"""Texels of less confidence do not count for it, nor do those beside a hole, which have some of its colour."""

SKIN_SIGMA = 1.5
"""Standard deviation, in its texels, of the blur that makes it smooth."""

BALANCE_SIGMA = 0.05
"""Standard deviation, in sides of the texture, of the blur that leaves light and removes features."""

BALANCE_RANGE = (5.0, 12.0)
"""Differences of the halves in L* that are left, and that are evened out in full."""

SHADOW = (10.0, 16.0)
"""The same, from which on the darker half is given up for the other, if that is seen better."""


@lru_cache(maxsize=8)
def plain_skin(size: int, margin: float) -> np.ndarray:
    """Skin of a texture, (size, size) bool, as a share of its side away from eyes, brows and lips."""
    raster = texture_raster(size)
    skin = raster.seen != NOTHING
    for outlines, share in ((BROWS_478, BROW_MARGIN), (EYES_478 + MOUTH_478, margin)):
        features = np.maximum.reduce([_filled(outline, size) for outline in outlines])
        skin = skin & (cv2.dilate(features, _disc(share * size)) == 0)
    return skin


@lru_cache(maxsize=2)
def even_skin(size: int) -> np.ndarray:
    """Skin of forehead, temples and outer cheeks, which has no beard and little shape, (size, size) bool."""
    v, u = _coordinates(size)
    return plain_skin(size, EXAMINED_MARGIN) & ((v < FOREHEAD) | (v < BEARDLESS) & (np.abs(u - 0.5) > INNER))


@lru_cache(maxsize=1)
def fillable_skin(size: int) -> np.ndarray:
    """Skin without much shape: all but nose, mouth and chin, (size, size) float32 in [0, 1]."""
    v, u = _coordinates(SIDE)
    shaped = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillPoly(shaped, [np.round(texture_raster(SIDE).points[list(NOSE_478[0])]).astype(np.int32)], 1)
    middle = (v > BEARDLESS) & (np.abs(u - 0.5) < INNER)
    skin = plain_skin(SIDE, FILLED_MARGIN) & (shaped == 0) & ~middle
    return cv2.resize(skin.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)


def clean_texture(texture: FaceTexture) -> FaceTexture:
    """Takes off a photo's texture what is not the face: see `drop_foreign` and `balance_halves`."""
    return balance_halves(drop_foreign(texture))


def complete_texture(texture: FaceTexture) -> FaceTexture:
    """Fills a texture's holes, as far as that can be done: see `fill_by_mirror` and `add_skin`."""
    return add_skin(fill_by_mirror(texture))


def drop_foreign(texture: FaceTexture) -> FaceTexture:
    """Makes holes where skin is covered: by strands and edges of hair, brims, frames and what is behind the face.

    Skin of forehead, temples and cheeks is even. What is much darker, or of another colour, than a smooth symmetric
    function of the place (a polynomial of second order, fitted robustly) is not skin. Spots of the size of moles are.
    Single strands are found by their lines, see `find_strands`.

    Args:
        texture ([`FaceTexture`]): Of one photo.

    Returns:
        [`FaceTexture`]: With less confidence.
    """
    small = resize_texture(texture, SIDE)
    sharp = to_lab(small.pixels)
    lab = cv2.GaussianBlur(sharp, (0, 0), 1.2)
    known = even_skin(SIDE) & (small.confidence > 0)
    if known.sum() < SIDE:
        return texture
    expected, spread = fit_skin(lab, known)
    darker = (expected - lab)[..., 0] / max(DARKER, SPREADS * spread[0])
    stained = np.abs(lab - expected)[..., 1:] / np.maximum(CHROMA, SPREADS * spread[1:])
    foreign = smoothstep(np.maximum(darker, stained.max(axis=2)), 0.8, 1.1)
    foreign = np.maximum(foreign, find_strands(sharp[..., 0])) * known
    foreign = _without_moles(foreign.astype(np.float32))
    brows = covered_brows(np.maximum(foreign, small.confidence == 0))
    foreign = cv2.dilate(foreign, _disc(MARGIN * SIDE))
    foreign = np.maximum(_with_gaps(foreign, small.confidence > 0) * even_skin(SIDE), brows)
    foreign = cv2.resize(foreign, texture.confidence.shape[::-1], interpolation=cv2.INTER_LINEAR)
    confidence = texture.confidence * (1 - foreign)
    return replace(texture, confidence=np.where(confidence < LEAST_CONFIDENCE, 0, confidence))


def find_strands(lightness: np.ndarray) -> np.ndarray:
    """Finds dark lines on forehead and temples by a black top-hat (Serra 1982, "Image Analysis").

    Args:
        lightness (`np.ndarray` of shape `(S, S)`, float32): L* of a texture.

    Returns:
        `np.ndarray` of shape `(S, S)`, float32: 1 on strands.
    """
    size = len(lightness)
    v, u = _coordinates(size)
    closed = cv2.morphologyEx(lightness, cv2.MORPH_CLOSE, _disc(STRAND_WIDTH / 2 * size))
    darker = (closed - lightness) * ((v < BROW_LEVEL) | (np.abs(u - 0.5) > SIDES))
    _, pieces = cv2.connectedComponents((darker > STRAND[0]).astype(np.uint8))
    dark_share = np.bincount(pieces.ravel(), (darker > STRAND[1]).ravel()) / np.bincount(pieces.ravel())
    dark_share[0] = 0
    return (dark_share > DARKEST).astype(np.float32)[pieces]


def covered_brows(foreign: np.ndarray) -> np.ndarray:
    """Brows that a fringe, a brim or a frame lies on, judged by the skin around them.

    Args:
        foreign (`np.ndarray` of shape `(S, S)`, float32): In [0, 1], skin that is covered.

    Returns:
        `np.ndarray` of shape `(S, S)`, float32: 1 on such brows and close to them.
    """
    size, examined = len(foreign), even_skin(len(foreign))
    covered = np.zeros((size, size), np.float32)
    for brow in (_filled(outline, size) for outline in BROWS_478):
        around = (cv2.dilate(brow, _disc(AROUND_BROW * size)) > 0) & examined
        if foreign[around].mean() > BROW_COVERED:
            covered = np.maximum(covered, cv2.dilate(brow, _disc(BROW_MARGIN * size)))
    return covered


def _filled(outline: Sequence[int], size: int) -> np.ndarray:
    """What mesh points surround in a texture, (size, size) float32, 0 or 1."""
    mask = np.zeros((size, size), np.float32)
    cv2.fillPoly(mask, [np.round(texture_raster(size).points[list(outline)]).astype(np.int32)], 1.0)
    return mask


def _without_moles(foreign: np.ndarray) -> np.ndarray:
    """Takes spots out of a map (S, S) float32 that are no longer than `MOLE`."""
    _, spots, boxes, _ = cv2.connectedComponentsWithStats((foreign > 0).astype(np.uint8))
    lengths = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    return foreign * (lengths > MOLE * len(foreign))[spots]


def _with_gaps(foreign: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Adds to a map (S, S) float32 the forehead between strands, and between strands and hair, which is in shadow.

    Args:
        foreign (`np.ndarray`): In [0, 1], what is not skin.
        known (`np.ndarray`): (S, S) bool, what the photo shows.
    """
    size = len(foreign)
    forehead = plain_skin(size, EXAMINED_MARGIN) & (_coordinates(size)[0] < BROW_LEVEL)
    hidden = np.where(forehead & ~known, 1, foreign).astype(np.float32)
    closed = cv2.morphologyEx(hidden, cv2.MORPH_CLOSE, _disc(GAP / 2 * size))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((forehead & (closed < 0.5)).astype(np.uint8))
    small = stats[:, cv2.CC_STAT_AREA] < ISLAND * size**2
    return np.where(forehead, np.where(small[np.asarray(pieces, np.intp)] & (closed < 0.5), 1, closed), foreign)


def fit_skin(lab: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits the colour of even skin by iteratively reweighted least squares (Beaton and Tukey 1974).

    Args:
        lab (`np.ndarray` of shape `(S, S, 3)`): CIELAB.
        where (`np.ndarray` of shape `(S, S)`, bool): Which texels are fitted.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The fit (S, S, 3), and robust standard deviations (3,) about it.
    """
    v, u = (np.mgrid[: len(lab), : len(lab)] + 0.5) / len(lab)
    basis = np.stack([np.ones_like(v), v, v**2, (u - 0.5) ** 2], axis=-1)
    terms, values = basis[where], lab[where]
    weights, spread, fitted = np.ones(len(values)), np.ones(3), np.zeros((4, 3))
    for _ in range(8):
        scaled = terms * weights[:, None]
        fitted = np.linalg.solve(scaled.T @ terms + 1e-6 * np.eye(4), scaled.T @ values)
        errors = values - terms @ fitted
        spread = 1.4826 * np.median(np.abs(errors), axis=0) + 0.5
        weights = np.clip(1 - (errors[:, 0] / (4.685 * spread[0])) ** 2, 0, None) ** 2 + 1e-6
    return basis @ fitted, spread


def add_skin(texture: FaceTexture) -> FaceTexture:
    """Adds the smooth colour of the plain skin, for where a drawing would have holes.

    Args:
        texture ([`FaceTexture`]): The texture.

    Returns:
        [`FaceTexture`]: With `skin`, unless no plain skin is known.
    """
    small = resize_texture(texture, SKIN_SIDE)
    shown = cv2.erode((small.confidence > WEAK).astype(np.float32), np.ones((3, 3)))
    known = plain_skin(SKIN_SIDE, EXAMINED_MARGIN) * shown * small.confidence
    if not known.any():
        return texture
    smooth = cv2.GaussianBlur(push_pull(small.pixels, known.astype(np.float32)), (0, 0), SKIN_SIGMA)
    return replace(texture, skin=np.dstack([smooth, fillable_skin(SKIN_SIDE)]).astype(np.float32))


def push_pull(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fills unknown values smoothly from known ones, over a pyramid (Gortler et al. 1996, "The Lumigraph", 3.4).

    Args:
        values (`np.ndarray` of shape `(S, S, C)`, float32): The values.
        weights (`np.ndarray` of shape `(S, S)`, float32): 0 where they are unknown.

    Returns:
        `np.ndarray` of shape `(S, S, C)`: Known values, and smooth ones in between.
    """
    levels, total = [], np.minimum(1, 4 * weights[..., None])
    weighted = values * total
    while len(total) > 1:
        levels.append((weighted, total))
        half = (max(1, len(total) // 2),) * 2
        weighted, total = (
            cv2.resize(plane, half, interpolation=cv2.INTER_AREA).reshape(*half, -1) for plane in (weighted, total)
        )
        # Many known texels are as good as one: a weight says whether there is something, not how much.
        share = np.minimum(1, 4 * total) / np.maximum(total, 1e-8)
        weighted, total = weighted * share, total * share
    filled = weighted / np.maximum(total, 1e-8)
    for weighted, total in reversed(levels):
        filled = cv2.resize(filled, total.shape[1::-1], interpolation=cv2.INTER_LINEAR).reshape(weighted.shape)
        filled = cv2.GaussianBlur(filled, (0, 0), 1.0).reshape(weighted.shape)
        filled = weighted + (1 - total) * filled
    return filled


def balance_halves(texture: FaceTexture) -> FaceTexture:
    """Brightens what lies in the shadow on one half of the face only, up to the other half, or drops it.

    Faces are about symmetric, and so is the colour of their skin: what differs between the halves over a wide area is
    light that no distant source explains, such as the shadow of a nose, a brim or a hand.

    Args:
        texture ([`FaceTexture`]): Of one photo, shading divided out.

    Returns:
        [`FaceTexture`]: Brighter in places, and with holes where the other half is much lighter and better seen.
    """
    small = resize_texture(texture, SIDE)
    lightness = to_lab(small.pixels)[..., :1]
    weights = (small.confidence * plain_skin(SIDE, EXAMINED_MARGIN)).astype(np.float32)
    smooth = blur_known(
        np.concatenate([lightness, np.ones_like(lightness)], axis=2), weights, BALANCE_SIGMA * SIDE, 0.02
    )
    level = smooth[..., 0] / np.maximum(smooth[..., 1], 1e-3)
    sure = smooth[..., 1] * smooth[:, ::-1, 1]
    darker = np.maximum(level[:, ::-1] - level, 0) * sure
    lifted = level + darker * smoothstep(darker, *BALANCE_RANGE)
    factor = ((lifted + 16) / (level + 16)) ** 3
    factor = cv2.resize(factor.astype(np.float32), texture.confidence.shape[::-1], interpolation=cv2.INTER_CUBIC)
    confidence = _without_shadow(texture, darker)
    return replace(texture, pixels=scale_lightness(texture.pixels, factor), confidence=confidence)


def _without_shadow(texture: FaceTexture, darker: np.ndarray) -> np.ndarray:
    """Confidence (T, T) without the half of a face that lies in the dark, if the other half is seen better.

    Light of another colour fell there, if any: brightened, it would be a stain.

    Args:
        texture ([`FaceTexture`]): Of one photo.
        darker (`np.ndarray` of shape `(S, S)`): By how much a place is darker than its mirror image, in L*.
    """
    shadow = cv2.resize(smoothstep(darker, *SHADOW), texture.confidence.shape[::-1], interpolation=cv2.INTER_LINEAR)
    better = texture.confidence[:, ::-1] > texture.confidence
    confidence = texture.confidence * np.where(better, 1 - shadow, 1)
    return np.where(confidence < LEAST_CONFIDENCE, 0, confidence).astype(np.float32)


def _coordinates(size: int) -> np.ndarray:
    """Texture coordinates v and u of the texels of a square texture, (2, size, size)."""
    return (np.mgrid[:size, :size] + 0.5) / size


def _disc(radius: float) -> np.ndarray:
    side = 2 * round(radius) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))
