"""What the small image encoder predicts for a face: pose, expression and light, and nothing about identity."""

import cv2
import numpy as np
import torch

from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.mirroring import mirrored_blendshapes

NUM_LABELS = 3 + 52 + 15
"""Head pose, blendshapes, light."""

LIGHT_POINTS = (151, 50, 280, 4, 199)
"""Mesh points where the light is read: forehead, cheeks (left and right in the picture), nose tip, chin."""

LIGHT_MIRRORED = [0, 2, 1, 3, 4]
"""Where each of them is found in the mirrored picture: the cheeks change places."""


def light_samples(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Mean colour of a small patch around each of `LIGHT_POINTS`.

    Args:
        image (`np.ndarray`): (S, S, 3) uint8 RGB crop.
        landmarks (`np.ndarray`): (478, 2), x and y in pixels.

    Returns:
        `np.ndarray`: (5, 3) float32, RGB in [-1, 1].
    """
    radius = max(1, image.shape[0] // 25)
    blurred = cv2.blur(image, (2 * radius + 1, 2 * radius + 1))
    x, y = np.clip(np.round(landmarks[list(LIGHT_POINTS)]).astype(int), 0, image.shape[0] - 1).T
    return blurred[y, x].astype(np.float32) / 127.5 - 1


def labels_and_mirrored(faces: PreparedFaces) -> tuple[torch.Tensor, torch.Tensor]:
    """Labels of faces and of their mirror images.

    Args:
        faces (`PreparedFaces`): All of them are decoded once.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: (N, 70) each: head pose in degrees, blendshapes, light.
    """
    records = (faces[row] for row in range(len(faces)))
    lights = [light_samples(record.pixels.permute(1, 2, 0).numpy(), record.landmarks) for record in records]
    head_pose, blendshapes = (torch.from_numpy(faces.column(name)) for name in ("head_pose", "blendshapes"))
    light = torch.from_numpy(np.stack(lights))
    straight = [head_pose, blendshapes, light.flatten(1)]
    mirrored = [
        head_pose * torch.tensor([-1.0, 1.0, -1.0]),  # yaw and roll turn round
        blendshapes[:, mirrored_blendshapes()],
        light[:, LIGHT_MIRRORED].flatten(1),
    ]
    return torch.cat(straight, 1), torch.cat(mirrored, 1)
