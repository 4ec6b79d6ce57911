import zipfile

import numpy as np
import pytest

from faceswap_diffusion.faces.head_pose import HeadPoseFit, euler_angles, read_texture_coordinates
from faceswap_diffusion.weights.registry import model_path


@pytest.fixture(scope="module")
def fit():
    with zipfile.ZipFile(model_path("face_landmarker")) as task:
        return HeadPoseFit.from_metadata(task.read("geometry_pipeline_metadata_landmarks.binarypb"))


def seen(points):
    """What the mesh of a canonical face would be: y down, depth away from the viewer."""
    return points * [1, -1, -1]


def about(axis, degrees):
    """Rotation about an axis of x right, y up, z towards the viewer, counter-clockwise as seen against the axis."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = [(1, 2), (2, 0), (0, 1)]["xyz".index(axis)]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = c
    matrix[first, second], matrix[second, first] = -s, s
    return matrix


def test_canonical_face_is_read_whole(fit):
    assert fit.points.shape == (468, 3)
    assert len(fit.indices) == len(fit.weights) == 33
    assert fit.weights[fit.indices == 4] == pytest.approx(0.0709, abs=1e-4)
    # Point 33 and 263 are the outer eye corners, 4 the tip of the nose, 152 the chin.
    assert fit.points[33] == pytest.approx([-4.446, 2.664, 3.173], abs=1e-3)
    assert fit.points[33] * [-1, 1, 1] == pytest.approx(fit.points[263])
    assert fit.points[4, 2] == fit.points[:, 2].max()
    assert fit.points[152, 1] == pytest.approx(fit.points[:, 1].min(), abs=0.01)


def test_texture_coordinates_are_the_canonical_face_laid_flat(fit):
    with zipfile.ZipFile(model_path("face_landmarker")) as task:
        uv = read_texture_coordinates(task.read("geometry_pipeline_metadata_landmarks.binarypb"))
    assert uv.shape == (468, 2)
    assert uv.min() >= 0
    assert uv.max() <= 1
    assert np.corrcoef(uv[:, 0], fit.points[:, 0])[0, 1] > 0.95  # u to the viewer's right
    assert np.corrcoef(uv[:, 1], fit.points[:, 1])[0, 1] < -0.95  # v down
    middle = np.abs(fit.points[:, 0]) < 1e-3
    np.testing.assert_allclose(uv[middle, 0], 0.5, atol=2e-3)


def test_canonical_face_has_no_pose(fit):
    assert fit(seen(fit.points)) == pytest.approx([0, 0, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("rotation", "expected"),
    [
        (about("y", 30), (30, 0, 0)),  # the nose goes to the viewer's right
        (about("x", -20), (0, 20, 0)),  # the nose goes up
        (about("z", -40), (0, 0, 40)),  # clockwise as the viewer sees it
        (about("z", 170) @ about("y", -50) @ about("x", 15), (-50, -15, -170)),
    ],
)
def test_known_rotations(fit, rotation, expected):
    mesh = seen(7.5 * fit.points @ rotation.T + [300, -200, 50])
    assert fit.rotation(mesh) == pytest.approx(rotation, abs=1e-9)
    assert fit(mesh) == pytest.approx(expected, abs=1e-6)


def test_signs_by_where_the_nose_points():
    nose = np.array([0.0, 0.0, 1.0])
    assert (about("y", 30) @ nose)[0] > 0
    assert euler_angles(about("y", 30))[0] > 0
    assert (about("x", -20) @ nose)[1] > 0
    assert euler_angles(about("x", -20))[1] > 0
    # The top of a head that is rolled clockwise leans to the viewer's right.
    assert (about("z", -40) @ [0, 1, 0])[0] > 0
    assert euler_angles(about("z", -40))[2] > 0


def test_expression_moves_the_pose_little(fit):
    mesh = seen(fit.points @ about("y", 20).T)
    opened = mesh.copy()
    opened[fit.points[:, 1] < -5] += [0, 2.5, 0]  # the jaw drops by 2.5 cm
    assert fit(opened) == pytest.approx(fit(mesh), abs=4)


def test_a_reflection_is_never_returned(fit):
    mirrored = seen(fit.points * [1, 1, -1])
    assert np.linalg.det(fit.rotation(mirrored)) == pytest.approx(1)
