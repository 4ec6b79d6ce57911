"""Masks from users: any picture or array in, soft values in [0, 1] out."""

import numpy as np
import torch
from PIL import Image

MaskLike = Image.Image | np.ndarray | torch.Tensor


def prepare_mask(mask: MaskLike, size: int | tuple[int, int]) -> torch.Tensor:
    """Converts a mask to floats without binarising or resizing it.

    Args:
        mask (`PIL.Image.Image | np.ndarray | torch.Tensor`): White = repaint. A picture of any mode (its brightness
            times its alpha is used), or an array or tensor (H, W), (1, H, W) or (H, W, 1): bool, 8- or 16-bit
            integers, or floats in [0, 1].
        size (`int | tuple[int, int]`): Side, or width and height, that the mask must have, in pixels.

    Returns:
        `torch.Tensor`: (1, H, W) float32 in [0, 1].

    Raises:
        ValueError: If the size, shape, type or range of values is wrong.
    """
    width, height = (size, size) if isinstance(size, int) else size
    values = _scaled(_single_channel(mask))
    if values.shape != (height, width):
        got = f"{values.shape[1]} x {values.shape[0]}"
        raise ValueError(f"got a mask of {got} pixels for a picture of {width} x {height}; make both the same size")
    return torch.from_numpy(np.ascontiguousarray(values))[None]


def read_mask(mask: Image.Image) -> np.ndarray:
    """Reads a picture as a mask: its brightness times its alpha.

    Args:
        mask (`PIL.Image.Image`): Of any mode; white = 1, black or transparent = 0.

    Returns:
        `np.ndarray`: (H, W) float32 in [0, 1].
    """
    if mask.mode.startswith("I;16"):
        return np.asarray(mask).astype(np.float32) / np.iinfo(np.uint16).max
    values = np.asarray(mask.convert("L")).astype(np.float32) / 255
    if not mask.has_transparency_data:
        return values
    return values * (np.asarray(mask.convert("RGBA").getchannel("A")).astype(np.float32) / 255)


def _single_channel(mask: MaskLike) -> np.ndarray:
    """The mask as an array (H, W) in its own dtype."""
    if isinstance(mask, Image.Image):
        return read_mask(mask)
    if isinstance(mask, torch.Tensor):
        mask = mask.detach().cpu()
        mask = mask.float() if mask.is_floating_point() else mask  # NumPy has no bfloat16
    values = np.asarray(mask)
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2:
        raise ValueError(f"got a mask of shape {values.shape}; one channel is needed: (H, W), (1, H, W) or (H, W, 1)")
    return values


def _scaled(values: np.ndarray) -> np.ndarray:
    """Values as float32 in [0, 1]."""
    if values.dtype == bool:
        return values.astype(np.float32)
    if values.dtype in (np.uint8, np.uint16):
        return values.astype(np.float32) / np.iinfo(values.dtype).max
    if not np.issubdtype(values.dtype, np.floating):
        raise ValueError(f"got a mask of {values.dtype}; bool, uint8, uint16 or floats in [0, 1] are needed")
    if not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(
            f"got a mask with values from {values.min():g} to {values.max():g}; floats must lie in [0, 1]"
        )
    return values.astype(np.float32)
