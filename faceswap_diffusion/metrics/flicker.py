"""How much a swapped face flickers: what changes from frame to frame beside its motion."""

import cv2
import numpy as np

from faceswap_diffusion.faces.surface import mesh_motion


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
    x, y, inside = mesh_motion(next_mesh, mesh, (frame.shape[1], frame.shape[0]))
    warped = cv2.remap(following.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside &= mask > 0.5
    return float(np.abs(warped - frame.astype(np.float32))[inside].mean()) if inside.any() else float("nan")


def flicker_ratio(swap: list[float], target: list[float]) -> float:
    """Mean change along the motion of a swap's frames, over that of the target's: 1 flickers as little as it does."""
    return float(np.nanmean(swap) / np.nanmean(target))
