"""How much a swapped face flickers: what changes from frame to frame beside its motion."""

import cv2
import numpy as np

from faceswap_diffusion.faces.surface import NOTHING, face_surface, interpolate, rasterize


def follow_mesh(frame: np.ndarray, mesh: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Warps a frame so that its mesh comes to lie on another one, that of the frame before.

    Args:
        frame (`np.ndarray`): (H, W) or (H, W, C), uint8 or float32.
        mesh (`np.ndarray`): (478, 2), its mesh in pixels.
        wanted (`np.ndarray`): (478, 2), the other mesh in pixels.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The warped frame, and (H, W) bool, where it shows the face.
    """
    triangles = face_surface().triangles
    seen = rasterize(wanted, triangles, (frame.shape[1], frame.shape[0]))
    drawn = interpolate(seen, wanted, triangles, mesh)
    x, y = np.ascontiguousarray(drawn[..., 0]), np.ascontiguousarray(drawn[..., 1])
    return cv2.remap(frame, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), seen != NOTHING


def change_along_motion(
    frame: np.ndarray, mesh: np.ndarray, following: np.ndarray, next_mesh: np.ndarray, mask: np.ndarray
) -> float:
    """Mean absolute change of a face from a frame to the next, of 255, after the motion of its mesh is undone.

    Args:
        frame (`np.ndarray`): (H, W, 3) uint8 RGB.
        mesh (`np.ndarray`): (478, 2), the target's mesh in it, in pixels.
        following (`np.ndarray`): (H, W, 3) uint8 RGB, the next frame.
        next_mesh (`np.ndarray`): (478, 2), the target's mesh in that.
        mask (`np.ndarray`): (H, W) in [0, 1]; what is above a half counts.

    Returns:
        `float`: NaN if nothing counts.
    """
    warped, inside = follow_mesh(following.astype(np.float32), next_mesh, mesh)
    inside &= mask > 0.5
    return float(np.abs(warped - frame.astype(np.float32))[inside].mean()) if inside.any() else float("nan")


def flicker_ratio(swap: list[float], target: list[float]) -> float:
    """Mean change along the motion of a swap's frames, over that of the target's: 1 flickers as little as it does."""
    return float(np.nanmean(swap) / np.nanmean(target))
