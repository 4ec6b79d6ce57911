"""Dark faces shown to the networks as if the photo had been exposed longer, and made dark again afterwards."""

import numpy as np

from faceswap_diffusion.masks.regions import region_mask_from_landmarks

DARK, USUAL = 64.0, 112.0
"""Of 255: a face with a median below the first is shown brighter, by and by up to the second."""

HASTE = 2.5
"""How much brighter than `DARK` a face is shown for each level that it is below."""

LUMA = np.array([0.299, 0.587, 0.114])


def exposure_gain(pixels: np.ndarray, landmarks: np.ndarray) -> float:
    """How many times longer a face should have been exposed, 1 for one that is bright enough.

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in pixels.
    """
    inside = region_mask_from_landmarks(landmarks, len(pixels)) > 0
    median = float(np.median(pixels[inside] @ LUMA)) if inside.any() else DARK
    if median >= DARK:
        return 1.0
    median, goal = max(median, 1.0) / 255, min(USUAL, DARK + HASTE * (DARK - median)) / 255
    return goal * (1 - median) / (median * (1 - goal))


def brighten(pixels: np.ndarray, gain: float) -> np.ndarray:
    """Exposes a picture longer. Black and white stay, and nothing in between is lost, so that `darken` undoes it.

    Args:
        pixels (`np.ndarray`): (..., 3) uint8 RGB.
        gain (`float`): Factor on the darkest values, at least 1.

    Returns:
        `np.ndarray`: uint8.
    """
    if gain == 1:
        return pixels
    values = pixels.astype(np.float32) / 255
    return np.round(255 * gain * values / (1 + (gain - 1) * values)).astype(np.uint8)


def darken(pixels: np.ndarray, gain: float) -> np.ndarray:
    """Undoes `brighten`: (..., 3) float32 RGB in [0, 255], as it comes out."""
    if gain == 1:
        return pixels
    values = pixels / 255
    return 255 * values / (gain - (gain - 1) * values)
