"""Building blocks of drawn occluders: the face that they cover, layers, shading, shadows."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from faceswap_diffusion.occluders.blobs import Occluder, random_surface

FINE = 3
"""Outlines are drawn at this multiple of the crop's side, so that their edges are smooth."""

FACE_HEIGHT = 18.0  # cm from the mesh's top to the chin


@dataclass(frozen=True, eq=False)
class Scene:
    """The face that something is drawn in front of.

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB, an aligned crop.
        landmarks (`np.ndarray`): (478, 2), its mesh.
        other (`np.ndarray`): (S, S, 3) uint8 RGB, an aligned crop of another person: a source of skin and textures.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    other: np.ndarray

    @property
    def size(self) -> int:
        """Side of the crop in pixels."""
        return len(self.pixels)

    @property
    def cm(self) -> float:
        """A centimetre in pixels."""
        return float(np.linalg.norm(self.landmarks[152] - self.landmarks[10])) / FACE_HEIGHT

    @property
    def axes(self) -> np.ndarray:
        """(2, 2): from eye to eye, and down, each of a centimetre."""
        right = self.landmarks[263] - self.landmarks[33]
        down = self.landmarks[152] - self.landmarks[10]
        return np.stack([right / np.linalg.norm(right), down / np.linalg.norm(down)]) * self.cm

    def place(self, points: ArrayLike, where: np.ndarray, angle: float = 0.0) -> np.ndarray:
        """Points (N, 2) in centimetres, turned and moved to a point of the crop, in pixels."""
        cos, sin = np.cos(angle), np.sin(angle)
        return where + np.asarray(points) @ np.array([[cos, sin], [-sin, cos]]) @ self.axes

    def fill(self, *outlines: np.ndarray) -> np.ndarray:
        """Filled polygons as (S, S) float32 in [0, 1]."""
        return _drawn(self.size, outlines, 0, lambda canvas, shapes: cv2.fillPoly(canvas, shapes, 255))

    def stroke(self, lines: Sequence[np.ndarray], width: float, closed: bool = False) -> np.ndarray:
        """Lines of a width in centimetres, with round ends, as (S, S) float32 in [0, 1]."""
        thickness = max(1, round(width * self.cm * FINE))
        margin = thickness // (2 * FINE) + 1
        return _drawn(
            self.size, lines, margin, lambda canvas, shapes: cv2.polylines(canvas, shapes, closed, 255, thickness)
        )


def _drawn(size: int, shapes: Sequence[np.ndarray], margin: int, draw: Callable) -> np.ndarray:
    """Draws shapes finely where they are, and brings them to the crop's pixels."""
    result, points = np.zeros((size, size), np.float32), np.concatenate(list(shapes))
    left, top = np.clip(np.floor(points.min(axis=0)).astype(int) - margin, 0, size)
    right, bottom = np.clip(np.ceil(points.max(axis=0)).astype(int) + margin + 1, 0, size)
    if left < right and top < bottom:
        canvas = np.zeros(((bottom - top) * FINE, (right - left) * FINE), np.uint8)
        draw(canvas, [finely(shape - [left, top]) for shape in shapes])
        area = cv2.resize(canvas, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        result[top:bottom, left:right] = area.astype(np.float32) / 255
    return result


def finely(points: np.ndarray) -> np.ndarray:
    """Points (N, 2) in pixels, in those of a canvas `FINE` times as large, int32."""
    return np.round((np.asarray(points) + 0.5) * FINE - 0.5).astype(np.int32)


def coarsely(canvas: np.ndarray, size: int) -> np.ndarray:
    """Brings a fine canvas, uint8, to `size` pixels, as (size, size) float32 in [0, 1]."""
    return cv2.resize(canvas, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255


class Layers:
    """Parts of a thing, laid one over the other."""

    def __init__(self, size: int):
        self.pixels = np.zeros((size, size, 3), np.float32)
        self.alpha = np.zeros((size, size), np.float32)

    def add(self, alpha: np.ndarray, pixels: np.ndarray | Sequence[float]) -> None:
        """Lays a part (S, S) in [0, 1] with its RGB colours over the rest."""
        left, top, width, height = cv2.boundingRect((alpha > 0).astype(np.uint8))
        part = np.s_[top : top + height, left : left + width]
        colours = np.asarray(pixels, np.float32)
        colours = colours[part] if colours.ndim == 3 else colours
        alpha, below = alpha[part].astype(np.float32), self.alpha[part]
        share = np.where(below > 0, alpha, alpha > 0)[..., None].astype(np.float32)
        self.pixels[part] += share * (colours - self.pixels[part])
        self.alpha[part] = alpha + (1 - alpha) * below


def finish(
    scene: Scene, layers: Layers, rng: np.random.Generator, covered: np.ndarray | None = None, distance: float = 0.6
) -> Occluder:
    """Gives a thing the picture's light and sharpness, and a soft shadow.

    Args:
        scene ([`Scene`]): What it stands in front of.
        layers ([`Layers`]): The thing.
        rng (`np.random.Generator`): What is random.
        covered (`np.ndarray`, *optional*): (S, S), what it hides; its alpha if left out.
        distance (`float`): How far in front of the face it is, in centimetres: the shadow's offset.
    """
    sigma = rng.uniform(0.15, 0.8) * scene.size / 160
    pixels, alpha = (cv2.GaussianBlur(plane, (0, 0), sigma) for plane in (layers.pixels, layers.alpha))
    covered = alpha if covered is None else cv2.GaussianBlur(covered, (0, 0), sigma)
    exposure = (scene.pixels[scene.size // 4 : -scene.size // 4].mean() / 120) ** rng.uniform(0.2, 1.0)
    ramp = np.linspace(-1, 1, scene.size, dtype=np.float32) * rng.uniform(-0.25, 0.25)
    light = exposure * rng.uniform(0.8, 1.2) * (1 + ramp[None, :, None])
    pixels = pixels * light + rng.uniform(0, 4) * rng.standard_normal(pixels.shape, np.float32)
    offset = rng.normal(0, 0.7, 2) * distance * scene.cm + [0, 0.5 * distance * scene.cm]
    moved = cv2.warpAffine(covered, np.array([[1, 0, offset[0]], [0, 1, offset[1]]]), covered.shape[::-1])
    shadow = cv2.GaussianBlur(moved, (0, 0), max(0.3, distance * scene.cm * rng.uniform(0.2, 0.8)))
    return Occluder(np.clip(pixels, 0, 255).astype(np.float32), alpha, covered, shadow * rng.uniform(0, 0.55))


def rounded(alpha: np.ndarray, radius: float, dark: float = 0.5) -> np.ndarray:
    """Brightness (S, S, 1) of a round body: darker towards its edge."""
    depth = cv2.distanceTransform((alpha > 0.4).astype(np.uint8), cv2.DIST_L2, 3)
    inward = 1 - np.minimum(depth / np.float32(max(radius, 1e-3)), 1)
    return (1 - np.float32(1 - dark) * (1 - np.sqrt(1 - inward**2)))[..., None]


def any_colour(rng: np.random.Generator) -> np.ndarray:
    """A colour (3,), often dull, sometimes gaudy."""
    return np.clip(rng.uniform(10, 245) + rng.normal(0, rng.choice([8, 60]), 3), 0, 255)


def any_surface(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Colours (S, S, 3) float32: plain, or a piece of another picture."""
    if rng.random() < 0.5:
        return random_surface(scene.other, rng)
    return np.broadcast_to(any_colour(rng).astype(np.float32), scene.pixels.shape)
