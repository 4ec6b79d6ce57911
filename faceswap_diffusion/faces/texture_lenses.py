"""The tint of glasses on a face's texture: of what is seen through lenses when their frames are taken off."""

from dataclasses import replace
from functools import lru_cache

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import EYES_478
from faceswap_diffusion.faces.texture import FaceTexture, blur_known, resize_texture, to_lab, to_rgb
from faceswap_diffusion.faces.texture_cleaning import fit_skin
from faceswap_diffusion.faces.texture_light import excess
from faceswap_diffusion.faces.texture_regions import (
    FILLED_MARGIN,
    SIDE,
    WEAK,
    disc,
    even_skin,
    filled,
    plain_skin,
)

LENS = 0.11
"""Share of the texture's side: how far around an eye a lens reaches."""

TINT_SIGMA, EDGE_SIGMA = 0.03, 0.02
"""Shares of the texture's side: standard deviations of the blur that leaves a tint, and of the edge of its removal."""

DARKER_RANGE = (4.0, 7.0)
"""How much darker than the other skin, in L*, that around an eye may be, and how much it stays at most: lenses make
it darker, but so do eye sockets."""

TINT_RANGE = (2.0, 4.0)
"""The same for differences in a* and b*."""


def clear_lenses(texture: FaceTexture) -> FaceTexture:
    """Takes the tint of lenses off a texture whose photo shows glasses.

    What a lens absorbs is a share of the light, the same for skin, brows and eyes, so that lightness is scaled as in
    [`texture.scale_lightness`]. The share is read from the skin around the eyes, by what forehead, temples and cheeks
    lead to expect there.

    Args:
        texture ([`FaceTexture`]): Of one photo.

    Returns:
        [`FaceTexture`]: With skin around the eyes that is nearly as light and of nearly the same hue as the rest.
    """
    small = resize_texture(texture, SIDE)
    skin, lenses, shown = to_lab(small.pixels), lens_area(SIDE), small.confidence > WEAK
    bare = even_skin(SIDE) & shown & ~lenses
    behind = plain_skin(SIDE, FILLED_MARGIN) & shown & lenses
    if bare.sum() < SIDE or not behind.any():
        return texture
    expected, _ = fit_skin(skin, bare)
    tint = blur_known(skin - expected, behind * small.confidence, TINT_SIGMA * SIDE, doubt=0.01)
    darker = np.minimum(excess(tint[..., :1], DARKER_RANGE), 0)
    level = cv2.resize(expected[..., 0].astype(np.float32), tint.shape[1::-1])[..., None] + tint[..., :1] + 16
    change = np.concatenate([(level - darker) / level, -excess(tint[..., 1:], TINT_RANGE)], axis=2)
    size = texture.confidence.shape[::-1]
    change = cv2.resize(change.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    share = cv2.GaussianBlur(lenses.astype(np.float32), (0, 0), EDGE_SIGMA * SIDE)
    share = cv2.resize(share, size, interpolation=cv2.INTER_LINEAR)
    lab = to_lab(texture.pixels)
    lab[..., 0] = (lab[..., 0] + 16) * (1 + share * (change[..., 0] - 1)) - 16
    lab[..., 1:] += share[..., None] * change[..., 1:]
    return replace(texture, pixels=to_rgb(lab))


@lru_cache(maxsize=2)
def lens_area(size: int) -> np.ndarray:
    """What lenses may lie over, (size, size) bool."""
    eyes = np.maximum.reduce([filled(outline, size) for outline in EYES_478])
    return cv2.dilate(eyes, disc(LENS * size)) > 0
