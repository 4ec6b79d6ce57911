"""Aligned crops: the FFHQ square, the ArcFace template, and warping a photo to a crop and back.

A `matrix` is `(2, 3)` float64 and maps photo pixels to crop pixels. Pixel centres lie at integers, as in OpenCV.
"""

import cv2
import numpy as np
from PIL import Image

# The 112 px template of ArcFace (Deng and others, 2019): left eye, right eye, nose, left and right mouth corner.
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

# Mesh points around each eye, the nose tip and the mouth corners, left as the viewer sees it.
_LEFT_EYE, _RIGHT_EYE = [33, 160, 158, 133, 153, 144], [362, 385, 387, 263, 373, 380]
_NOSE_TIP, _LEFT_MOUTH, _RIGHT_MOUTH = 4, 61, 291


def keypoints_from_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Reduces the 478 mesh points to eye centres, nose tip and mouth corners.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): Mesh points in pixels.

    Returns:
        `np.ndarray` of shape `(5, 2)`: Left eye, right eye, nose, left and right mouth corner (viewer's left).
    """
    eyes = [landmarks[_LEFT_EYE].mean(axis=0), landmarks[_RIGHT_EYE].mean(axis=0)]
    return np.stack([*eyes, landmarks[_NOSE_TIP], landmarks[_LEFT_MOUTH], landmarks[_RIGHT_MOUTH]])


def ffhq_matrix(landmarks68: np.ndarray, size: int) -> np.ndarray:
    """Computes the similarity that crops a face as FFHQ does: an oriented square from the eyes and the mouth.

    Karras and others, "A Style-Based Generator Architecture for Generative Adversarial Networks", 2019, appendix A.

    Args:
        landmarks68 (`np.ndarray` of shape `(68, 2)`): Points in dlib's order, in photo pixels.
        size (`int`): Side of the crop in pixels.

    Returns:
        `np.ndarray` of shape `(2, 3)`: Photo pixels to crop pixels.
    """
    left_eye, right_eye = landmarks68[36:42].mean(axis=0), landmarks68[42:48].mean(axis=0)
    eyes, mouth = (left_eye + right_eye) / 2, (landmarks68[48] + landmarks68[54]) / 2
    eye_to_eye, eye_to_mouth = right_eye - left_eye, mouth - eyes
    x_axis = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    half = x_axis / np.hypot(*x_axis) * max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    return _square_matrix(eyes + eye_to_mouth * 0.1, half, size)


def _square_matrix(centre: np.ndarray, half: np.ndarray, size: int) -> np.ndarray:
    """Maps the square around `centre` to a crop of `size` px; `half` is half of its side, as a vector along its x."""
    x, y = half * (size / 2) / (half @ half)
    linear = np.array([[x, y], [-y, x]])
    middle = (size - 1) / 2  # the crop's pixels cover [-0.5, size - 0.5]
    return np.column_stack([linear, middle - linear @ centre])


def arcface_matrix(keypoints: np.ndarray, size: int = 112) -> np.ndarray:
    """Fits the similarity from five keypoints to the ArcFace template by least squares.

    Args:
        keypoints (`np.ndarray` of shape `(5, 2)`): Eyes, nose, mouth corners in photo pixels, viewer's left first.
        size (`int`, defaults to 112): Side of the crop in pixels.

    Returns:
        `np.ndarray` of shape `(2, 3)`: Photo pixels to crop pixels.
    """
    template = ARCFACE_TEMPLATE * (size / 112)
    source, target = keypoints - keypoints.mean(axis=0), template - template.mean(axis=0)
    # With points as complex numbers, a similarity without reflection is one factor, fitted by a quotient.
    source_z, target_z = source @ [1, 1j], target @ [1, 1j]
    factor = np.vdot(source_z, target_z) / np.vdot(source_z, source_z)
    linear = np.array([[factor.real, -factor.imag], [factor.imag, factor.real]])
    return np.column_stack([linear, template.mean(axis=0) - linear @ keypoints.mean(axis=0)])


def invert(matrix: np.ndarray) -> np.ndarray:
    """Inverts an affine map.

    Args:
        matrix (`np.ndarray` of shape `(2, 3)`): The map.

    Returns:
        `np.ndarray` of shape `(2, 3)`: The map back.
    """
    linear = np.linalg.inv(matrix[:, :2])
    return np.column_stack([linear, -linear @ matrix[:, 2]])


def resized_matrix(matrix: np.ndarray, size: int, new_size: int) -> np.ndarray:
    """Adapts the map to a crop to another size of the same crop.

    Args:
        matrix (`np.ndarray` of shape `(2, 3)`): Photo pixels to pixels of a crop of `size`.
        size (`int`): Its side in pixels.
        new_size (`int`): The other side in pixels.

    Returns:
        `np.ndarray` of shape `(2, 3)`: Photo pixels to pixels of a crop of `new_size`.
    """
    scale = new_size / size
    return np.column_stack([matrix[:, :2] * scale, (matrix[:, 2] + 0.5) * scale - 0.5])


def transform_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Maps points by an affine map.

    Args:
        points (`np.ndarray` of shape `(..., 2)`): x, y in pixels.
        matrix (`np.ndarray` of shape `(2, 3)`): The map.

    Returns:
        `np.ndarray` of shape `(..., 2)`: The mapped points.
    """
    return points @ matrix[:, :2].T + matrix[:, 2]


def sample_bilinear(image: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Samples a picture (H, W, C) bilinearly at points (N, 2), x and y inside it; returns (N, C)."""
    corner = np.array(image.shape[1::-1]) - 2
    base = np.clip(np.floor(points).astype(int), 0, corner)
    fraction_x, fraction_y = np.hsplit(points - base, 2)
    x, y = base.T
    top = image[y, x] * (1 - fraction_x) + image[y, x + 1] * fraction_x
    bottom = image[y + 1, x] * (1 - fraction_x) + image[y + 1, x + 1] * fraction_x
    return top * (1 - fraction_y) + bottom * fraction_y


def crop(image: np.ndarray, matrix: np.ndarray, size: int, border: int = cv2.BORDER_REFLECT_101) -> np.ndarray:
    """Cuts an aligned crop out of a photo, anti-aliased.

    Args:
        image (`np.ndarray` of shape `(H, W, 3)` or `(H, W)`, uint8 or float32): The photo, RGB.
        matrix (`np.ndarray` of shape `(2, 3)`): Photo pixels to crop pixels.
        size (`int`): Side of the crop in pixels.
        border (`int`, defaults to `cv2.BORDER_REFLECT_101`): OpenCV's border mode for pixels outside the photo. The
            default mirrors the photo, as in FFHQ.

    Returns:
        `np.ndarray` of shape `(size, size, 3)` or `(size, size)`, of the photo's type: The crop.
    """
    return _warp(image, matrix, (size, size), border)


def uncrop(crop_array: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Warps a crop back to its place in the photo; the rest is 0.

    Args:
        crop_array (`np.ndarray` of shape `(S, S, C)` or `(S, S)`, uint8 or float32): The crop.
        matrix (`np.ndarray` of shape `(2, 3)`): Photo pixels to crop pixels, as for [`crop`].
        size (`tuple[int, int]`): Width and height of the photo in pixels.

    Returns:
        `np.ndarray` of shape `(height, width, C)` or `(height, width)`, of the crop's type.
    """
    return _warp(crop_array, invert(matrix), size, cv2.BORDER_CONSTANT)


def _warp(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], border: int) -> np.ndarray:
    """Warps by `matrix` (image pixels to output pixels) to `size` (width, height), anti-aliased when it shrinks.

    On the way to a crop of the same resolution and back, box and cubic filters lose 60 % of the variance of a photo's
    Laplacian, and Lanczos filters 25 %.
    """
    image, matrix = _cut_to_footprint(image, matrix, size)
    scale = abs(np.linalg.det(matrix[:, :2])) ** 0.5
    if scale < 1:
        height, width = image.shape[:2]
        small = (max(1, round(width * scale)), max(1, round(height * scale)))
        image = _shrink(image, small)
        matrix = _after_resize(matrix, np.divide((width, height), small))
    return cv2.warpAffine(image, matrix, size, flags=cv2.INTER_LANCZOS4, borderMode=border)


def _shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Shrinks to `size` (width, height) with a filter that is scaled to the new pixels."""
    planes = [image] if image.ndim == 2 or image.dtype == np.uint8 else np.moveaxis(image, 2, 0)
    resized = [np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.LANCZOS)) for plane in planes]
    return resized[0] if len(resized) == 1 else np.stack(resized, axis=2)


def _after_resize(matrix: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Adapts a map to an image whose pixels each cover `factor` (x, y) of the old pixels."""
    linear = matrix[:, :2] * factor
    return np.column_stack([linear, matrix[:, :2] @ ((factor - 1) / 2) + matrix[:, 2]])


def _cut_to_footprint(
    image: np.ndarray, matrix: np.ndarray, size: tuple[int, int], margin: int = 8
) -> tuple[np.ndarray, np.ndarray]:
    """Cuts the image to what the output shows: it is faster, and OpenCV refuses images larger than 32,767 px."""
    height, width = image.shape[:2]
    corners = np.array([[0, 0], [size[0], 0], [0, size[1]], [size[0], size[1]]], dtype=np.float64)
    corners = transform_points(corners, invert(matrix))
    pixel = abs(np.linalg.det(matrix[:, :2])) ** -0.5
    reach = margin * max(1.0, pixel)
    low = np.clip(np.floor(corners.min(axis=0) - reach), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0) + reach), low + 1, (width, height)).astype(int)
    matrix = np.column_stack([matrix[:, :2], matrix[:, :2] @ low + matrix[:, 2]])
    return image[low[1] : high[1], low[0] : high[0]], matrix
