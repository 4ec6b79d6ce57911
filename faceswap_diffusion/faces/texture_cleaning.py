"""Texels that are not the face: strands, edges of hair and hats, shadows of frames; and what is drawn there."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import BROWS_478, EYES_478
from faceswap_diffusion.faces.texture import (
    FaceTexture,
    fill_by_mirror,
    largest_channel,
    lowered_confidence,
    resize_texture,
    resized_plane,
    smoothstep,
    to_lab,
)
from faceswap_diffusion.faces.texture_folds import find_folds
from faceswap_diffusion.faces.texture_light import balance_halves, limit_stains
from faceswap_diffusion.faces.texture_regions import (
    BROW_MARGIN,
    EXAMINED_MARGIN,
    SIDE,
    WEAK,
    coordinates,
    disc,
    even_skin,
    fillable_skin,
    filled,
    plain_skin,
)

DARKER, CHROMA = 7.0, 12.0
"""Differences from the skin around in L*, and in a* and b*, from which on a texel is not skin."""

SPREADS, DARKEST_SKIN = 3.0, 16.0
"""The same in robust standard deviations of the skin, where that is more; in L*, at most the second."""

STIFFNESS = 0.02
"""Ridge on the slopes and curvatures of the fit, relative to the number of texels: cheeks alone say little about the
forehead."""

MOLE = 0.03
"""Share of the texture's side, about 5 mm: dark spots up to this length are the person's own."""

FEATURE_REACH, FEATURE_SHARE = (0.09, 0.055), 0.7
"""Shares of the texture's side to both sides of brows and eyes, and above and below: a dark piece of which more than
the second lies there is brow, lashes or a fold at the corner of an eye. Many people's are wider than the mesh's."""

STRAND = (5.0, 17.0)
"""How much darker in L* than the skin on both its sides a strand of hair is, and a part of it at least. Wrinkles are
less dark."""

DARKEST = 0.05
"""Share of a strand that is as dark as the second of these."""

STRAND_WIDTH = 0.03
"""Share of the texture's side: what is wider is no strand."""

FRINGE = (1.6, 1.15)
"""Mean changes of L* from texel to texel, across lines that run upwards and relative to those along them, from which
on the lines are hair. Wrinkles of a forehead run across it."""

FRINGE_SIGMA = 0.02
"""Share of the texture's side over which these means are taken."""

STEEPEST = 4.0
"""Largest change that counts: a single dark strand is no fringe."""

FROWN = (0.18, 0.08)
"""Below the first texture coordinate v, and closer to the middle than the second, such lines are a frown."""

BROW_LEVEL, SIDES = 0.27, 0.3
"""Strands are looked for above the first texture coordinate v, where no frown is, and at more than the second from the
middle, where no crow's foot is."""

MARGIN = 0.02
"""Share of the texture's side by which what is not skin is widened."""

GAP, ISLAND = 0.06, 0.01
"""Shares of the texture's side and area: narrower gaps between such pieces, and smaller islands, are covered too."""

AROUND_BROW, BROW_COVERED = 0.03, 0.5
"""Width of the skin around a brow, as a share of the texture's side, of which this share is covered if the brow is."""

EDGE, CRACK = 0.05, 0.02
"""Shares of the texture's side over which it passes into smooth skin at a hole, and of holes too narrow for that."""

SHADED = (0.03, 0.06)
"""Distances from a hole, in the same unit, from which on a texel counts for the colour of smooth skin, and counts in
full."""

LAST_RESORT = 0.01
"""What texels closer to a hole count, for where there are no others."""

MIDDLE = 0.35
"""Texture coordinate v about which the fit's polynomial is written: that of even skin is around it."""

SKIN_SIDE = 64
"""Side in texels of the smooth skin that holes are filled with."""

SKIN_SIGMA = 1.5
"""Standard deviation, in its texels, of the blur that makes it smooth."""


def clean_texture(texture: FaceTexture) -> FaceTexture:
    """Takes off a photo's texture what is not the face: see `drop_foreign`, `balance_halves` and `limit_stains`."""
    return limit_stains(balance_halves(drop_foreign(texture)))


def complete_texture(texture: FaceTexture) -> FaceTexture:
    """Fills a texture's holes, as far as that can be done, and says what of it are folds.

    See `fill_by_mirror`, `add_skin`, `soften_edges` and `texture_folds.find_folds`.
    """
    return find_folds(soften_edges(add_skin(fill_by_mirror(texture))))


def drop_foreign(texture: FaceTexture) -> FaceTexture:
    """Makes holes where skin is covered: by strands and edges of hair, brims, frames and what is behind the face.

    Skin of forehead, temples and cheeks is even. What is much darker, or of another colour, than a smooth symmetric
    function of the place (a polynomial of second order, fitted robustly) is not skin. Spots of the size of moles are.
    Single strands are found by their lines, see `find_strands`, and those of a fringe by their direction, see
    `find_fringe`.

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
    darker = (expected - lab)[..., 0] / np.clip(SPREADS * spread[0], DARKER, DARKEST_SKIN)
    stained = np.abs(lab - expected)[..., 1:] / np.maximum(CHROMA, SPREADS * spread[1:])
    foreign = smoothstep(np.maximum(darker, largest_channel(stained)), 0.8, 1.1)
    lines = np.maximum(find_strands(sharp[..., 0]), find_fringe(sharp[..., 0], small.confidence > WEAK))
    foreign = np.maximum(foreign, lines) * known
    foreign = _without_own(foreign.astype(np.float32))
    brows = covered_brows(np.maximum(foreign, small.confidence == 0))
    foreign = cv2.dilate(foreign, disc(MARGIN * SIDE))
    foreign = np.maximum(_with_gaps(foreign, small.confidence > 0) * even_skin(SIDE), brows)
    foreign = resized_plane(foreign, len(texture.confidence))
    return replace(texture, confidence=lowered_confidence(texture, 1 - foreign))


def unlike_skin(pixels: np.ndarray, skin: np.ndarray) -> np.ndarray:
    """Finds what is taken for skin but has another hue than most of it: edges of caps, scarves and backgrounds.

    Args:
        pixels (`np.ndarray` of shape `(H, W, 3)`): RGB in [0, 255].
        skin (`np.ndarray` of shape `(H, W)`, float): 1 where skin is assumed.

    Returns:
        `np.ndarray` of shape `(H, W)`, float32: 1 where it is something else, and close to that.
    """
    where = skin > 0.5
    if not where.any():
        return np.zeros(skin.shape, np.float32)
    hue = cv2.GaussianBlur(to_lab(pixels), (0, 0), 1.2)[..., 1:]
    difference = np.abs(hue - np.median(hue[where], axis=0))
    spread = 1.4826 * np.median(difference[where], axis=0)
    other = where & (largest_channel(difference / np.maximum(CHROMA, SPREADS * spread)) > 1)
    return cv2.dilate(other.astype(np.float32), disc(MARGIN * len(skin)))


def find_strands(lightness: np.ndarray) -> np.ndarray:
    """Finds dark lines on forehead and temples by a black top-hat (Serra 1982, "Image Analysis").

    Args:
        lightness (`np.ndarray` of shape `(S, S)`, float32): L* of a texture.

    Returns:
        `np.ndarray` of shape `(S, S)`, float32: 1 on strands.
    """
    size = len(lightness)
    v, u = coordinates(size)
    closed = cv2.morphologyEx(lightness, cv2.MORPH_CLOSE, disc(STRAND_WIDTH / 2 * size))
    darker = (closed - lightness) * ((v < BROW_LEVEL) | (np.abs(u - 0.5) > SIDES))
    _, pieces = cv2.connectedComponents((darker > STRAND[0]).astype(np.uint8))
    dark_share = np.bincount(pieces.ravel(), (darker > STRAND[1]).ravel()) / np.bincount(pieces.ravel())
    dark_share[0] = 0
    return (dark_share > DARKEST).astype(np.float32)[pieces]


def find_fringe(lightness: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Finds hair on the forehead that is as light as the skin, by lines that all run upwards.

    Args:
        lightness (`np.ndarray` of shape `(S, S)`, float32): L* of a texture.
        known (`np.ndarray` of shape `(S, S)`, bool): What the photo shows.

    Returns:
        `np.ndarray` of shape `(S, S)`, float32: 1 on hair.
    """
    size = len(lightness)
    v, u = coordinates(size)
    frown = (v > FROWN[0]) & (np.abs(u - 0.5) < FROWN[1])
    forehead = (plain_skin(size, EXAMINED_MARGIN) & known & (v < BROW_LEVEL) & ~frown).astype(np.float32)
    weight = cv2.GaussianBlur(forehead, (0, 0), FRINGE_SIGMA * size) + 1e-3
    changes = (np.abs(cv2.Sobel(lightness, cv2.CV_32F, *order)) / 8 for order in ((1, 0), (0, 1)))
    across, along = (
        cv2.GaussianBlur(np.minimum(change, STEEPEST) * forehead, (0, 0), FRINGE_SIGMA * size) / weight
        for change in changes
    )
    return forehead * (across > np.maximum(FRINGE[0], FRINGE[1] * along))


def covered_brows(foreign: np.ndarray) -> np.ndarray:
    """Brows that a fringe, a brim or a frame lies on, judged by the skin around them.

    Args:
        foreign (`np.ndarray` of shape `(S, S)`, float32): In [0, 1], skin that is covered.

    Returns:
        `np.ndarray` of shape `(S, S)`, float32: 1 on such brows and close to them.
    """
    size, examined = len(foreign), even_skin(len(foreign))
    covered = np.zeros((size, size), np.float32)
    for outline in BROWS_478:
        around = (cv2.dilate(filled(outline, size), disc(AROUND_BROW * size)) > 0) & examined
        if foreign[around].mean() > BROW_COVERED:
            covered = np.maximum(covered, _brow(outline, size))
    return covered


def without_brows(texture: FaceTexture, hidden: Sequence[bool]) -> FaceTexture:
    """Makes holes of brows, each of which is hidden or not."""
    size = len(texture.confidence)
    brows = [_brow(outline, size) for outline, is_hidden in zip(BROWS_478, hidden, strict=True) if is_hidden]
    return replace(texture, confidence=lowered_confidence(texture, 1 - np.maximum.reduce(brows)))


def _brow(outline: Sequence[int], size: int) -> np.ndarray:
    """A brow and what is close to it, (size, size) float32, 0 or 1."""
    return cv2.dilate(filled(outline, size), disc(BROW_MARGIN * size))


def _without_own(foreign: np.ndarray) -> np.ndarray:
    """Takes pieces out of a map (S, S) float32 that are the person's own: moles, and hair around brows and eyes.

    See `MOLE` and `FEATURE_REACH`.
    """
    _, pieces, boxes, _ = cv2.connectedComponentsWithStats((foreign > 0).astype(np.uint8))
    pieces = np.asarray(pieces, np.intp)
    lengths = boxes[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].max(axis=1)
    inside = np.bincount(pieces.ravel(), around_features(len(foreign)).ravel()) / boxes[:, cv2.CC_STAT_AREA]
    return foreign * ((lengths > MOLE * len(foreign)) & (inside < FEATURE_SHARE))[pieces]


@lru_cache(maxsize=1)
def around_features(size: int) -> np.ndarray:
    """Brows, eyes and what is close to them, (size, size) float32, 0 or 1."""
    features = np.maximum.reduce([filled(outline, size) for outline in (*BROWS_478, *EYES_478)])
    width, height = (2 * round(reach * size) + 1 for reach in FEATURE_REACH)
    return cv2.dilate(features, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, height)))


def _with_gaps(foreign: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Adds to a map (S, S) float32 the forehead between strands, and between strands and hair, which is in shadow.

    Args:
        foreign (`np.ndarray`): In [0, 1], what is not skin.
        known (`np.ndarray`): (S, S) bool, what the photo shows.
    """
    size = len(foreign)
    forehead = plain_skin(size, EXAMINED_MARGIN) & (coordinates(size)[0] < BROW_LEVEL)
    hidden = np.where(forehead & ~known, 1, foreign).astype(np.float32)
    closed = cv2.morphologyEx(hidden, cv2.MORPH_CLOSE, disc(GAP / 2 * size))
    _, pieces, stats, _ = cv2.connectedComponentsWithStats((forehead & (closed < 0.5)).astype(np.uint8))
    small = stats[:, cv2.CC_STAT_AREA] < ISLAND * size**2
    return np.where(forehead, np.where(small[np.asarray(pieces, np.intp)] & (closed < 0.5), 1, closed), foreign)


def fit_skin(lab: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fits the colour of even skin by iteratively reweighted least squares (Beaton and Tukey 1974).

    It begins with the median, so that a brim over the forehead does not pass for a slope of the skin.

    Args:
        lab (`np.ndarray` of shape `(S, S, 3)`): CIELAB.
        where (`np.ndarray` of shape `(S, S)`, bool): Which texels are fitted.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The fit (S, S, 3), and robust standard deviations (3,) about it.
    """
    v, u = coordinates(len(lab))
    basis = np.stack([np.ones_like(v), v - MIDDLE, (v - MIDDLE) ** 2, (u - 0.5) ** 2], axis=-1)
    terms, values = basis[where], lab[where]
    ridge = STIFFNESS * len(values) * np.diag([0, 1, 0.25, 0.25])
    fitted = np.concatenate([np.median(values, axis=0, keepdims=True), np.zeros((3, 3))])
    for _ in range(9):
        errors = values - terms @ fitted
        weights = np.clip(1 - (errors[:, 0] / (4.685 * robust_spread(errors)[0])) ** 2, 0, None) ** 2 + 1e-6
        scaled = terms * weights[:, None]
        fitted = np.linalg.solve(scaled.T @ terms + ridge, scaled.T @ values)
    return basis @ fitted, robust_spread(values - terms @ fitted)


def robust_spread(errors: np.ndarray) -> np.ndarray:
    """Standard deviations (C,) of errors (N, C), by their median absolute value."""
    return 1.4826 * np.median(np.abs(errors), axis=0) + 0.5


def soften_edges(texture: FaceTexture) -> FaceTexture:
    """Lets skin pass into the smooth skin that a drawing has instead of holes, towards the edges of these.

    What ends a texture, such as hair, also shades the skin beside it: a sharp edge would be a dark line.

    Args:
        texture ([`FaceTexture`]): The texture, with `skin` if there is any.

    Returns:
        [`FaceTexture`]: With other colours over `EDGE` from holes wider than `CRACK`.
    """
    if texture.skin is None:
        return texture
    size = len(texture.confidence)
    inside = smoothstep(distance_to_holes(resize_texture(texture, SIDE)), 0, EDGE)
    share = resized_plane(fillable_skin(SIDE) * (1 - inside), size)
    skin = resized_plane(texture.skin[..., :3], size)
    return replace(texture, pixels=texture.pixels + share[..., None] * (skin - texture.pixels))


def distance_to_holes(texture: FaceTexture) -> np.ndarray:
    """Distances (T, T) float32 from holes that are wider than `CRACK`, as shares of the texture's side."""
    size = len(texture.confidence)
    holes = ((texture.confidence == 0) & plain_skin(size, 0)).astype(np.uint8)
    holes = cv2.morphologyEx(holes, cv2.MORPH_OPEN, disc(CRACK / 2 * size))
    return cv2.distanceTransform(1 - holes, cv2.DIST_L2, 5) / size


def add_skin(texture: FaceTexture) -> FaceTexture:
    """Adds the smooth colour of the plain skin, for where a drawing would have holes.

    Args:
        texture ([`FaceTexture`]): The texture.

    Returns:
        [`FaceTexture`]: With `skin`, unless no plain skin is known.
    """
    examined = resize_texture(texture, SIDE)
    distance = cv2.resize(distance_to_holes(examined), (SKIN_SIDE, SKIN_SIDE), interpolation=cv2.INTER_AREA)
    small = resize_texture(examined, SKIN_SIDE)
    shown = cv2.erode((small.confidence > WEAK).astype(np.float32), np.ones((3, 3)))
    lit = np.maximum(smoothstep(distance, *SHADED), LAST_RESORT)
    known = plain_skin(SKIN_SIDE, EXAMINED_MARGIN) * shown * small.confidence * lit
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
