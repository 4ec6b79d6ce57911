"""What is measured of a swap, as pure functions of arrays.

A face that was not found in a swap is a row of NaN. It counts as a failure in every rate (`closer`, `nearest`) and is
left out of means of degrees and cosines, beside which the detection rate has to be read.
"""

from collections.abc import Sequence

import cv2
import numpy as np


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows.

    Args:
        first (`np.ndarray`): (N, D).
        second (`np.ndarray`): (N, D).

    Returns:
        `np.ndarray`: (N,), NaN where a row is.
    """
    products = np.sum(first * second, axis=1)
    return products / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))


def closer_to_source(swap: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether each swap's embedding has a greater cosine to the source's than to the target's.

    Args:
        swap (`np.ndarray`): (N, D).
        source (`np.ndarray`): (N, D).
        target (`np.ndarray`): (N, D).

    Returns:
        `np.ndarray`: (N,) bool, False where the swap is NaN.
    """
    return cosines(swap, source) > cosines(swap, target)


def nearest_in_gallery(swap: np.ndarray, gallery: np.ndarray) -> np.ndarray:
    """Index of the gallery's face that has the greatest cosine to each swap.

    Args:
        swap (`np.ndarray`): (N, D).
        gallery (`np.ndarray`): (M, D), one row for each person.

    Returns:
        `np.ndarray`: (N,) int, -1 where the swap is NaN.
    """
    swap_units = swap / np.linalg.norm(swap, axis=1, keepdims=True)
    gallery_units = gallery / np.linalg.norm(gallery, axis=1, keepdims=True)
    nearest = np.argmax(np.nan_to_num(swap_units @ gallery_units.T, nan=-2.0), axis=1)
    return np.where(np.isnan(swap).any(axis=1), -1, nearest)


def pose_errors(swap: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Euclidean distance of head poses, as REFace's evaluation has it (arXiv 2409.07269, section 4).

    Args:
        swap (`np.ndarray`): (N, 3) yaw, pitch and roll in degrees.
        target (`np.ndarray`): (N, 3), the same.

    Returns:
        `np.ndarray`: (N,) degrees, NaN where a row is.
    """
    differences = (swap - target + 180) % 360 - 180
    return np.linalg.norm(differences, axis=1)


def expression_closer_to_target(swap: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether each swap's blendshapes lie nearer (Euclidean) to the target's than to the source's.

    Args:
        swap (`np.ndarray`): (N, 52) in [0, 1].
        source (`np.ndarray`): (N, 52), the same.
        target (`np.ndarray`): (N, 52), the same.

    Returns:
        `np.ndarray`: (N,) bool, False where the swap is NaN.
    """
    return np.linalg.norm(swap - target, axis=1) < np.linalg.norm(swap - source, axis=1)


def sharpness(image: np.ndarray, mask: np.ndarray) -> float:
    """Variance of the Laplacian of the grey values inside a mask.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) in [0, 1]; inside is above 0.5.

    Raises:
        ValueError: If nothing is inside.
    """
    inside = mask > 0.5
    if not inside.any():
        raise ValueError("the mask is empty: nothing to measure the sharpness of")
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F)[inside].var())


def border_colour_step(image: np.ndarray, mask: np.ndarray, band: float = 5.0) -> float:
    """Mean colour difference (CIE76) straight across a mask's border, between points `band` pixels apart.

    Each pixel at the border, where the mask passes 0.5, is compared half a band inside with half a band outside, along
    the border's normal. Points outside the picture are left out.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) in [0, 1].
        band (`float`): Width of the band in pixels.

    Returns:
        `float`: In units of CIELAB, where 2.3 is a just noticeable difference.

    Raises:
        ValueError: If the mask has no border.
    """
    inner, outer = border_points(mask, band)
    lab = cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    differences = sample_bilinear(lab, inner) - sample_bilinear(lab, outer)
    return float(np.linalg.norm(differences, axis=1).mean())


def border_points(mask: np.ndarray, band: float) -> tuple[np.ndarray, np.ndarray]:
    """Points half a band inside and half a band outside of the mask's border, pair by pair.

    Args:
        mask (`np.ndarray`): (H, W) in [0, 1].
        band (`float`): Distance of the two points of a pair in pixels.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: Inner and outer points, (N, 2) x, y, all within the picture.

    Raises:
        ValueError: If the mask has no border.
    """
    inside = (mask > 0.5).astype(np.uint8)
    if inside.all() or not inside.any():
        raise ValueError("the mask has no border: it is all inside or all outside")
    # The signed distance to the border is smooth where the mask itself may be a staircase.
    distance = cv2.distanceTransform(inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE) - cv2.distanceTransform(
        1 - inside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE
    )
    distance = cv2.GaussianBlur(np.where(inside, distance - 0.5, distance + 0.5).astype(np.float32), (0, 0), 1.5)
    slope_y, slope_x = np.gradient(distance)
    rows, columns = np.nonzero((np.abs(distance) <= 0.5) & (np.hypot(slope_x, slope_y) > 0.5))
    normals = np.stack([slope_x[rows, columns], slope_y[rows, columns]], axis=1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    border = np.stack([columns, rows], axis=1) - normals * distance[rows, columns, None]
    inner, outer = border + normals * band / 2, border - normals * band / 2
    corner = np.array(mask.shape[::-1]) - 1
    within = np.all((inner >= 0) & (inner <= corner) & (outer >= 0) & (outer <= corner), axis=1)
    if not within.any():
        raise ValueError("the mask's border runs along the picture's: no band lies within the picture")
    return inner[within], outer[within]


def sample_bilinear(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values (N, C) of a picture (H, W, C) between its pixels, at points (N, 2) x, y within it."""
    corner = np.array(image.shape[1::-1]) - 2
    base = np.clip(np.floor(points).astype(int), 0, corner)
    fraction_x, fraction_y = np.hsplit(points - base, 2)
    x, y = base.T
    top = image[y, x] * (1 - fraction_x) + image[y, x + 1] * fraction_x
    bottom = image[y + 1, x] * (1 - fraction_x) + image[y + 1, x + 1] * fraction_x
    return top * (1 - fraction_y) + bottom * fraction_y


def rate(hits: Sequence[bool] | np.ndarray) -> float:
    """Share of hits; a failure is no hit."""
    return float(np.mean(np.asarray(hits, dtype=float)))


def mean_of_detected(values: np.ndarray) -> float:
    """Mean of the values that are not NaN; NaN if all are."""
    detected = np.asarray(values, dtype=float)
    detected = detected[~np.isnan(detected)]
    return float(detected.mean()) if len(detected) else float("nan")
