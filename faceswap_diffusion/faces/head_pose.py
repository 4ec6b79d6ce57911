"""Head pose from the face mesh: a weighted Procrustes fit of MediaPipe's canonical face."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# Image y points down and mesh depth away from the viewer; the canonical face has y up and z towards the viewer.
_FLIP = np.array([1.0, -1.0, -1.0])


@dataclass(frozen=True)
class HeadPoseFit:
    """Fits the canonical face to meshes.

    Args:
        points (`np.ndarray` of shape `(468, 3)`): The canonical face in centimetres, x to the viewer's right, y up, z
            towards the viewer.
        indices (`np.ndarray` of shape `(K,)`, int): Mesh points used for the fit: those that expressions
            hardly move.
        weights (`np.ndarray` of shape `(K,)`): Their weights.
    """

    points: np.ndarray
    indices: np.ndarray
    weights: np.ndarray

    @classmethod
    def from_metadata(cls, message: bytes) -> "HeadPoseFit":
        """Reads the canonical face and the weights from MediaPipe's geometry metadata.

        Args:
            message (`bytes`): A serialised `mediapipe.tasks.vision.face_geometry.proto.GeometryPipelineMetadata`.

        Returns:
            `HeadPoseFit`: The fit.
        """
        top = list(_fields(message))
        basis = [dict(_fields(value)) for number, value in top if number == 2]
        weights = np.frombuffer(b"".join(entry[2] for entry in basis), "<f4").astype(np.float64)
        return cls(_read_vertices(message)[:, :3], np.array([entry[1] for entry in basis]), weights)

    def __call__(self, mesh: np.ndarray) -> np.ndarray:
        """Fits the canonical face by a rotation, a scale and a shift.

        Args:
            mesh (`np.ndarray` of shape `(>=468, 3)`): x, y and depth in pixels.

        Returns:
            `np.ndarray` of shape `(3,)`: Yaw (to the picture's right), pitch (up), roll (clockwise) in degrees.
        """
        return euler_angles(self.rotation(mesh))

    def rotation(self, mesh: np.ndarray) -> np.ndarray:
        """Computes the rotation from the canonical face to the mesh (Umeyama 1991, equation 43).

        Args:
            mesh (`np.ndarray` of shape `(>=468, 3)`): x, y and depth in pixels.

        Returns:
            `np.ndarray` of shape `(3, 3)`: A proper rotation, in axes x right, y up, z towards the viewer.
        """
        canonical, seen = self.points[self.indices], mesh[self.indices] * _FLIP
        weights = self.weights[:, None] / self.weights.sum()
        seen = seen - (weights * seen).sum(axis=0)
        covariance = seen.T @ (weights * (canonical - (weights * canonical).sum(axis=0)))
        left, _, right = np.linalg.svd(covariance)
        handedness = np.sign(np.linalg.det(left) * np.linalg.det(right))
        return left @ np.diag([1.0, 1.0, handedness]) @ right


def read_triangles(message: bytes) -> np.ndarray:
    """Reads the triangles of the canonical face from MediaPipe's geometry metadata.

    Args:
        message (`bytes`): As for [`HeadPoseFit.from_metadata`].

    Returns:
        `np.ndarray` of shape `(T, 3)`, int: Mesh points, counter-clockwise as seen from outside the head.
    """
    mesh = next(value for number, value in _fields(message) if number == 1)
    corners: list[int] = []
    for number, value in _fields(mesh):
        if number == 4:
            corners += [value] if isinstance(value, int) else _packed_varints(value)
    return np.array(corners).reshape(-1, 3)


def read_texture_coordinates(message: bytes) -> np.ndarray:
    """Reads the texture coordinates of the canonical face from MediaPipe's geometry metadata.

    Args:
        message (`bytes`): As for [`HeadPoseFit.from_metadata`].

    Returns:
        `np.ndarray` of shape `(468, 2)`: u to the viewer's right and v down, in [0, 1].
    """
    return _read_vertices(message)[:, 3:]


def _read_vertices(message: bytes) -> np.ndarray:
    """Vertices (468, 5) of the canonical face: x, y, z and two texture coordinates."""
    mesh = next(value for number, value in _fields(message) if number == 1)
    vertices = np.frombuffer(b"".join(value for number, value in _fields(mesh) if number == 3), "<f4")
    return vertices.reshape(-1, 5).astype(np.float64)


def euler_angles(rotation: np.ndarray) -> np.ndarray:
    """Splits a head rotation into pitch first, then yaw, then roll in the plane of the picture.

    Roll comes last, so that rotating the photo changes only roll.

    Args:
        rotation (`np.ndarray` of shape `(3, 3)`): In axes x right, y up, z towards the viewer.

    Returns:
        `np.ndarray` of shape `(3,)`: Yaw (to the picture's right), pitch (up), roll (clockwise) in degrees.
    """
    yaw = np.arcsin(np.clip(-rotation[2, 0], -1, 1))
    pitch = -np.arctan2(rotation[2, 1], rotation[2, 2])
    roll = -np.arctan2(rotation[1, 0], rotation[0, 0])
    return np.degrees([yaw, pitch, roll])


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Iterates over the fields of a serialised protocol buffer: field number, and value as `int` or raw `bytes`."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        if key & 7 == 0:
            value, position = _varint(message, position)
            yield key >> 3, value
            continue
        length, position = (4, position) if key & 7 == 5 else _varint(message, position)
        yield key >> 3, message[position : position + length]
        position += length


def _packed_varints(message: bytes) -> list[int]:
    values, position = [], 0
    while position < len(message):
        value, position = _varint(message, position)
        values.append(value)
    return values


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position
