"""The face mesh as a textured surface: triangles with movable irises, texture coordinates, and a rasteriser."""

import zipfile
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from faceswap_diffusion.faces.head_pose import read_texture_coordinates
from faceswap_diffusion.faces.landmarks import GEOMETRY, mesh_triangles
from faceswap_diffusion.faces.mesh_topology import (
    EYES_478,
    FACE_OVAL_478,
    INNER_LIPS_478,
    IRISES_478,
    NOT_SKIN_478,
)
from faceswap_diffusion.weights.registry import model_path

SUBPIXEL_BITS = 4  # fractional bits of the coordinates that OpenCV fills triangles with
NOTHING = -1
"""Value of `rasterize` for a pixel that no triangle covers."""


@dataclass(frozen=True, eq=False)
class FaceSurface:
    """Triangles over the 478 mesh points, and their texture coordinates.

    The triangles are those of the canonical face, except in the eyes. There they meet at the iris, so that the iris of
    a texture follows the gaze of a mesh.

    Args:
        triangles (`np.ndarray` of shape `(T, 3)`, int): Counter-clockwise as seen from outside the head.
        uv (`np.ndarray` of shape `(478, 2)`): Texture coordinates in [0, 1], u to the viewer's right, v down. The
            canonical face is mirror-symmetric about u = 0.5.
        skin, eyes, mouth (`np.ndarray` of shape `(T,)`, bool): Triangles of plain skin, inside the eyelids and
            between the lips.
    """

    triangles: np.ndarray
    uv: np.ndarray
    skin: np.ndarray
    eyes: np.ndarray
    mouth: np.ndarray


@cache
def face_surface() -> FaceSurface:
    """The surface of the mesh that `FaceMesh` fits."""
    triangles = mesh_triangles()
    inside_eye = np.zeros(len(triangles), bool)
    for outline in EYES_478:
        inside_eye |= np.isin(triangles, outline).all(axis=1)
    with_irises = [eye_triangles(outline, iris) for outline, iris in zip(EYES_478, IRISES_478, strict=True)]
    skin_and_mouth = triangles[~inside_eye]
    triangles = np.concatenate([skin_and_mouth, *with_irises])
    eyes = np.arange(len(triangles)) >= len(skin_and_mouth)
    mouth = np.asarray(np.isin(triangles, INNER_LIPS_478).all(axis=1))
    skin = ~eyes & ~np.isin(triangles, list(NOT_SKIN_478)).any(axis=1)
    return FaceSurface(triangles, _texture_coordinates(), skin, eyes, mouth)


def eye_triangles(outline: tuple[int, ...], iris: tuple[int, int, int]) -> np.ndarray:
    """Triangles between an eye's outline and the horizontal line through its iris.

    Args:
        outline (`tuple[int, ...]`): 16 points from one corner along the upper lid to the other corner,
            and back along the lower lid.
        iris (`tuple[int, int, int]`): Its left edge, centre and right edge.

    Returns:
        `np.ndarray` of shape `(20, 3)`: Mesh points, oriented like the canonical face.
    """
    uv = _texture_coordinates()
    nearest = [min(iris, key=lambda point: abs(uv[point, 0] - uv[corner, 0])) for corner in outline]
    triangles = []
    for first, second, near, next_near in zip(
        outline, outline[1:] + outline[:1], nearest, nearest[1:] + nearest[:1], strict=True
    ):
        triangles.append((first, second, near))
        if near != next_near:
            triangles.append((second, next_near, near))
    turned = np.array(triangles)
    flipped = signed_areas(uv[turned]) > 0
    turned[flipped] = turned[flipped][:, ::-1]
    return turned


@cache
def _texture_coordinates() -> np.ndarray:
    """Texture coordinates (478, 2): those of the canonical face, with irises in the middle of the eyes."""
    with zipfile.ZipFile(model_path("face_landmarker")) as task:
        canonical = read_texture_coordinates(task.read(GEOMETRY))
    uv = np.concatenate([canonical, np.zeros((10, 2))])
    for outline, (left, centre, right) in zip(EYES_478, IRISES_478, strict=True):
        points = canonical[list(outline)]
        middle, width = points.mean(axis=0), np.ptp(points[:, 0])
        # An iris is 0.43 times as wide as the eye between its corners (Smith 1991: 11.7 mm of 27.5 mm).
        offset = np.array([0.215 * width, 0.0])
        uv[left], uv[centre], uv[right] = middle - offset, middle, middle + offset
    return uv


def signed_areas(corners: np.ndarray) -> np.ndarray:
    """Twice the signed areas (T,) of triangles (T, 3, 2); negative where they face the viewer, as y points down."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    return first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]


def vertex_normals(points: np.ndarray, triangles: np.ndarray) -> np.ndarray:
    """Normals of mesh points: the area-weighted mean of the normals of adjacent triangles.

    Args:
        points (`np.ndarray` of shape `(N, 3)`): x, y and depth in pixels; y points down, depth away from the viewer.
        triangles (`np.ndarray` of shape `(T, 3)`): See [`FaceSurface`].

    Returns:
        `np.ndarray` of shape `(N, 3)`: Unit vectors with x to the right, y up and z towards the viewer; 0 for
        points that belong to no triangle.
    """
    upright = points * [1.0, -1.0, -1.0]
    a, b, c = upright[triangles].transpose(1, 0, 2)
    faces = np.cross(b - a, c - a)
    normals = np.zeros_like(upright)
    for corner in range(3):
        np.add.at(normals, triangles[:, corner], faces)
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    return np.divide(normals, lengths, out=np.zeros_like(normals), where=lengths > 0)


def rasterize(
    points: np.ndarray, triangles: np.ndarray, size: tuple[int, int], depth: np.ndarray | None = None
) -> np.ndarray:
    """Draws the triangles that face the viewer, from back to front.

    Args:
        points (`np.ndarray` of shape `(N, 2)`): x, y in pixels; pixel centres lie at integers.
        triangles (`np.ndarray` of shape `(T, 3)`): Counter-clockwise where they face the viewer.
        size (`tuple[int, int]`): Width and height of the picture.
        depth (`np.ndarray` of shape `(N,)`, *optional*): Smaller is nearer; without it the order does not matter.

    Returns:
        `np.ndarray` of shape `(height, width)`, int32: Index of the triangle visible in each pixel, or `NOTHING`.
    """
    canvas = np.full((size[1], size[0]), NOTHING, np.int32)
    corners = points[triangles]
    facing = np.nonzero(signed_areas(corners) < 0)[0]
    if depth is not None:
        facing = facing[np.argsort(-depth[triangles[facing]].mean(axis=1), kind="stable")]
    limit = 2.0 ** (30 - SUBPIXEL_BITS)
    fixed = np.round(np.clip(corners, -limit, limit) * 2**SUBPIXEL_BITS).astype(np.int32)
    for index in facing.tolist():
        cv2.fillConvexPoly(canvas, fixed[index], index, cv2.LINE_8, SUBPIXEL_BITS)
    return canvas


def interpolate(seen: np.ndarray, points: np.ndarray, triangles: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Interpolates values of mesh points over the visible triangles of a raster (barycentric coordinates).

    Args:
        seen (`np.ndarray` of shape `(H, W)`, int): From `rasterize`.
        points (`np.ndarray` of shape `(N, 2)`): The points that were rasterised.
        triangles (`np.ndarray` of shape `(T, 3)`): The triangles that were rasterised.
        values (`np.ndarray` of shape `(N, C)`): Values of the points.

    Returns:
        `np.ndarray` of shape `(H, W, C)`, float32: 0 where no triangle is visible. The centre of a covered pixel may
            lie slightly outside its triangle; its values are clipped to the range of the triangle's corners.
    """
    corners = points[triangles].astype(np.float64)
    with_one = np.concatenate([corners, np.ones((len(corners), 3, 1))], axis=2)
    flat = np.abs(np.linalg.det(with_one)) < 1e-9  # degenerate triangles, which are never visible
    with_one[flat] = np.eye(3)
    at_corners = values[triangles].astype(np.float32)  # (T, 3, C)
    planes = np.linalg.solve(with_one, at_corners.astype(np.float64)).astype(np.float32)
    place = np.flatnonzero(seen != NOTHING)
    index = seen.reshape(-1)[place]
    row, column = (part.astype(np.float32)[:, None] for part in np.divmod(place, seen.shape[1]))
    inside = _of_each(planes[:, 0], index) * column
    inside += _of_each(planes[:, 1], index) * row
    inside += _of_each(planes[:, 2], index)
    np.clip(inside, _of_each(at_corners.min(axis=1), index), _of_each(at_corners.max(axis=1), index), out=inside)
    result = np.zeros((seen.size, values.shape[1]), np.float32)
    result[place] = inside
    return result.reshape(*seen.shape, -1)


def _of_each(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Rows (P, C) of values (T, C) by index (P,): on contiguous values `np.take` is twice as fast as indexing."""
    return np.take(np.ascontiguousarray(values), index, axis=0)


def mesh_motion(
    mesh: np.ndarray, wanted: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where to take pixels from, so that a picture's mesh comes to lie on another one.

    Args:
        mesh (`np.ndarray` of shape `(478, 2)`): Of the picture, in pixels.
        wanted (`np.ndarray` of shape `(478, 2)`): The other mesh in pixels.
        size (`tuple[int, int]`): Width and height of the picture.

    Returns:
        `tuple[np.ndarray, np.ndarray, np.ndarray]`: x and y, `(height, width)` float32, as `cv2.remap` takes them, and
        `(height, width)` bool, where the other mesh is; elsewhere pixels stay.
    """
    triangles = face_surface().triangles
    seen = rasterize(wanted, triangles, size)
    # Offsets, because `interpolate` clips values to those of a triangle's corners, and places vary within it.
    offsets = interpolate(seen, wanted, triangles, mesh - wanted)
    y, x = np.indices(seen.shape, np.float32)
    return x + offsets[..., 0], y + offsets[..., 1], seen != NOTHING


def surrounding_ring(landmarks: np.ndarray, reach: float) -> tuple[np.ndarray, np.ndarray]:
    """Extends the mesh beyond its outline in the image plane, over forehead, ears and hair.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): x, y in pixels.
        reach (`float`): Distance of the outer points from the outline's centre, relative to the outline itself.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Points `(72, 2)`, the outline and its enlarged copy, and triangles `(72, 3)`
        over them, with the orientation of [`FaceSurface`].
    """
    outline = landmarks[list(FACE_OVAL_478)]
    centre = outline.mean(axis=0)
    count = len(outline)
    points = np.concatenate([outline, centre + reach * (outline - centre)])
    first, second = np.arange(count), np.roll(np.arange(count), -1)
    inner = np.stack([first, second, second + count], axis=1)
    outer = np.stack([first, second + count, first + count], axis=1)
    return points, np.concatenate([inner, outer])
