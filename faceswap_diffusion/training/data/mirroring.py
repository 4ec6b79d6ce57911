"""Measurements of mirrored pictures."""

import numpy as np
import torch

from faceswap_diffusion.faces.landmarks import BLENDSHAPE_NAMES

MIRRORED_DLIB68 = np.array(
    [
        *range(16, -1, -1),  # jaw
        *range(26, 16, -1),  # brows
        *range(27, 31),  # bridge of the nose
        *range(35, 30, -1),  # its lower edge
        *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),  # eyes
        *(*range(54, 47, -1), *range(59, 54, -1)),  # outer lips
        *(*range(64, 59, -1), 67, 66, 65),  # inner lips
    ]
)
"""Where each of dlib's 68 points is found in the mirrored picture."""


def mirrored_landmarks68(landmarks: torch.Tensor, size: int) -> torch.Tensor:
    """Landmarks (68, 2), x and y in pixels of a picture `size` wide, as its mirror image has them."""
    return landmarks[MIRRORED_DLIB68] * landmarks.new_tensor([-1, 1]) + landmarks.new_tensor([size - 1, 0])


def mirrored_blendshapes() -> list[int]:
    """Where each blendshape is found in the mirrored picture: left and right change places."""
    swapped = [name.replace("Left", "?").replace("Right", "Left").replace("?", "Right") for name in BLENDSHAPE_NAMES]
    return [BLENDSHAPE_NAMES.index(name) for name in swapped]
