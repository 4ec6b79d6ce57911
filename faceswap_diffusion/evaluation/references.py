"""Baseline swaps without a model: the source's face pasted, and warped and blended."""

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import crop
from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.faces.landmarks import mesh_triangles
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478


def pasted_source(source: np.ndarray, source_face: Face, target: np.ndarray, target_face: Face) -> np.ndarray:
    """Pastes the source's face onto the target's with a hard edge, aligned by a similarity fitted to 68 landmarks.

    Args:
        source (`np.ndarray`): (H, W, 3) uint8 RGB.
        source_face ([`Face`]): With the mesh's 478 landmarks.
        target (`np.ndarray`): (H, W, 3) uint8 RGB.
        target_face ([`Face`]): With the mesh's 478 landmarks.

    Returns:
        `np.ndarray`: Of the target's shape.
    """
    matrix = similarity(source_face.landmarks68, target_face.landmarks68)
    height, width = target.shape[:2]
    moved = crop(source, matrix, max(height, width))[:height, :width]
    return np.where(face_oval(target_face, target.shape)[..., None], moved, target)


def similarity(points: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The similarity (2, 3) that maps points (N, 2) to others, fitted by least squares."""
    x, y = (points - points.mean(axis=0)) @ [1, 1j], (wanted - wanted.mean(axis=0)) @ [1, 1j]
    factor = np.vdot(x, y) / np.vdot(x, x)
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, wanted.mean(axis=0) - linear @ points.mean(axis=0)])


def classical_swap(source: np.ndarray, source_face: Face, target: np.ndarray, target_face: Face) -> np.ndarray:
    """Warps the source's face onto the target's mesh, triangle by triangle, and blends it.

    The blending is OpenCV's implementation of Perez and others, "Poisson Image Editing", 2003.

    Args:
        source (`np.ndarray`): (H, W, 3) uint8 RGB.
        source_face ([`Face`]): With the mesh's 478 landmarks.
        target (`np.ndarray`): (H, W, 3) uint8 RGB.
        target_face ([`Face`]): With the mesh's 478 landmarks.

    Returns:
        `np.ndarray`: Of the target's shape.
    """
    warped = warp_mesh(source, source_face.landmarks, target, target_face.landmarks)
    mask = face_oval(target_face, target.shape).astype(np.uint8) * 255
    mask[[0, 1, -2, -1]] = mask[:, [0, 1, -2, -1]] = 0  # OpenCV needs a border around the mask
    left, top, width, height = cv2.boundingRect(mask)
    if not width:
        return target
    return cv2.seamlessClone(warped, target, mask, (left + width // 2, top + height // 2), cv2.NORMAL_CLONE)


def warp_mesh(source: np.ndarray, source_points: np.ndarray, target: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Draws the source's triangles over the target's triangles that face the viewer.

    Args:
        source (`np.ndarray`): (H, W, 3) uint8 RGB.
        source_points (`np.ndarray`): (478, 2) mesh points in pixels.
        target (`np.ndarray`): (H, W, 3) uint8 RGB.
        points (`np.ndarray`): (478, 2) mesh points in the target's pixels.

    Returns:
        `np.ndarray`: Of the target's shape.
    """
    result, corner = target.copy(), np.array(target.shape[1::-1])
    for triangle in mesh_triangles():
        wanted = points[triangle].astype(np.float32)
        along, across = wanted[1] - wanted[0], wanted[2] - wanted[0]
        if along[0] * across[1] >= along[1] * across[0]:  # faces away from the viewer (y points down)
            continue
        low = np.clip(np.floor(wanted.min(axis=0)), 0, corner).astype(int)
        high = np.clip(np.ceil(wanted.max(axis=0)) + 1, 0, corner).astype(int)
        if (low >= high).any():
            continue
        matrix = cv2.getAffineTransform(source_points[triangle].astype(np.float32), wanted - low.astype(np.float32))
        size = tuple((high - low).tolist())
        moved = cv2.warpAffine(source, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        inside = np.zeros(size[::-1], np.uint8)
        cv2.fillConvexPoly(inside, np.round(wanted - low).astype(np.int32), 1)
        window = result[low[1] : high[1], low[0] : high[0]]
        window[inside > 0] = moved[inside > 0]
    return result


def face_oval(face: Face, shape: tuple[int, ...]) -> np.ndarray:
    """The inside (H, W) bool of the mesh's outline."""
    canvas = np.zeros(shape[:2], np.uint8)
    outline = cv2.convexHull(np.round(face.landmarks[list(FACE_OVAL_478)]).astype(np.int32))
    cv2.fillConvexPoly(canvas, outline, 1)
    return canvas > 0
