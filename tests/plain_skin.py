"""Textures of plain skin, to put things and light on."""

import numpy as np

from faceswap_diffusion.faces.surface import NOTHING
from faceswap_diffusion.faces.texture import FaceTexture, texture_raster

SIDE = 256
SKIN = np.array([205.0, 160, 135])  # L* 70
HAIR = np.array([60.0, 45, 40])  # L* 20


def skin_texture() -> FaceTexture:
    pixels = np.broadcast_to(SKIN, (SIDE, SIDE, 3)).astype(np.float32).copy()
    known = (texture_raster(SIDE).seen != NOTHING).astype(np.float32)
    return FaceTexture(pixels, known, 1.0, np.array([0.3, 0.3]), 0.0)
