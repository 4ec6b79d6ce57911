"""The light on a face: second-order spherical harmonics of the mesh's normals, fitted to the brightness of the skin.

Nine coefficients describe at least 98 % of the effect of any distant light on a matte surface (Basri and Jacobs,
"Lambertian Reflectance and Linear Subspaces", 2003). The basis as polynomials of the normal is from Ramamoorthi and
Hanrahan, 2001.
"""

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import sample_bilinear
from faceswap_diffusion.faces.landmarks import mesh_triangles
from faceswap_diffusion.faces.mesh_topology import NOT_SKIN_478

LEAST_FACING = 0.15  # triangles whose cosine of normal and view is smaller are too oblique to measure
RIDGE = 0.01  # light directions of ten faces and noisy copies differ by 2 degrees, of the faces by 47; without: 5, 75
# A matte surface scales the light's first order by 2/3 pi and its second order by 1/4 pi (Basri and Jacobs, equation
# 9), so the prior on the second order is narrower by the same ratio.
PENALTY = RIDGE * np.diag([0.0] + [1.0] * 3 + [(8 / 3) ** 2] * 5)
DARKEST = 0.2
"""Minimal shading, relative to the mean: the fit is unreliable where hardly any light arrives."""
LUMINANCE = np.array([0.2126, 0.7152, 0.0722])


def harmonics(normals: np.ndarray) -> np.ndarray:
    """The nine real spherical harmonics up to second order, orthonormal on the sphere.

    Args:
        normals (`np.ndarray`): (N, 3) of unit length.

    Returns:
        `np.ndarray`: (N, 9), in the order Y00, Y1-1 (y), Y10 (z), Y11 (x), Y2-2, Y2-1, Y20, Y21, Y22.
    """
    x, y, z = normals.T
    return np.stack(
        [
            np.full_like(x, 0.282095),
            0.488603 * y,
            0.488603 * z,
            0.488603 * x,
            1.092548 * x * y,
            1.092548 * y * z,
            0.315392 * (3 * z**2 - 1),
            1.092548 * x * z,
            0.546274 * (x**2 - y**2),
        ],
        axis=1,
    )


def fit_light(normals: np.ndarray, brightness: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Fits the light by weighted ridge regression, after dividing the brightness by its mean.

    Only normals that face the viewer are seen. On that half of the sphere some harmonics are nearly collinear; the
    penalty keeps their coefficients from growing with opposite signs.

    Args:
        normals (`np.ndarray`): (N, 3) of unit length.
        brightness (`np.ndarray`): (N,), linear.
        weights (`np.ndarray`): (N,), not negative.

    Returns:
        `np.ndarray`: (9,) coefficients, see `harmonics`. They are independent of the brightness of skin and light.
    """
    weights = weights / weights.sum()
    basis = harmonics(normals)
    moments = basis.T @ (weights * brightness / (weights @ brightness))
    return np.linalg.solve(basis.T @ (weights[:, None] * basis) + PENALTY, moments)


def shading(light: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """Brightness of a matte surface in a light, relative to the mean over the face.

    Args:
        light (`np.ndarray`): (9,), see `harmonics`. NaN means unknown light, which shades nothing.
        normals (`np.ndarray`): (N, 3) of unit length.

    Returns:
        `np.ndarray`: (N,), at least `DARKEST`.
    """
    if np.isnan(light).any():
        return np.ones(len(normals))
    return np.maximum(harmonics(normals) @ light, DARKEST)


def triangle_normals(points: np.ndarray, triangles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Normals (T, 3) of unit length and areas (T,) of triangles (T, 3) over points (P, 3)."""
    a, b, c = points[triangles].transpose(1, 0, 2)
    normals = np.cross(b - a, c - a)
    lengths = np.linalg.norm(normals, axis=1)
    return normals / lengths[:, None], lengths / 2


def face_light(
    image: np.ndarray, landmarks: np.ndarray, depth: np.ndarray, skin: np.ndarray | None = None
) -> np.ndarray:
    """Fits the light to the skin of a face, in the camera's axes: x right, y up, z towards the viewer.

    Args:
        image (`np.ndarray`): (H, W, 3) uint8 RGB.
        landmarks (`np.ndarray`): (478, 2) mesh points in pixels.
        depth (`np.ndarray`): (478,) in pixels, smaller is nearer.
        skin (`np.ndarray`, *optional*): (H, W) in [0, 1], which skin is used; all of it if left out.

    Returns:
        `np.ndarray`: (9,), see `harmonics`; NaN if too little skin is visible.
    """
    triangles = mesh_triangles()
    triangles = triangles[~np.isin(triangles, list(NOT_SKIN_478)).any(axis=1)]
    normals, areas = triangle_normals(np.column_stack([landmarks, depth]) * [1, -1, -1], triangles)
    centres = landmarks[triangles].mean(axis=1)
    seen = (normals[:, 2] > LEAST_FACING) & np.all((centres >= 0) & (centres <= np.subtract(image.shape[1::-1], 1)), 1)
    if skin is not None:
        seen &= sample_bilinear(skin[..., None], centres)[:, 0] > 0.5
    if seen.sum() < 9 * 4:
        return np.full(9, np.nan)
    brightness = sample_bilinear(_smoothed_luminance(image, landmarks), centres[seen])[:, 0]
    return fit_light(normals[seen], brightness, areas[seen] * normals[seen, 2])


def _smoothed_luminance(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Linear luminance (H, W, 1), blurred by a fiftieth of the face's height."""
    values = image.astype(np.float32) / 255
    linear = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    return cv2.GaussianBlur(linear @ LUMINANCE, (0, 0), max(0.5, np.ptp(landmarks[:, 1]) / 50))[..., None]


def light_angles(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Angle (N,) in degrees between the main directions (first-order coefficients) of lights (N, 9)."""
    x, y = first[:, 1:4], second[:, 1:4]
    cosines = np.sum(x * y, axis=1) / (np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1))
    return np.degrees(np.arccos(np.clip(cosines, -1, 1)))


def light_energy(light: np.ndarray) -> np.ndarray:
    """Strength (N,) of the shading of lights (N, 9): the varying part relative to the constant part."""
    return np.linalg.norm(light[:, 1:], axis=1) / np.abs(light[:, 0])


def light_energy_errors(swap: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Absolute difference (N,) in shading strength of lights (N, 9); NaN where an input row is NaN."""
    return np.abs(light_energy(swap) - light_energy(target))
