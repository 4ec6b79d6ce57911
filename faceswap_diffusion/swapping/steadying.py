"""Repainted crops of neighbouring frames made alike, along the motion of the mesh."""

from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.faces.surface import mesh_motion
from faceswap_diffusion.faces.texture import largest_channel, smoothstep

MEMORY = 0.08
"""Seconds after which a frame's share in what is shown has fallen to 1 / e."""

SURPRISE = (5.0, 14.0)
"""Of 255: up to, and from which difference on, a frame is shown wholly, and not at all, as the one before foretold."""

TONE_SIGMA, SURPRISE_SIGMA = 0.03, 0.012
"""As shares of the crop's side: how broad is what changes with the light, and how broad a surprise."""


@dataclass(frozen=True, eq=False)
class ShownFace:
    """A face as it was put into a frame.

    Args:
        pixels (`np.ndarray`): (F, F, 3) uint8 RGB, the new crop.
        target (`np.ndarray`): (F, F, 3) uint8 RGB, the crop before it was repainted.
        landmarks (`np.ndarray`): (478, 2), the target's mesh in its pixels.
    """

    pixels: np.ndarray
    target: np.ndarray
    landmarks: np.ndarray


def steady_pixels(
    pixels: np.ndarray, target: np.ndarray, landmarks: np.ndarray, before: ShownFace, passed: float
) -> np.ndarray:
    """Draws a crop towards what the frame before foretells: its face on this mesh, with the target's change of light.

    Where the two differ by more than flicker, as for a mouth that opens or a hand that goes away, the crop stays.

    Args:
        pixels (`np.ndarray`): (F, F, 3) float32 RGB in [0, 255], the new crop.
        target (`np.ndarray`): (F, F, 3) uint8 RGB, the crop before it was repainted.
        landmarks (`np.ndarray`): (478, 2), the target's mesh in its pixels.
        before ([`ShownFace`]): In the frame before.
        passed (`float`): Seconds since then.

    Returns:
        `np.ndarray`: (F, F, 3) float32 RGB.
    """
    size = len(pixels)
    scale = size / len(before.pixels)
    x, y, inside = mesh_motion((before.landmarks + 0.5) * scale - 0.5, landmarks, (size, size))

    def moved(picture: np.ndarray) -> np.ndarray:
        if len(picture) != size:
            picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC)
        return cv2.remap(picture, x, y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).astype(np.float32)

    change = cv2.GaussianBlur(target - moved(before.target), (0, 0), TONE_SIGMA * size)
    foretold = moved(before.pixels) + change
    difference = cv2.GaussianBlur(foretold - pixels, (0, 0), SURPRISE_SIGMA * size)
    share = np.exp(-passed / MEMORY) * inside * (1 - smoothstep(largest_channel(np.abs(difference)), *SURPRISE))
    return pixels + cv2.GaussianBlur(share.astype(np.float32), (0, 0), SURPRISE_SIGMA * size)[..., None] * (
        foretold - pixels
    )
