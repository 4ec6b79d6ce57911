"""Metrics of swaps, as pure functions of arrays.

A swap without a detected face is a row of NaN. It counts as a failure in every rate (`closer`, `rank`, `within`).
Errors, such as angles, are NaN for it; the report gives the number of swaps that a mean was taken over.
"""

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import sample_bilinear
from faceswap_diffusion.faces.mesh_topology import BLENDSHAPE_NAMES

GAZE = [index for index, name in enumerate(BLENDSHAPE_NAMES) if name.startswith("eyeLook")]
EXPRESSION = [index for index, name in enumerate(BLENDSHAPE_NAMES) if name != "_neutral"]
OUTER_EYE_CORNERS_68 = (36, 45)
INNER_LIPS_68 = (62, 66)
NOT_FOUND = np.iinfo(np.int64).max
"""Rank of a person who cannot be found; a failure for any size of gallery."""

IDENTICAL_PSNR = 100.0
"""Value in means for the PSNR of two equal pictures, which is infinite."""


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Cosine of each pair of rows.

    Args:
        first (`np.ndarray`): (N, D).
        second (`np.ndarray`): (N, D).

    Returns:
        `np.ndarray`: (N,), NaN where a row is NaN.
    """
    products = np.sum(first * second, axis=1)
    return products / (np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1))


def closer_to_source(swap: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether the cosine of each swap's embedding is larger to the source than to the target.

    Args:
        swap (`np.ndarray`): (N, D).
        source (`np.ndarray`): (N, D).
        target (`np.ndarray`): (N, D).

    Returns:
        `np.ndarray`: (N,) bool, False where the swap is NaN.
    """
    return cosines(swap, source) > cosines(swap, target)


def rank_in_gallery(swap: np.ndarray, gallery: np.ndarray, people: np.ndarray, rows: int = 1024) -> np.ndarray:
    """Rank of a person in a gallery by cosine to each swap: 0 is top-1, less than 5 is top-5.

    Identity retrieval as in REFace (arXiv 2409.07269, section 4). The gallery is read in blocks of `rows`.

    Args:
        swap (`np.ndarray`): (N, D).
        gallery (`np.ndarray`): (M, D), one row for each person; rows of NaN are ignored.
        people (`np.ndarray`): (N,) int, the gallery row to find; negative if it is not in the gallery.
        rows (`int`): Size of a block.

    Returns:
        `np.ndarray`: (N,) int, `NOT_FOUND` where the swap is NaN or the person is not in the gallery.
    """
    swap_units = _units(swap)
    wanted = np.sum(swap_units * _units(gallery[people]), axis=1)  # (N,)
    more_alike = np.zeros(len(swap), int)
    for start in range(0, len(gallery), rows):
        cosines_of_block = swap_units @ _units(gallery[start : start + rows]).T  # (N, rows)
        # The wanted face itself must not count, and its cosine may differ in the last digits here.
        is_wanted = people[:, None] == np.arange(start, min(start + rows, len(gallery)))
        more_alike += ((cosines_of_block > wanted[:, None]) & ~is_wanted).sum(axis=1)
    return np.where(np.isnan(wanted) | (people < 0), NOT_FOUND, more_alike)


def _units(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pose_errors(swap: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Euclidean distance of head poses, as in REFace's evaluation (arXiv 2409.07269, section 4).

    Args:
        swap (`np.ndarray`): (N, 3) yaw, pitch and roll in degrees.
        target (`np.ndarray`): (N, 3), the same.

    Returns:
        `np.ndarray`: (N,) degrees, NaN where a row is NaN.
    """
    differences = (swap - target + 180) % 360 - 180
    return np.linalg.norm(differences, axis=1)


def rotation_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle of the rotation between two head rotations. It does not depend on conventions for yaw, pitch and roll.

    Args:
        first (`np.ndarray`): (N, 3, 3).
        second (`np.ndarray`): (N, 3, 3).

    Returns:
        `np.ndarray`: (N,) degrees, NaN where a matrix is NaN.
    """
    traces = np.einsum("nij,nij->n", first, second)
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def mean_absolute_difference(first: np.ndarray, second: np.ndarray, columns: list[int]) -> np.ndarray:
    """Mean L1 distance of chosen blendshapes: `EXPRESSION` (all but the neutral one) or `GAZE`.

    Args:
        first (`np.ndarray`): (N, 52) in [0, 1].
        second (`np.ndarray`): (N, 52), the same.
        columns (`list[int]`): Indices of the blendshapes.

    Returns:
        `np.ndarray`: (N,) in [0, 1], NaN where a row is NaN.
    """
    return np.abs(first[:, columns] - second[:, columns]).mean(axis=1)


def eye_distance(landmarks68: np.ndarray) -> np.ndarray:
    """Distance (N,) in pixels between the outer corners of the eyes, from landmarks (N, 68, 2)."""
    left, right = OUTER_EYE_CORNERS_68
    return np.linalg.norm(landmarks68[:, left] - landmarks68[:, right], axis=1)


def landmark_errors(swap: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Mean distance of 68 landmarks relative to the target's eye distance, as in the 300-W challenge.

    Args:
        swap (`np.ndarray`): (N, 68, 2) pixels.
        target (`np.ndarray`): (N, 68, 2) pixels of the same photo.

    Returns:
        `np.ndarray`: (N,) in units of the eye distance, NaN where a face is NaN.
    """
    return np.linalg.norm(swap - target, axis=2).mean(axis=1) / eye_distance(target)


def mouth_opening_errors(swap: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Difference of the gaps between the inner lips, each relative to the eye distance of its face.

    Args:
        swap (`np.ndarray`): (N, 68, 2) pixels.
        target (`np.ndarray`): (N, 68, 2) pixels.

    Returns:
        `np.ndarray`: (N,), not negative, NaN where a face is NaN.
    """
    upper, lower = INNER_LIPS_68
    gaps = [np.linalg.norm(face[:, upper] - face[:, lower], axis=1) / eye_distance(face) for face in (swap, target)]
    return np.abs(gaps[0] - gaps[1])


def color_differences(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """CIE76 difference (N,) of colours (N, 3) in CIELAB, where 2.3 is just noticeable; NaN where a row is NaN."""
    return np.linalg.norm(first - second, axis=1)


def expression_closer_to_target(swap: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Whether the Euclidean distance of each swap's blendshapes is smaller to the target than to the source.

    Args:
        swap (`np.ndarray`): (N, 52) in [0, 1].
        source (`np.ndarray`): (N, 52), the same.
        target (`np.ndarray`): (N, 52), the same.

    Returns:
        `np.ndarray`: (N,) bool, False where the swap is NaN.
    """
    return np.linalg.norm(swap - target, axis=1) < np.linalg.norm(swap - source, axis=1)


def sharpness(image: np.ndarray, mask: np.ndarray) -> float:
    """Sharpness inside a mask: variance of the Laplacian of grey values.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) in [0, 1]; inside is above 0.5.

    Raises:
        ValueError: If nothing is inside.
    """
    inside = mask > 0.5
    if not inside.any():
        raise ValueError("the mask is empty: there is nothing to measure")
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F)[inside].var())


def border_colour_step(image: np.ndarray, mask: np.ndarray, band: float = 5.0) -> float:
    """Mean colour difference (CIE76) across a mask's border, between points that are `band` pixels apart.

    At each pixel of the border (where the mask crosses 0.5), the colour half a band inside is compared with the colour
    half a band outside, along the border's normal. Points outside the picture are left out.

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
    """Pairs of points half a band inside and half a band outside a mask's border.

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
    # The signed distance to the border is smooth even if the mask is a staircase.
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
        raise ValueError("the mask's border is the picture's border: there is nothing to compare it with")
    return inner[within], outer[within]


def mean_color(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean colour inside a mask, in CIELAB.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) in [0, 1]; inside is above 0.5.

    Returns:
        `np.ndarray`: (3,) L*, a*, b*; NaN if nothing is inside.
    """
    inside = mask > 0.5
    if not inside.any():
        return np.full(3, np.nan)
    return cv2.cvtColor(image.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[inside].mean(axis=0)


def background_psnr(swap: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Peak signal-to-noise ratio of 8-bit pictures outside a mask.

    Args:
        swap (`np.ndarray`): (H, W, 3) uint8 RGB.
        target (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) in [0, 1]; outside is where it is 0.

    Returns:
        `float`: Decibels; `IDENTICAL_PSNR` if nothing differs.
    """
    return psnr(swap, target, mask == 0)


def psnr(first: np.ndarray, second: np.ndarray, where: np.ndarray) -> float:
    """Peak signal-to-noise ratio of a part of 8-bit pictures.

    Args:
        first (`np.ndarray`): (H, W, 3) uint8 RGB.
        second (`np.ndarray`): (H, W, 3) uint8 RGB.
        where (`np.ndarray`): (H, W) bool, the part to compare.

    Returns:
        `float`: Decibels; `IDENTICAL_PSNR` if nothing differs.
    """
    error = np.mean((first[where].astype(np.float64) - second[where]) ** 2) if where.any() else 0.0
    return IDENTICAL_PSNR if error == 0 else float(10 * np.log10(255**2 / error))


def background_ssim(swap: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """Structural similarity (Wang and others, 2004) outside a mask.

    Inside the mask, the swap's pixels are replaced by the target's, so that no window contains the face.

    Args:
        swap (`np.ndarray`): (H, W, 3) uint8 RGB, H and W at least 7.
        target (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) in [0, 1]; outside is where it is 0.

    Returns:
        `float`: At most 1; 1 means equal.
    """
    from skimage.metrics import structural_similarity  # of the extra `eval`

    outside = mask == 0
    seen = with_target_inside(swap, target, mask)
    if not outside.any() or np.array_equal(seen, target):
        return 1.0
    similarity = structural_similarity(seen, target, channel_axis=2, full=True)[1]
    return float(np.mean(similarity[outside]))


def with_target_inside(swap: np.ndarray, target: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The swap outside a mask and the target inside, where the mask is above 0; only the background can differ."""
    return np.where(mask[..., None] == 0, swap, target)
