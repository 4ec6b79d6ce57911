import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.landmarks import (
    BLENDSHAPE_NAMES,
    DLIB68_FROM_MESH,
    FaceMesh,
    dlib68,
    with_irises_in_eyes,
)
from faceswap_diffusion.faces.mesh_topology import BLENDSHAPE_POINTS, EYES_478


@pytest.fixture(scope="module")
def analyzer():
    return MeshFaceAnalyzer()


@pytest.fixture(scope="module")
def images(example_images):
    return {path.stem: np.asarray(Image.open(path)) for path in example_images.glob("*.jpg")}


@pytest.fixture(scope="module")
def faces(analyzer, images):
    """The face of every example picture that shows one."""
    found = {name: analyzer.analyze(image) for name, image in images.items() if name != "group"}
    assert all(len(group) == 1 for group in found.values())
    return {name: group[0] for name, group in found.items()}


def shape(face, name):
    return face.blendshapes[BLENDSHAPE_NAMES.index(name)]


def test_tables():
    assert len(BLENDSHAPE_NAMES) == len(set(BLENDSHAPE_NAMES)) == 52
    assert BLENDSHAPE_NAMES[44:46] == ("mouthSmileLeft", "mouthSmileRight")
    assert BLENDSHAPE_POINTS.shape == (146,)
    assert np.all(np.diff(BLENDSHAPE_POINTS) > 0)
    assert DLIB68_FROM_MESH.shape == (68,)
    assert len(set(DLIB68_FROM_MESH)) == 68
    assert dlib68(np.arange(478))[[8, 30, 48, 54]].tolist() == [152, 4, 61, 291]


def test_landmarks68_lie_as_dlib_orders_them(faces):
    points = faces["p001_portrait"].landmarks68
    jaw, brows, nose, eyes, lips = np.split(points, [17, 27, 36, 48])
    assert np.all(np.diff(jaw[2:15, 0]) > 0)  # from the viewer's left to right
    assert np.argmax(jaw[:, 1]) == 8  # the chin is the lowest
    assert np.all(np.diff(brows[:, 0]) > 0)
    assert brows[:, 1].max() < eyes[:, 1].min()
    assert np.all(np.diff(nose[:4, 1]) > 0)
    assert np.all(np.diff(nose[4:, 0]) > 0)
    for eye in (eyes[:6], eyes[6:]):
        assert np.argmin(eye[:, 0]) == 0
        assert np.argmax(eye[:, 0]) == 3
        assert eye[1:3, 1].max() < eye[[0, 3], 1].min() < eye[4:, 1].min()
    outer, inner = lips[:12], lips[12:]
    assert np.argmin(outer[:, 0]) == 0
    assert np.argmax(outer[:, 0]) == 6
    assert np.all(np.diff(outer[:7, 0]) > 0)
    assert np.all(np.diff(outer[6:, 0]) < 0)
    assert outer[9, 1] == outer[:, 1].max()
    assert inner[:, 0].min() > outer[:, 0].min()
    assert inner[2, 1] > outer[3, 1]
    assert inner[6, 1] < outer[9, 1]


NAMES = ("p001_portrait", "p001_park", "p005_portrait", "p005_selfie", "p006_portrait", "p008_selfie", "p010_portrait")


@pytest.mark.parametrize("name", NAMES)
def test_every_part_runs_as_dlibs_does_whatever_the_pose(faces, name):
    points = faces[name].landmarks68
    along = points[42:48].mean(axis=0) - points[36:42].mean(axis=0)  # from the viewer's left eye to the right one
    upright = points @ np.array([[along[0], -along[1]], [along[1], along[0]]]) / (along @ along)
    jaw, brows, bridge, nostrils = upright[:17], upright[17:27], upright[27:31], upright[31:36]
    assert np.all(np.diff(jaw[4:13, 0]) > 0)
    assert np.all(np.diff(jaw[:7, 1]) > 0)
    assert np.all(np.diff(jaw[10:, 1]) < 0)
    assert abs(int(np.argmax(jaw[:, 1])) - 8) <= 1
    assert np.all(np.diff(brows[:, 0]) > 0)
    assert np.all(np.diff(bridge[:, 1]) > 0)
    assert np.all(np.diff(nostrils[:, 0]) > 0)
    assert brows[:, 1].max() < upright[36:48, 1].min() < bridge[3, 1] < upright[48:68, 1].min() < jaw[8, 1]
    for contour in (upright[36:42], upright[42:48], upright[48:60]):  # clockwise, as seen, from the viewer's left
        x, y = (contour - contour.mean(axis=0)).T
        assert np.all(np.diff(np.unwrap(np.arctan2(y, x))) > 0)
        assert np.argmin(x) == 0
    inner = np.concatenate([upright[60:68], upright[60:61]])  # of a closed mouth a line, there and back
    assert np.all(np.diff(inner[:5, 0]) > 0)
    assert np.all(np.diff(inner[4:, 0]) < 0)
    assert upright[48, 0] < inner[0, 0]
    assert inner[4, 0] < upright[54, 0]


def test_jaw_and_bridge_are_evenly_divided(faces):
    points = faces["p001_portrait"].landmarks68
    jaw = np.linalg.norm(np.diff(points[:17], axis=0), axis=1)
    assert jaw.max() < 2.2 * jaw.min()


def test_smiling_pictures_smile(faces):
    smiling = {name: shape(face, "mouthSmileLeft") + shape(face, "mouthSmileRight") for name, face in faces.items()}
    assert smiling["p008_selfie"] > 1
    assert smiling["p010_selfie"] > 1
    assert smiling["p001_portrait"] < 0.3
    assert smiling["p010_portrait"] < 0.5
    for face in faces.values():
        assert np.all((face.blendshapes >= 0) & (face.blendshapes <= 1))


def test_head_pose_of_known_pictures(faces):
    yaw, pitch, roll = faces["p001_portrait"].head_pose
    assert abs(yaw) < 6
    assert abs(pitch) < 12
    assert abs(roll) < 4
    assert faces["p001_park"].head_pose[0] > 8  # her head is turned to the picture's right


@pytest.mark.parametrize("name", ["p001_park", "p008_selfie", "p001_portrait"])
def test_mirror_image_mirrors_face_and_pose(analyzer, images, faces, name):
    image, face = images[name], faces[name]
    (mirrored,) = analyzer.analyze(np.ascontiguousarray(image[:, ::-1]))
    assert mirrored.head_pose * [-1, 1, -1] == pytest.approx(face.head_pose, abs=2.5)
    back = mirrored.keypoints * [-1, 1] + [image.shape[1] - 1, 0]
    eye_distance = np.linalg.norm(face.keypoints[1] - face.keypoints[0])
    assert np.abs(back[[1, 0, 2, 4, 3]] - face.keypoints).max() < 0.06 * eye_distance
    left, right = (BLENDSHAPE_NAMES.index(f"mouthSmile{side}") for side in ("Left", "Right"))
    assert mirrored.blendshapes[[left, right]] == pytest.approx(face.blendshapes[[right, left]], abs=0.25)


@pytest.mark.parametrize("degrees", [-90, -35, 20, 90, 180])
def test_turning_the_photo_changes_only_roll(analyzer, images, faces, degrees):
    face = faces["p001_park"]
    picture = Image.fromarray(images["p001_park"]).rotate(-degrees, Image.Resampling.BICUBIC, expand=True)
    (turned,) = analyzer.analyze(np.asarray(picture))
    yaw, pitch, roll = turned.head_pose
    assert (yaw, pitch) == pytest.approx(face.head_pose[:2], abs=2)
    assert (roll - face.head_pose[2] - degrees + 180) % 360 - 180 == pytest.approx(0, abs=2)
    assert turned.blendshapes == pytest.approx(face.blendshapes, abs=0.2)


def test_second_run_steadies_the_mesh(analyzer, images, faces):
    mesh, image = analyzer.mesh, images["p001_portrait"]
    (detection,) = analyzer.detector.detect(image)
    rough = detection.keypoints + np.random.default_rng(0).normal(0, 6, (5, 2))
    result = mesh(image, rough)
    assert isinstance(mesh, FaceMesh)
    assert result.confidence > 0.99
    eye_distance = np.linalg.norm(detection.keypoints[1] - detection.keypoints[0])
    assert np.abs(result.landmarks - faces["p001_portrait"].landmarks).max() < 0.05 * eye_distance


def test_depth_is_nearest_at_the_nose(analyzer, images, faces):
    result = analyzer.mesh(images["p001_portrait"], faces["p001_portrait"].keypoints)
    assert result.depth.argmin() in (1, 4)
    # In photo pixels: the nose stands out by a bit more than half of the distance between the eyes.
    eye_distance = np.linalg.norm(faces["p001_portrait"].keypoints[1] - faces["p001_portrait"].keypoints[0])
    assert 0.4 < (result.depth[[127, 356]].mean() - result.depth.min()) / eye_distance < 1.6


def test_depth_is_in_photo_pixels(analyzer, images, faces):
    image, keypoints = images["p001_portrait"], faces["p001_portrait"].keypoints
    whole = analyzer.mesh(image, keypoints)
    half = analyzer.mesh(np.asarray(Image.fromarray(image).resize((320, 320))), (keypoints + 0.5) / 2 - 0.5)
    assert np.ptp(half.depth) == pytest.approx(np.ptp(whole.depth) / 2, rel=0.05)
    assert half.head_pose == pytest.approx(whole.head_pose, abs=1)


def test_irises_that_are_lost_come_back_into_their_eyes(faces):
    landmarks = faces["p001_portrait"].landmarks
    assert with_irises_in_eyes(landmarks) is landmarks  # found ones are left, wherever they look
    lost = landmarks.copy()
    lost[473:478] += [-250, 20]  # as behind sunglasses
    found = with_irises_in_eyes(lost)
    eye, iris = landmarks[list(EYES_478[1])], landmarks[473:478]
    np.testing.assert_allclose(found[473], eye.mean(axis=0))
    np.testing.assert_allclose(found[473:478] - found[473], iris - iris[0])
    np.testing.assert_array_equal(found[:473], landmarks[:473])


def test_a_place_without_a_face_has_no_confidence(analyzer, images, faces):
    image = images["p001_portrait"]
    background = faces["p001_portrait"].keypoints * 0.2
    assert analyzer.mesh(image, background).confidence < 0.1


def test_networks_load_without_a_word(example_images):
    program = "from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer as A; a = A(); a.detector; a.mesh"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (result.stdout, result.stderr) == ("", "")
