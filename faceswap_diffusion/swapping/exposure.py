"""Photos in odd light, shown to the networks as if it had been plain, and given their light again afterwards.

Dark faces are exposed longer, coloured light is made white, faded pictures get their blacks back. All of it is a line
for each channel, which is undone exactly. A picture of one tint, black and white or sepia, gets that tint again.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.masks.outlines import region_mask_from_landmarks

DARK, USUAL = 64.0, 112.0
"""Of 255: a face with a median below the first is shown brighter, by and by up to the second."""

HASTE = 2.5
"""How much brighter than `DARK` a face is shown for each level that it is below."""

BRIGHTEST = 245.0
"""Of 255: up to where the brightest parts of a face may come, so that light from one side is kept."""

SKIN_COLOURS = np.array([[0.15, 0.65], [-0.45, 0.1]])
"""Logarithms of red over green and of blue over green of faces in plain light: 86 of 87 are within."""

FADED, UNFADED = 0.48, 0.2
"""Darkest of a face and what is around it over the middle of the face: where it is above the first, the face is shown
with more contrast, by and by, as if it were the second.

It is 0.01 to 0.44 in 66 photos, above 0.41 in one, and 0.43 to 0.78 in copies that lost half of their contrast.
"""

MOST_CONTRAST = 4.0
"""Limit of the factor on what is left of the contrast of a faded face."""

TINTED = 0.022
"""Deviation of colours from one tint, relative to the face's brightness, up to which a picture has only that.

It is 0.029 to 0.069 in photos, 0 to 0.016 in sepia and faded ones.
"""

TINT_SIGMA = 6.0
"""Levels over which a tint is smooth."""


@dataclass(frozen=True, eq=False)
class Exposure:
    """How a face is shown to the networks.

    Args:
        black (`np.ndarray`): (3,) float32, the RGB levels that are shown as 0.
        gain (`np.ndarray`): (3,) float32, how much brighter than the photo what is above is shown.
        tint (`np.ndarray`, *optional*): (256, 3) float32, by what red, green and blue of a picture of one tint differ
            from each level of grey; `None` for a picture of many colours.
    """

    black: np.ndarray
    gain: np.ndarray
    tint: np.ndarray | None = None


AS_IT_IS = Exposure(np.zeros(3, np.float32), np.ones(3, np.float32))


def measure_exposure(pixels: np.ndarray, landmarks: np.ndarray) -> Exposure:
    """Measures how to show a face.

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in pixels.
    """
    face = pixels[region_mask_from_landmarks(landmarks, len(pixels)) > 0]
    if not len(face):
        return AS_IT_IS
    black, gain = _unfaded(pixels, face)
    plain = np.clip((face - black) * gain, 0, 255)
    gain = gain * _white_light(plain)
    plain = np.clip((face - black) * gain, 0, 255)
    gain = gain * exposure_gain(_grey(plain))
    return Exposure(black.astype(np.float32), gain.astype(np.float32), _tint(face))


def exposure_gain(grey: np.ndarray) -> float:
    """How many times longer a face should have been exposed, 1 for one that is bright enough.

    Args:
        grey (`np.ndarray`): (N,) in [0, 255], its brightness.
    """
    median, bright = np.maximum(np.percentile(grey, (50, 98)), 1)
    if median >= DARK:
        return 1.0
    goal = min(USUAL, DARK + HASTE * (DARK - median))
    return float(max(1, min(goal / median, BRIGHTEST / bright)))


def _unfaded(pixels: np.ndarray, face: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Levels (3,) to be black and gains (3,) that give a faded crop (S, S, 3) the contrast of a face (N, 3)."""
    dark = np.minimum(*(np.percentile(part, 1, axis=0) for part in (pixels.reshape(-1, 3), face)))
    median, bright = np.maximum(np.percentile(face, (50, 99), axis=0), 1)
    share = (dark / median).mean()
    if share <= FADED:
        return np.zeros(3), np.ones(3)
    goal = max(UNFADED, FADED - HASTE * (share - FADED))
    black = np.clip((dark - goal * median) / (1 - goal), 0, (1 - 1 / MOST_CONTRAST) * median)
    return black, np.minimum(median / (median - black), BRIGHTEST / (bright - black))


def _white_light(face: np.ndarray) -> np.ndarray:
    """Gains (3,) that bring a face (N, 3) in coloured light to the nearest colour of skin, and leave it as bright."""
    median = np.maximum(np.median(face, axis=0), 1)
    colour = np.log(median[[0, 2]] / median[1])
    nearest = np.clip(colour, *SKIN_COLOURS.T)
    gain = np.exp([nearest[0] - colour[0], 0, nearest[1] - colour[1]])
    return gain * _grey(median[None]) / _grey((median * gain)[None])


def _tint(face: np.ndarray) -> np.ndarray | None:
    """The tint (256, 3) of a face (N, 3) uint8, see [`Exposure`]; `None` if it has several colours."""
    grey = cv2.cvtColor(face[None], cv2.COLOR_RGB2GRAY)[0]
    differences = face - grey[:, None].astype(np.float64)
    sums = np.stack([np.bincount(grey, channel, 256) for channel in (*differences.T, np.ones(len(face)))], axis=1)
    around = np.exp(-0.5 * (np.subtract.outer(np.arange(256), np.arange(256)) / TINT_SIGMA) ** 2) + 1e-12
    sums = around @ sums
    tint = sums[:, :3] / sums[:, 3:]
    deviation = np.sqrt(np.mean((differences - tint[grey]) ** 2))
    return tint.astype(np.float32) if deviation <= TINTED * max(np.median(grey), 1) else None


def _grey(pixels: np.ndarray) -> np.ndarray:
    """Brightness (N,) of pixels (N, 3)."""
    return cv2.cvtColor(pixels[None].astype(np.float32), cv2.COLOR_RGB2GRAY)[0]


def brighten(pixels: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Shows a picture as an exposure says: (..., 3) uint8 RGB, as it comes out; what is too bright becomes white."""
    if (exposure.gain == 1).all() and not exposure.black.any():
        return pixels
    return np.round(np.clip((pixels - exposure.black) * exposure.gain, 0, 255)).astype(np.uint8)


def darken(pixels: np.ndarray, exposure: Exposure) -> np.ndarray:
    """Undoes `brighten`, and gives a picture (H, W, 3) float32 RGB in [0, 255] the tint, as it comes out."""
    pixels = pixels / exposure.gain + exposure.black
    if exposure.tint is None:
        return pixels
    grey = np.clip(cv2.cvtColor(pixels.astype(np.float32), cv2.COLOR_RGB2GRAY), 0, 255)
    levels = np.arange(256)
    return grey[..., None] + np.stack([np.interp(grey, levels, part) for part in exposure.tint.T], axis=-1)
