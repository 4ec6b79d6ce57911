"""Landmarks as a picture, drawn where the face is hidden, so that the network sees where each part has to be."""

import cv2
import numpy as np
import torch

BACKGROUND = 128
FRACTION_BITS = 4  # fractional bits of the coordinates that OpenCV draws with

# (points of dlib's 68, whether the line is closed, RGB)
STROKES: tuple[tuple[range, bool, tuple[int, int, int]], ...] = (
    (range(17), False, (255, 0, 0)),  # jaw
    (range(17, 22), False, (0, 255, 0)),  # brows
    (range(22, 27), False, (0, 255, 0)),
    (range(27, 31), False, (0, 0, 255)),  # bridge of the nose, and its lower edge
    (range(31, 36), False, (0, 0, 255)),
    (range(36, 42), True, (255, 255, 0)),  # eyes
    (range(42, 48), True, (255, 255, 0)),
    (range(48, 60), True, (255, 0, 255)),  # outer lips
    (range(60, 68), True, (0, 255, 255)),  # inner lips
)


def draw_landmarks(landmarks: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Draws dlib's 68 landmarks as lines on grey, with one colour for each part of the face.

    Args:
        landmarks (`torch.Tensor` of shape `(B, 68, 2)`): x, y in pixels of the crop. If all landmarks of a face
            are 0 (none were found), it stays grey.
        height (`int`): Height of the crop in pixels.
        width (`int`): Width of the crop in pixels.

    Returns:
        `torch.Tensor` of shape `(B, 3, height, width)`, RGB in [-1, 1], on the CPU; grey is about 0.

    Raises:
        ValueError: If there are not 68 landmarks.
    """
    if landmarks.shape[1] != 68:
        raise ValueError(f"got {landmarks.shape[1]} landmarks to draw: dlib's 68 are needed")
    points = np.round(landmarks.float().cpu().numpy() * 2**FRACTION_BITS).astype(np.int32)
    thickness = max(1, round(max(height, width) / 128))
    canvases = np.full((len(points), height, width, 3), BACKGROUND, np.uint8)
    for canvas, face in zip(canvases, points, strict=True):
        if not face.any():
            continue
        for part, closed, color in STROKES:
            cv2.polylines(canvas, [face[list(part)]], closed, color, thickness, cv2.LINE_AA, FRACTION_BITS)
    return torch.from_numpy(canvases).permute(0, 3, 1, 2).float() / 127.5 - 1
