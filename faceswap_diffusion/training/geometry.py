"""What of a face's landmarks is its owner's: the part that pose and expression do not explain."""

import torch

RIDGE = 1e-2  # of the mean diagonal: keeps rare blendshapes from being fitted to noise


def identity_geometry(landmarks: torch.Tensor, head_pose: torch.Tensor, blendshapes: torch.Tensor) -> torch.Tensor:
    """Residual of a ridge regression of landmarks on yaw and pitch (up to their squares) and blendshapes.

    Roll is no part of it: aligned crops have none.

    In self-supervised training the landmarks of the target are also those of the source, so that a model learns to
    take the shape of the face from them; at swap time that shape is the wrong person's. Exchanging this residual
    between people (`exchange_geometry`) leaves pose and expression in the landmarks, and makes their owner unknowable.

    Args:
        landmarks (`torch.Tensor`): (N, 68, 2) in pixels of aligned crops.
        head_pose (`torch.Tensor`): (N, 3), yaw, pitch and roll in degrees.
        blendshapes (`torch.Tensor`): (N, 52) in [0, 1].

    Returns:
        `torch.Tensor`: (N, 68, 2) in pixels.
    """
    yaw, pitch = (head_pose[:, :2] / 30).T
    pose = torch.stack([torch.ones_like(yaw), yaw, pitch, yaw.square(), yaw * pitch, pitch.square()], 1)
    explaining = torch.cat([pose, blendshapes], 1)
    gram = explaining.T @ explaining
    ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(gram)) / len(gram)
    flat = landmarks.flatten(1)
    residual = flat - explaining @ torch.linalg.solve(gram + ridge, explaining.T @ flat)
    return residual.view_as(landmarks)


def exchange_geometry(
    landmarks: torch.Tensor, own: torch.Tensor, other: torch.Tensor, share: torch.Tensor
) -> torch.Tensor:
    """Replaces a share (B,) in [0, 1] of the `own` residual of landmarks (B, 68, 2) by somebody `other`'s."""
    return landmarks + share[:, None, None] * (other - own)
