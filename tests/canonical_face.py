"""The canonical face as a mesh in pixels: turned, open and looking as a test wants it, then painted or lit."""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from faceswap_diffusion.faces.head_pose import HeadPoseFit
from faceswap_diffusion.faces.landmarks import GEOMETRY
from faceswap_diffusion.faces.lighting import harmonics
from faceswap_diffusion.faces.mesh_topology import EYES_478, IRISES_478
from faceswap_diffusion.faces.surface import NOTHING, face_surface, interpolate, rasterize, vertex_normals
from faceswap_diffusion.weights.registry import model_path

SIDE = 256  # of pictures, in pixels
HEIGHT = 200  # of the face, in pixels
GREY = 90  # of what is not the face
ALBEDO = np.array([0.36, 0.24, 0.18])  # of skin, linear RGB


@dataclass(frozen=True)
class CanonicalFace:
    """A mesh in pixels of a picture.

    Args:
        landmarks (`np.ndarray`): (478, 2), x, y.
        depth (`np.ndarray`): (478,), smaller is nearer.
    """

    landmarks: np.ndarray
    depth: np.ndarray


@cache
def canonical_points() -> np.ndarray:
    """(478, 3) in centimetres, x to the viewer's right, y up, z towards the viewer; the eyes look straight ahead."""
    with zipfile.ZipFile(model_path("face_landmarker")) as task:
        points = HeadPoseFit.from_metadata(task.read(GEOMETRY)).points
    irises = np.zeros((10, 3))
    for outline, iris in zip(EYES_478, IRISES_478, strict=True):
        eye = points[list(outline)]
        radius = np.array([0.215 * np.ptp(eye[:, 0]), 0, 0])
        for point, offset in zip(iris, (-radius, 0 * radius, radius), strict=True):
            irises[point - 468] = eye.mean(axis=0) + offset
    return np.concatenate([points, irises])


def canonical_face(
    yaw: float = 0, gaze: float = 0, mouth: float = 0, side: int = SIDE, height: float = HEIGHT
) -> CanonicalFace:
    """The canonical face in the middle of a picture.

    Args:
        yaw (`float`): In degrees, to the viewer's right.
        gaze (`float`): How far the irises are moved to the viewer's right, in centimetres.
        mouth (`float`): How far the lower lip and all below it drop, in centimetres.
        side (`int`): Of the picture in pixels.
        height (`float`): Of the face in pixels.
    """
    points = canonical_points().copy()
    points[468:, 0] += gaze
    lips = points[[13, 14], 1].mean()
    points[(points[:, 1] < lips) & (np.arange(478) != 13), 1] -= mouth
    cosine, sine = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    points = points @ np.array([[cosine, 0, sine], [0, 1, 0], [-sine, 0, cosine]]).T
    points = points - (points.min(axis=0) + points.max(axis=0)) / 2
    points *= height / np.ptp(canonical_points()[:, 1]) * np.array([1, -1, -1])
    return CanonicalFace(points[:, :2] + (side - 1) / 2, points[:, 2])


def paint(face: CanonicalFace, colour: Callable[[np.ndarray], np.ndarray], side: int = SIDE) -> np.ndarray:
    """Paints a face by its texture coordinates, pixel by pixel, on grey.

    Args:
        face ([`CanonicalFace`]): The mesh.
        colour (`Callable`): From texture coordinates (N, 2) to RGB (N, 3) in [0, 255].
        side (`int`): Of the picture in pixels.

    Returns:
        `np.ndarray`: (side, side, 3) uint8 RGB.
    """
    surface = face_surface()
    seen = rasterize(face.landmarks, surface.triangles, (side, side), face.depth)
    uv = interpolate(seen, face.landmarks, surface.triangles, surface.uv)
    picture = np.full((side, side, 3), GREY, np.float32)
    picture[seen != NOTHING] = colour(uv[seen != NOTHING])
    return np.round(picture).astype(np.uint8)


def plain(*rgb: float) -> Callable[[np.ndarray], np.ndarray]:
    """One colour everywhere, for `paint`."""
    return lambda uv: np.broadcast_to(np.array(rgb, np.float32), (len(uv), 3))


def texel_centres(size: int) -> np.ndarray:
    """Texture coordinates (size, size, 2) of the texels of a texture."""
    centres = (np.arange(size) + 0.5) / size
    return np.stack(np.meshgrid(centres, centres), axis=2)


def to_linear(srgb: np.ndarray) -> np.ndarray:
    """Linear values in [0, 1] of sRGB in [0, 255] (IEC 61966-2-1)."""
    values = srgb / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def to_srgb(linear: np.ndarray) -> np.ndarray:
    """SRGB in [0, 255] of linear values in [0, 1]."""
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.clip(linear, 0, 1) ** (1 / 2.4) - 0.055)


def lit_face(face: CanonicalFace, light: np.ndarray, side: int = SIDE) -> np.ndarray:
    """The canonical face in one colour of skin, lit by harmonics (9,)."""
    surface = face_surface()
    normals = vertex_normals(np.column_stack([face.landmarks, face.depth]), surface.triangles)
    seen = rasterize(face.landmarks, surface.triangles, (side, side), face.depth)
    shade = interpolate(seen, face.landmarks, surface.triangles, (harmonics(normals) @ light)[:, None])
    picture = np.full((side, side, 3), float(GREY))
    picture[seen != NOTHING] = to_srgb(shade[seen != NOTHING] * ALBEDO)
    return np.round(picture).astype(np.uint8)
