"""Uneven and coloured light on a face's texture, which its photo's shading does not explain."""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from faceswap_diffusion.faces.texture import (
    HAIRY,
    FaceTexture,
    blur_known,
    lowered_confidence,
    resize_texture,
    resized_plane,
    smoothstep,
    to_lab,
    to_rgb,
)
from faceswap_diffusion.faces.texture_regions import EXAMINED_MARGIN, FILLED_MARGIN, SIDE, WEAK, plain_skin


@dataclass(frozen=True)
class Balance:
    """How the halves of a face are compared and made alike; lengths are shares of the texture's side.

    Args:
        sigma (`float`): Standard deviation of the blur that leaves light and removes features.
        margin (`float`): What is not compared around eyes and lips.
        lifted (`tuple[float, float]`): Differences in L* that are left, and that are evened out in full.
        dropped (`tuple[float, float]`): The same, from which on the darker half is given up for the other, if that is
            seen better.
    """

    sigma: float
    margin: float
    lifted: tuple[float, float]
    dropped: tuple[float, float]


BALANCES = (
    Balance(0.05, EXAMINED_MARGIN, (5.0, 12.0), (10.0, 16.0)),
    Balance(0.02, 0.006, (9.0, 16.0), (12.0, 18.0)),
)
"""For the light on a half of the face, and for shadows of nose, lips and brows."""

STRONGEST = 2 ** (1 / 3)
"""Limit of the factor on the cube root of the light, which L* + 16 is proportional to: light is doubled at most."""

DETAIL_SIGMA, LIT = 0.008, 3.0
"""Share of the texture's side: what is narrower is of the skin, as pores are; and how much lighter in L* than the
other half a part of a dark half gets at most. Light that passes the nose falls on a part of a cheek in shadow."""

CHROMA_RANGE = (4.0, 7.0)
"""Differences of skin from its median, in a* and b*, that are left as they are, and that stay the largest."""

SHINE_RANGE = (8.0, 14.0)
"""The same for skin that is lighter than its median, in L*."""

EVENLY_LIT = (25, 95)
"""Percentiles of the skin's L* between which it is neither in shadow nor shining."""

STAIN_SIGMA, EDGE_SIGMA = 0.02, 0.008
"""Shares of the texture's side: what is narrower is no stain, but moles and pores; and softness of the edge at eyes,
brows and lips, whose colours stay."""


def balance_halves(texture: FaceTexture) -> FaceTexture:
    """Brightens what lies in the shadow on one half of the face only, up to the other half, or drops it.

    Faces are about symmetric, and so is the colour of their skin: what differs between the halves over a wide area is
    light that no distant source explains, such as the shadow of a nose, a brim or a hand. It is looked for by each of
    `BALANCES`.

    Args:
        texture ([`FaceTexture`]): Of one photo, shading divided out.

    Returns:
        [`FaceTexture`]: Brighter in places, and with holes where the other half is much lighter and better seen.
    """
    small, lab, size = resize_texture(texture, SIDE), to_lab(texture.pixels), len(texture.confidence)
    shadow = np.zeros((SIDE, SIDE), np.float32)
    for balance in BALANCES:
        brighter, dark = _light_of_halves(small, balance)
        pixels = to_rgb(_brightened(to_lab(small.pixels), brighter))
        small = replace(small, pixels=pixels, confidence=_without_shadow(small, dark))
        lab = _brightened(lab, resized_plane(brighter, size, cv2.INTER_CUBIC))
        shadow = np.maximum(shadow, dark)
    confidence = _without_shadow(texture, resized_plane(shadow, size))
    return replace(texture, pixels=to_rgb(lab), confidence=confidence)


def _brightened(lab: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """CIELAB pixels (S, S, 3) with the cube root of their linear light times a factor (S, S).

    a* and b* stay: light that skin reflects into its shadows makes these redder than a weaker light would.
    """
    return np.dstack([(lab[..., 0] + 16) * factor - 16, lab[..., 1:]])


def _light_of_halves(small: FaceTexture, balance: Balance) -> tuple[np.ndarray, np.ndarray]:
    """Factors on the cube root of a texture's light (S, S), and what share of it to give up for its mirror image."""
    lightness = to_lab(small.pixels)[..., :1]
    weights = (small.confidence * plain_skin(SIDE, balance.margin)).astype(np.float32)
    smooth = blur_known(
        np.concatenate([lightness, np.ones_like(lightness)], axis=2), weights, balance.sigma * SIDE, 0.02
    )
    level = smooth[..., 0] / np.maximum(smooth[..., 1], 1e-3)
    sure = smooth[..., 1] * smooth[:, ::-1, 1]
    darker = np.maximum(level[:, ::-1] - level, 0) * sure
    lifted = level + darker * smoothstep(darker, *balance.lifted)
    level, lifted = (resized_plane(plane, SIDE, cv2.INTER_CUBIC) + 16 for plane in (level, lifted))
    lit = cv2.GaussianBlur(lightness, (0, 0), DETAIL_SIGMA * SIDE) + 16
    factor = np.clip(np.minimum(lifted / level, (lifted + LIT) / lit), 1, STRONGEST)
    return factor, resized_plane(smoothstep(darker, *balance.dropped), SIDE)


def _without_shadow(texture: FaceTexture, shadow: np.ndarray) -> np.ndarray:
    """Confidence (T, T) without what lies in shadow (T, T), if its mirror image is seen better.

    Light of another colour fell there, if any: brightened, it would be a stain.
    """
    better = texture.confidence[:, ::-1] > texture.confidence
    return lowered_confidence(texture, np.where(better, 1 - shadow, 1))


def limit_stains(texture: FaceTexture) -> FaceTexture:
    """Limits how much skin differs in colour from the rest of the skin, and how much lighter than it a part is.

    Noses and cheeks are a little redder. What differs more is lit by something coloured, by the sky or through a brim,
    and what is much lighter shines: in the light of another photo both would be stains. Pores and moles, which are
    smaller, stay, and so do beards.

    Args:
        texture ([`FaceTexture`]): Of one photo.

    Returns:
        [`FaceTexture`]: With plain skin near its median in a*, b* and, upwards, L*: see `CHROMA_RANGE` and
        `SHINE_RANGE`.
    """
    small = resize_texture(texture, SIDE)
    lab, known = to_lab(small.pixels), plain_skin(SIDE, EXAMINED_MARGIN) & (small.confidence > WEAK)
    if known.sum() < SIDE:
        return texture
    low, lightness, high = np.percentile(lab[known][:, 0], (EVENLY_LIT[0], 50, EVENLY_LIT[1]))
    evenly_lit = known & (lab[..., 0] >= low) & (lab[..., 0] <= high)
    usual = np.array([lightness, *np.median(lab[evenly_lit][:, 1:], axis=0)], np.float32)
    skin = plain_skin(SIDE, FILLED_MARGIN).astype(np.float32)
    weights = skin * smoothstep(lab[..., 0] / lightness, *HAIRY) * small.confidence
    smooth = blur_known(lab - usual, weights, STAIN_SIGMA * SIDE, doubt=0.01)
    surplus = np.concatenate(
        [np.maximum(excess(smooth[..., :1], SHINE_RANGE), 0), excess(smooth[..., 1:], CHROMA_RANGE)], axis=2
    )
    size = len(texture.confidence)
    surplus = resized_plane(surplus, size, cv2.INTER_CUBIC)
    changed = to_lab(texture.pixels)
    share = resized_plane(cv2.GaussianBlur(skin, (0, 0), EDGE_SIGMA * SIDE), size)
    share = share * smoothstep(changed[..., 0] / lightness, *HAIRY)
    return replace(texture, pixels=to_rgb(changed - share[..., None] * surplus))


def excess(difference: np.ndarray, limits: tuple[float, float]) -> np.ndarray:
    """What to take off differences, so that they stay up to the first limit, and stay below the second."""
    kept, largest = limits
    beyond = np.maximum(np.abs(difference) - kept, 0)
    return np.sign(difference) * (beyond - (largest - kept) * np.tanh(beyond / (largest - kept)))
