"""Dark faces shown to the networks as if the photo had been exposed longer, and made dark again afterwards."""

import cv2
import numpy as np

from faceswap_diffusion.masks.outlines import region_mask_from_landmarks

DARK, USUAL = 64.0, 112.0
"""Of 255: a face with a median below the first is shown brighter, by and by up to the second."""

HASTE = 2.5
"""How much brighter than `DARK` a face is shown for each level that it is below."""

BRIGHTEST = 245.0
"""Of 255: up to where the brightest parts of a face may come, so that light from one side is kept."""


def exposure_gain(pixels: np.ndarray, landmarks: np.ndarray) -> float:
    """How many times longer a face should have been exposed, 1 for one that is bright enough.

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in pixels.
    """
    face = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[region_mask_from_landmarks(landmarks, len(pixels)) > 0]
    median, bright = np.maximum(np.percentile(face, (50, 98)), 1)
    if median >= DARK:
        return 1.0
    goal = min(USUAL, DARK + HASTE * (DARK - median))
    return float(max(1, min(goal / median, BRIGHTEST / bright)))


def brighten(pixels: np.ndarray, gain: float) -> np.ndarray:
    """Exposes a picture `gain` times longer: (..., 3) uint8 RGB, as it comes out; what is too bright becomes white."""
    if gain == 1:
        return pixels
    return np.round(np.clip(gain * pixels.astype(np.float32), 0, 255)).astype(np.uint8)


def darken(pixels: np.ndarray, gain: float) -> np.ndarray:
    """Undoes `brighten`: (..., 3) float32 RGB in [0, 255], as it comes out."""
    return pixels if gain == 1 else pixels / np.float32(gain)
