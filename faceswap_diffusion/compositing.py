"""Putting a swapped crop back into the photo: colour match, inverse warp, fine texture of the photo, blend."""

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import invert, transform_points, uncrop

SMALLEST_SAMPLE = 64
"""Weighted pixels below which the colour statistics of a mask mean nothing."""

CONTRAST_RANGE = (0.75, 1.33)
"""Limits of the factor on the spread of a Lab channel: colours are matched, shading is not flattened or blown up."""

INVISIBLE = 1 / 512
"""Mask values below this cannot change an 8-bit pixel, and are taken as 0."""


def match_color(swap: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Gives a swapped crop the colours of the target's skin (Reinhard et al. 2001, eq. 10 and 11, in CIE Lab).

    Means and standard deviations are taken inside the mask only, and the contrast factor is limited.

    Args:
        swap (`np.ndarray`): (H, W, 3) uint8 RGB, the swapped crop.
        target (`np.ndarray`): (H, W, 3) uint8 RGB, the crop before the swap.
        mask (`np.ndarray`): (H, W) float in [0, 1], where both show skin.

    Returns:
        `np.ndarray`: (H, W, 3) uint8 RGB; `swap` itself where the mask is too small to tell.
    """
    if mask.sum() < SMALLEST_SAMPLE:
        return swap
    swap_lab, target_lab = _to_lab(swap), _to_lab(target)
    swap_mean, swap_std = _weighted_statistics(swap_lab, mask)
    target_mean, target_std = _weighted_statistics(target_lab, mask)
    contrast = np.clip((target_std + 1e-3) / (swap_std + 1e-3), *CONTRAST_RANGE)
    matched = ((swap_lab - swap_mean) * contrast + target_mean).astype(np.float32)
    rgb = cv2.cvtColor(matched, cv2.COLOR_Lab2RGB)
    return np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)


def paste_back(
    photo: np.ndarray,
    crop: np.ndarray,
    crop_mask: np.ndarray,
    matrix: np.ndarray,
    target: np.ndarray | None = None,
    texture_mask: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Warps a crop back onto the photo and blends it in by its mask; only the mask's own rectangle is computed.

    A crop is often coarser than the photo. What of the photo is too fine for a crop, pores and grain, is what the
    photo has and its own crop, warped back, has not; it can be put on what was repainted.

    Args:
        photo (`np.ndarray`): (H, W, 3) uint8 RGB.
        crop (`np.ndarray`): (S, S, 3) uint8 RGB, the repainted crop.
        crop_mask (`np.ndarray`): (S, S) float in [0, 1], feathered; 1 = the crop, 0 = the photo.
        matrix (`np.ndarray`): (2, 3), maps photo pixels to crop pixels.
        target (`np.ndarray`, *optional*): (S, S, 3) uint8 RGB, the crop before it was repainted; with `texture_mask`.
        texture_mask (`np.ndarray`, *optional*): (S, S) float in [0, 1], where the photo's fine texture is put on it.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: The new photo (H, W, 3) uint8, and the mask (H, W) float32 on it. Where the
        mask is 0 the photo is unchanged to the byte.
    """
    result, photo_mask = photo.copy(), np.zeros(photo.shape[:2], np.float32)
    left, top, right, bottom = _mask_bounds(crop_mask, matrix, photo.shape[1], photo.shape[0])
    if left >= right or top >= bottom:
        return result, photo_mask
    window = np.s_[top:bottom, left:right]
    pixels, mask = _warp_to_window(crop, crop_mask, matrix, (left, top, right, bottom))
    mask[mask < INVISIBLE] = 0
    below = photo[window].astype(np.float32)
    if target is not None and texture_mask is not None:
        coarse, textured = _warp_to_window(target, texture_mask, matrix, (left, top, right, bottom))
        pixels = pixels + textured[..., None] * (below - coarse)
    blended = below + mask[..., None] * (pixels - below)
    result[window] = np.round(np.clip(blended, 0, 255)).astype(np.uint8)
    photo_mask[window] = mask
    return result, photo_mask


def _to_lab(image: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)


def _weighted_statistics(values: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation (3,) of pixels (H, W, 3) weighted by a mask (H, W)."""
    weights = (mask / mask.sum())[..., None].astype(np.float64)
    mean = (weights * values).sum((0, 1))
    return mean, np.sqrt((weights * (values - mean) ** 2).sum((0, 1)))


def _mask_bounds(crop_mask: np.ndarray, matrix: np.ndarray, width: int, height: int) -> tuple[int, int, int, int]:
    """The rectangle (left, top, right, bottom) of the photo that holds every pixel with a mask value above 0."""
    rows, columns = np.nonzero(crop_mask.any(1))[0], np.nonzero(crop_mask.any(0))[0]
    if len(rows) == 0:
        return 0, 0, 0, 0
    margin = 2 + np.sqrt(abs(np.linalg.det(matrix[:, :2])))  # how far interpolation and averaging reach, crop pixels
    x, y = (columns[0] - margin, columns[-1] + margin), (rows[0] - margin, rows[-1] + margin)
    corners = np.array([[x[0], y[0]], [x[1], y[0]], [x[0], y[1]], [x[1], y[1]]], np.float64)
    on_photo = transform_points(corners, invert(matrix))
    left, top = np.floor(on_photo.min(0)).astype(int)
    right, bottom = np.ceil(on_photo.max(0)).astype(int) + 1
    return max(left, 0), max(top, 0), min(right, width), min(bottom, height)


def _warp_to_window(
    crop: np.ndarray, crop_mask: np.ndarray, matrix: np.ndarray, window: tuple[int, int, int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Crop and mask seen in a rectangle of the photo: pixels (h, w, 3) float32 and mask (h, w) float32."""
    left, top, right, bottom = window
    border = 2  # repeated edge pixels: without them the interpolation would mix black into the crop's rim
    shifted = np.asarray(matrix, np.float64).copy()
    shifted[:, 2] += shifted[:, :2] @ (left, top) + border
    crop = np.pad(crop.astype(np.float32), ((border, border), (border, border), (0, 0)), mode="edge")
    crop_mask = np.pad(crop_mask.astype(np.float32), border)
    pixels, mask = (uncrop(array, shifted, (right - left, bottom - top)) for array in (crop, crop_mask))
    return np.clip(pixels, 0, 255), np.clip(mask, 0, 1)
