"""Light on balls and faces whose light is known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces import lighting
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.landmarks import mesh_triangles
from tests.canonical_face import canonical_face, lit_face

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def sphere(count: int = 20_000) -> np.ndarray:
    """Points spread evenly over the unit sphere (Fibonacci's)."""
    index = np.arange(count) + 0.5
    height, turn = 1 - 2 * index / count, np.pi * (1 + 5**0.5) * index
    radius = np.sqrt(1 - height**2)
    return np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)


def test_harmonics_are_orthonormal():
    basis = lighting.harmonics(sphere())
    np.testing.assert_allclose(4 * np.pi * basis.T @ basis / len(basis), np.eye(9), atol=2e-3)


def test_harmonics_at_the_poles_by_hand():
    (towards_viewer,) = lighting.harmonics(np.array([[0.0, 0.0, 1.0]]))
    expected = [0.282095, 0, 0.488603, 0, 0, 0, 0.630784, 0, 0]
    np.testing.assert_allclose(towards_viewer, expected, atol=1e-6)


def test_a_known_light_is_found_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lighting, "PENALTY", np.zeros((9, 9)))
    normals = sphere(2000)
    normals = normals[normals[:, 2] > 0]
    light = np.array([3.0, 0.3, 0.9, -0.6, 0.1, 0.05, 0.2, -0.1, 0.15])
    brightness = 40 * lighting.harmonics(normals) @ light
    fitted = lighting.fit_light(normals, brightness, np.ones(len(normals)))
    np.testing.assert_allclose(fitted / fitted[0], light / light[0], rtol=1e-6)


@pytest.mark.parametrize("direction", [(0.6, 0.0, 0.8), (0.0, 0.6, 0.8), (-0.48, 0.36, 0.8)])
def test_the_direction_of_a_lamp_is_found(direction: tuple[float, float, float]):
    normals = sphere(2000)
    normals = normals[normals[:, 2] > 0]
    brightness = 0.5 + np.clip(normals @ direction, 0, None)
    light = lighting.fit_light(normals, brightness, np.ones(len(normals)))
    x, y = light[3], light[1]
    assert np.arctan2(y, x) == pytest.approx(np.arctan2(direction[1], direction[0]), abs=0.03)


def test_shading_by_hand():
    normals = np.array([[0.0, 0, 1], [1, 0, 0], [-1, 0, 0], [0, 0.6, 0.8]])
    even, side = np.zeros(9), np.zeros(9)
    even[0] = 1 / 0.282095
    side[0], side[3] = 1 / 0.282095, 0.5 / 0.488603  # from the right: half as bright again, and half as bright
    above = even.copy()
    above[1] = 1 / 0.488603
    np.testing.assert_allclose(lighting.shading(even, normals), [1, 1, 1, 1])
    np.testing.assert_allclose(lighting.shading(side, normals), [1, 1.5, 0.5, 1])
    np.testing.assert_allclose(lighting.shading(above, normals), [1, 1, 1, 1.6])
    np.testing.assert_allclose(lighting.shading(2 * side - even, normals)[2], lighting.DARKEST)  # 0 is too dark
    np.testing.assert_allclose(lighting.shading(np.full(9, np.nan), normals), [1, 1, 1, 1])


def test_a_light_is_fitted_to_the_skin_that_counts():
    face, light = canonical_face(), np.array([3.0, 0.1, 0.2, 0.5, 0, 0, 0, 0, 0])
    picture = lit_face(face, light)
    stained = picture.copy()
    stained[150:, :] = 10  # a beard
    beardless = np.ones(picture.shape[:2], np.float32)
    beardless[140:] = 0
    wanted, told, untold = (
        lighting.face_light(*shown)
        for shown in (
            (picture, face.landmarks, face.depth, beardless),
            (stained, face.landmarks, face.depth, beardless),
            (stained, face.landmarks, face.depth),
        )
    )
    assert lighting.light_angles(told[None], wanted[None])[0] < 2
    assert lighting.light_angles(untold[None], wanted[None])[0] > 30
    assert np.isnan(lighting.face_light(picture, face.landmarks, face.depth, np.zeros(picture.shape[:2]))).all()


def test_angles_and_energies_by_hand():
    first, second = np.zeros((3, 9)), np.zeros((3, 9))
    first[:, 0] = second[:, 0] = 2.0
    first[0, 3], second[0, 1] = 1.0, 1.0  # from the right, from above
    first[1, 3], second[1, 3] = 1.0, 3.0
    first[2] = np.nan
    second[2, 3] = 1.0
    np.testing.assert_allclose(lighting.light_angles(first, second), [90, 0, np.nan], atol=1e-6)
    np.testing.assert_allclose(lighting.light_energy(second[:2]), [0.5, 1.5])
    np.testing.assert_allclose(lighting.light_energy_errors(first, second), [0, 1, np.nan])


def test_triangles_face_outwards_and_have_areas():
    points = np.array([[0.0, 0, 0], [2, 0, 0], [0, 3, 0], [0, 0, 4]])
    normals, areas = lighting.triangle_normals(points, np.array([[0, 1, 2], [0, 2, 1], [0, 2, 3]]))
    np.testing.assert_allclose(normals, [[0, 0, 1], [0, 0, -1], [1, 0, 0]])
    np.testing.assert_allclose(areas, [3, 3, 6])


def test_a_face_lit_from_one_side_is_told_from_its_mirror_image():
    image = np.asarray(Image.open(IMAGES / "p010_portrait.jpg").convert("RGB"))
    analyzer = MeshFaceAnalyzer()
    (face,) = analyzer.analyze(image)
    assert face.depth is not None
    centre = face.landmarks.mean(axis=0)
    ramp = np.clip(1 + 0.6 * (np.arange(image.shape[1]) - centre[0]) / np.ptp(face.landmarks[:, 0]), 0.3, 1.7)
    shaded = [np.clip(image * side[None, :, None], 0, 255).astype(np.uint8) for side in (ramp, 2 - ramp)]
    right, left = (lighting.face_light(picture, face.landmarks, face.depth) for picture in shaded)
    assert right[3] > 0.3
    assert left[3] < -0.3
    assert lighting.light_angles(right[None], left[None])[0] > 35
    darker = lighting.face_light((shaded[0] * 0.9).astype(np.uint8), face.landmarks, face.depth)
    assert lighting.light_angles(right[None], darker[None])[0] < 3
    assert lighting.light_energy_errors(right[None], darker[None])[0] < 0.02


def test_a_face_out_of_the_picture_has_no_light():
    landmarks = np.random.default_rng(0).uniform(500, 600, (478, 2))
    assert np.isnan(lighting.face_light(np.zeros((64, 64, 3), np.uint8), landmarks, np.zeros(478))).all()


def test_triangles_of_the_mesh():
    triangles = mesh_triangles()
    assert triangles.shape == (898, 3)
    assert triangles.min() == 0
    assert set(triangles.ravel()) == set(range(468))
