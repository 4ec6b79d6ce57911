"""Things in front of faces: what a model leaves alone on targets and does not take for skin."""

from dataclasses import dataclass

import cv2
import numpy as np

NUM_WAVES = 5
"""Fourier terms of an outline: with more it would be frayed."""

LENGTHS = (0.08, 0.3)
"""Half the length of an occluder, as a share of the crop's side."""

SLENDERNESS = (0.15, 1.0)
"""Its width over its length: from a finger or a temple of glasses to a hand or a cup."""

EDGE_SIGMA = 0.004
"""Softness of its edge, as a share of the crop's side."""


@dataclass(frozen=True, eq=False)
class Occluder:
    """Something in front of a face.

    Args:
        pixels (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255].
        alpha (`np.ndarray`): (S, S) float32 in [0, 1], where it is.
        covered (`np.ndarray`): (S, S) float32 in [0, 1], where it hides the face: as `alpha`, but for clear lenses.
        shadow (`np.ndarray`): (S, S) float32 in [0, 1], the light that it takes from the face.
    """

    pixels: np.ndarray
    alpha: np.ndarray
    covered: np.ndarray
    shadow: np.ndarray

    def over(self, pixels: np.ndarray) -> np.ndarray:
        """Lays it over a picture (S, S, 3) uint8 RGB; returns the same type."""
        alpha, light = self.alpha[..., None], 1 - self.shadow[..., None]
        return np.round(alpha * self.pixels + (1 - alpha) * light * pixels).astype(np.uint8)


def draw_occluder(landmarks: np.ndarray, picture: np.ndarray, rng: np.random.Generator) -> Occluder:
    """Draws a smooth shape with its middle on a face, filled with a piece of any picture.

    Args:
        landmarks (`np.ndarray`): (N, 2), the face, in pixels of a crop as large as `picture`.
        picture (`np.ndarray`): (S, S, 3) uint8 RGB, whose enlarged piece becomes its surface.
        rng (`np.random.Generator`): What is random.
    """
    size = len(picture)
    middle = landmarks[rng.integers(len(landmarks))]
    alpha = np.zeros((size, size), np.float32)
    cv2.fillPoly(alpha, [np.round(_outline(middle, size, rng)).astype(np.int32)], 1.0)
    alpha = cv2.GaussianBlur(alpha, (0, 0), EDGE_SIGMA * size)
    return Occluder(random_surface(picture, rng), alpha, covered=alpha, shadow=np.zeros_like(alpha))


def _outline(middle: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Points (64, 2) round a wavy ellipse, in pixels."""
    angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    orders = np.arange(1, NUM_WAVES + 1)[:, None]
    amplitudes, phases = rng.normal(size=(NUM_WAVES, 1)) * 0.15 / orders, rng.uniform(0, 2 * np.pi, (NUM_WAVES, 1))
    radius = 1 + (amplitudes * np.sin(orders * angles + phases)).sum(axis=0)
    length = size * rng.uniform(*LENGTHS)
    points = np.stack([np.cos(angles), rng.uniform(*SLENDERNESS) * np.sin(angles)]) * radius * length
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    return (rotation @ points).T + middle


def random_surface(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A piece of a picture, enlarged to its whole size, in other colours."""
    size = len(picture)
    side = int(size * rng.uniform(0.2, 0.6))
    top, left = rng.integers(size - side + 1, size=2)
    piece = cv2.resize(picture[top : top + side, left : left + side], (size, size), interpolation=cv2.INTER_LINEAR)
    return np.clip(piece * rng.uniform(0.4, 1.3, size=3), 0, 255).astype(np.float32)
