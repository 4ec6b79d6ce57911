"""Facial shape: the part of a face's landmarks that pose and expression do not explain.

In self-supervised training, the landmarks of the target are also those of the source, so a model learns to take the
shape of the face from them. In a swap, that shape is the wrong person's. Exchanging the shape between people keeps
pose and expression: in training the landmarks then no longer reveal the identity, and in a swap the target gets the
shape of the source.
"""

from functools import lru_cache

import numpy as np
import torch

from faceswap_diffusion.faces.mesh_topology import DLIB68_FROM_MESH, FACE_OVAL_478
from faceswap_diffusion.faces.surface import face_surface

SMOOTHING = 0.01
"""Smoothing of the spline that moves a mesh, because landmarks are not accurate to the pixel."""

OUTLINE_WIDTH = 0.12
"""Width, in texture coordinates, of the mesh's rim over which the displacement fades to 0 at the target's outline."""

NUM_FEATURES = 6 + 52
RIDGE = 1e-2  # relative to the mean diagonal; keeps rare blendshapes from fitting noise


def explaining_features(head_pose: torch.Tensor, blendshapes: torch.Tensor) -> torch.Tensor:
    """Features that explain landmarks but not identity: yaw and pitch up to second order, and blendshapes.

    Roll is not included, because aligned crops have none.

    Args:
        head_pose (`torch.Tensor`): (N, 3), yaw, pitch and roll in degrees.
        blendshapes (`torch.Tensor`): (N, 52) in [0, 1].

    Returns:
        `torch.Tensor`: (N, 58), the first column is 1.
    """
    yaw, pitch = (head_pose[:, :2] / 30).T
    pose = torch.stack([torch.ones_like(yaw), yaw, pitch, yaw.square(), yaw * pitch, pitch.square()], 1)
    return torch.cat([pose, blendshapes], 1)


def fit_geometry(landmarks: torch.Tensor, head_pose: torch.Tensor, blendshapes: torch.Tensor) -> torch.Tensor:
    """Ridge regression of landmarks on pose and expression.

    Args:
        landmarks (`torch.Tensor`): (N, 68, 2) in pixels of aligned crops.
        head_pose (`torch.Tensor`): (N, 3) in degrees.
        blendshapes (`torch.Tensor`): (N, 52) in [0, 1].

    Returns:
        `torch.Tensor`: (58, 136), coefficients for `identity_geometry`.
    """
    explaining = explaining_features(head_pose, blendshapes)
    gram = explaining.T @ explaining
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram)) / len(gram)
    return torch.linalg.solve(gram + ridge, explaining.T @ landmarks.flatten(1))


def identity_geometry(
    landmarks: torch.Tensor, head_pose: torch.Tensor, blendshapes: torch.Tensor, coefficients: torch.Tensor
) -> torch.Tensor:
    """The facial shape: landmarks minus what pose and expression explain.

    Args:
        landmarks (`torch.Tensor`): (N, 68, 2) in pixels of aligned crops, of the same size as for the fit.
        head_pose (`torch.Tensor`): (N, 3) in degrees.
        blendshapes (`torch.Tensor`): (N, 52) in [0, 1].
        coefficients (`torch.Tensor`): (58, 136), from `fit_geometry`.

    Returns:
        `torch.Tensor`: (N, 68, 2) in pixels.
    """
    explained = explaining_features(head_pose, blendshapes) @ coefficients
    return landmarks - explained.view_as(landmarks)


def exchange_geometry(
    landmarks: torch.Tensor, own: torch.Tensor, other: torch.Tensor, share: torch.Tensor | float
) -> torch.Tensor:
    """Replaces the facial shape in landmarks by another person's.

    Args:
        landmarks (`torch.Tensor`): (B, 68, 2) in pixels.
        own (`torch.Tensor`): (B, 68, 2), the shape in `landmarks`, from `identity_geometry`.
        other (`torch.Tensor`): (B, 68, 2), another person's shape.
        share (`torch.Tensor` or `float`): (B, 1, 1) or one for all, the share that is replaced, in [0, 1].
    """
    return landmarks + share * (other - own)


def move_mesh(mesh: np.ndarray, displacement: np.ndarray) -> np.ndarray:
    """Moves a mesh by the displacement of its 68 landmarks, smoothly, and not at all at the outline.

    The displacements are interpolated by a thin-plate spline (Bookstein 1989) in texture coordinates.

    Args:
        mesh (`np.ndarray`): (478, 2), x, y in pixels.
        displacement (`np.ndarray`): (68, 2) displacement of the landmarks in pixels, in dlib's order.

    Returns:
        `np.ndarray`: (478, 2).
    """
    return mesh + _spline() @ displacement


@lru_cache(maxsize=1)
def _spline() -> np.ndarray:
    """Weights (478, 68) with which mesh points follow landmarks."""
    points = face_surface().uv
    controls, outline = points[DLIB68_FROM_MESH], points[list(FACE_OVAL_478)]
    affine = np.column_stack([np.ones(len(points)), points])
    count, control_affine = len(controls), affine[DLIB68_FROM_MESH]
    bending = _thin_plate(controls, controls) + SMOOTHING * np.eye(count)
    system = np.block([[bending, control_affine], [control_affine.T, np.zeros((3, 3))]])
    follows = np.column_stack([_thin_plate(points, controls), affine]) @ np.linalg.inv(system)[:, :count]
    from_outline = np.linalg.norm(points[:, None] - outline, axis=2).min(axis=1)
    return follows * np.clip(from_outline / OUTLINE_WIDTH, 0, 1)[:, None]


def _thin_plate(points: np.ndarray, controls: np.ndarray) -> np.ndarray:
    """The kernel r^2 log r^2 between points (N, 2) and (M, 2)."""
    squared = np.square(points[:, None] - controls).sum(axis=2)
    return squared * np.log(np.where(squared > 0, squared, 1))
