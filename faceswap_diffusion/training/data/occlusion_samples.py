"""Faces with something drawn in front of them, and what of them it hides: what the occlusion network learns from."""

from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import transform_points
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478, MOUTH_478
from faceswap_diffusion.masks.occlusion import face_planes, near_face, window_matrix
from faceswap_diffusion.occluders.drawing import Scene, any_colour
from faceswap_diffusion.occluders.kinds import HAIR_COLOURS, draw_any

THINNEST = 1.3
"""One over the share of a pixel from which on it counts as covered wholly: thin frames count as well."""

VIEWS = 2
"""Samples that are made of one drawing, which costs more than all the rest."""


@dataclass(frozen=True, eq=False)
class KnownFace:
    """A face for which at least part of what covers it is known.

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB, FFHQ-aligned.
        landmarks (`np.ndarray`): (478, 2), x, y in pixels.
        covered (`np.ndarray`): (S, S) float32 in [0, 1].
        known (`np.ndarray`): (S, S) float32 in [0, 1], where `covered` is reliable.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    covered: np.ndarray
    known: np.ndarray


def cover(face: KnownFace, other: np.ndarray, count: int, rng: np.random.Generator) -> KnownFace:
    """Draws `count` things in front of a face; `other` is the crop of another person, see [`Scene`]."""
    pixels, covered = change_light(face.pixels, face.landmarks, rng), face.covered
    for _ in range(count):
        occluder = draw_any(Scene(pixels, face.landmarks, other), rng)
        pixels = occluder.over(pixels)
        covered = 1 - (1 - occluder.covered) * (1 - covered)
    return KnownFace(pixels, face.landmarks, covered, face.known)


def change_light(pixels: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Casts shadows and lights, and puts paint and beards on some faces: none of it is in front of them."""
    size, values = len(pixels), pixels.astype(np.float32)
    if rng.random() < 0.35:
        points = rng.uniform(-0.2, 1.2, (rng.integers(3, 6), 2)) * size
        shape = _blurred(cv2.convexHull(points.astype(np.float32))[:, 0], size, rng.uniform(0.003, 0.12))
        values *= 1 + shape * (rng.uniform(0.2, 0.8) if rng.random() < 0.7 else rng.uniform(1.1, 1.7)) - shape
    if rng.random() < 0.15:
        middle, reach = landmarks[rng.integers(468)], rng.uniform(0.02, 0.12) * size
        shape = _blurred(middle + rng.normal(0, reach, (6, 2)), size, 0.01) * rng.uniform(0.1, 0.5)
        values += shape * (any_colour(rng) - values)
    if rng.random() < 0.15:
        _grow_beard(values, landmarks, rng)
    return np.clip(values, 0, 255).astype(np.uint8)


def _grow_beard(values: np.ndarray, landmarks: np.ndarray, rng: np.random.Generator) -> None:
    """Draws a beard on a face (S, S, 3) float32, in place: the training faces have few full ones."""
    size, mouth = len(values), landmarks[list(MOUTH_478[0])]
    jaw = np.concatenate([landmarks[list(FACE_OVAL_478[11:26])], landmarks[[205, 2, 425]]])
    shape = _blurred(jaw, size, rng.uniform(0.005, 0.03)) * (1 - _blurred(mouth, size, 0.006))
    hairs = cv2.GaussianBlur(rng.standard_normal((size, size), np.float32), (0, 0), 0.6, sigmaY=2.0)[..., None]
    colour = np.array(HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))]) * rng.uniform(0.5, 1.1)
    beard = colour * (1 + 1.2 * hairs) * values.mean() / 110
    values += shape * rng.uniform(0.5, 0.97) * (beard - values)


def _blurred(points: np.ndarray, size: int, sigma: float) -> np.ndarray:
    shape = np.zeros((size, size, 1), np.float32)
    cv2.fillPoly(shape, [np.round(points).astype(np.int32)], 1.0)
    return cv2.GaussianBlur(shape, (0, 0), sigma * size)[..., None]


def move(face: KnownFace, size: int, rng: np.random.Generator) -> KnownFace:
    """Cuts the network's window out of a crop, and turns, scales, shifts and mirrors it a little."""
    angle, scale, mirror = rng.normal(0, 0.08), rng.uniform(0.9, 1.1), rng.choice([-1, 1])
    turn = scale * np.array([[np.cos(angle) * mirror, -np.sin(angle)], [np.sin(angle) * mirror, np.cos(angle)]])
    window, middle = window_matrix(face.landmarks, len(face.pixels), size), (size - 1) / 2
    shift = middle - turn @ [middle, middle] + rng.normal(0, 0.02 * size, 2)
    matrix = np.column_stack([turn @ window[:, :2], turn @ window[:, 2] + shift])
    planes = [
        cv2.warpAffine(plane, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        for plane in (face.pixels, face.covered, face.known)
    ]
    return KnownFace(planes[0], transform_points(face.landmarks, matrix), planes[1], planes[2])


def photograph(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Changes exposure, contrast, colours and sharpness of a crop (S, S, 3) uint8 RGB, as cameras and files do."""
    values = pixels.astype(np.float32) / 255
    values = values ** np.exp(rng.normal(0, 0.35)) * np.exp(rng.normal(0, 0.12, 3)).astype(np.float32)
    grey = values.mean(axis=2, keepdims=True)
    values = grey + (0 if rng.random() < 0.08 else rng.uniform(0.5, 1.5)) * (values - grey)
    values = values.mean() + (values - values.mean()) * np.exp(rng.normal(0, 0.2)) + rng.normal(0, 0.04)
    if rng.random() < 0.3:
        values = cv2.GaussianBlur(values, (0, 0), rng.uniform(0.3, 1.4))
    values = values + rng.uniform(0, 0.04) * rng.standard_normal(values.shape, np.float32)
    result = (np.clip(values, 0, 1) * 255).astype(np.uint8)
    if rng.random() < 0.3:
        _, packed = cv2.imencode(".jpg", result, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])
        result = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR))
    return result


def make_samples(
    face: KnownFace, other: np.ndarray, size: int, rng: np.random.Generator
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Makes `VIEWS` samples of a face.

    Args:
        face ([`KnownFace`]): Of any size.
        other (`np.ndarray`): Somebody else's crop, as large.
        size (`int`): Side of the samples in pixels.
        rng (`np.random.Generator`): What is random.

    Returns:
        `list[tuple[np.ndarray, ...]]`: Of each the pixels (size, size, 3) uint8 RGB, planes (3, size, size), what is
        covered (size, size), and the weight of each pixel (size, size), all float32.
    """
    shown = cover(face, other, int(rng.choice(3, p=(0.25, 0.6, 0.15))), rng)
    samples = []
    for _ in range(VIEWS):
        moved = move(shown, size, rng)
        jitter = rng.normal(0, 0.006 * size, 2) + rng.normal(0, 0.002 * size, moved.landmarks.shape)
        planes = face_planes(moved.landmarks + jitter, size)
        covered = np.minimum(THINNEST * moved.covered, 1)
        samples.append((photograph(moved.pixels, rng), planes, covered, moved.known * near_face(planes[0])))
    return samples
