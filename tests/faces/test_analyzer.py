import time

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.alignment import keypoints_from_landmarks
from faceswap_diffusion.faces.analyzer import FaceAnalyzer, MeshFaceAnalyzer, _most_confident, _turn
from faceswap_diffusion.faces.landmarks import MeshResult, dlib68


@pytest.fixture(scope="module")
def analyzer() -> FaceAnalyzer:
    return MeshFaceAnalyzer()


def test_group_is_described_from_left_to_right(analyzer, example_images):
    faces = analyzer.analyze(np.asarray(Image.open(example_images / "group.jpg")))
    assert [int(face.keypoints[2, 0] // 256) for face in faces] == [0, 1, 2, 3]
    for face in faces:
        assert face.landmarks.shape == (478, 2)
        assert np.array_equal(face.landmarks68, dlib68(face.landmarks))
        assert np.array_equal(face.keypoints, keypoints_from_landmarks(face.landmarks))
        assert face.blendshapes.shape == (52,)
        assert face.head_pose.shape == (3,)
        assert face.embedding is None
        inside = (face.landmarks > face.bbox[:2] - 20) & (face.landmarks < face.bbox[2:] + 20)
        assert inside.mean() > 0.95


def test_analysis_repeats_exactly(example_images):
    image = np.asarray(Image.open(example_images / "p005_selfie.jpg"))
    (first,), (second,) = (MeshFaceAnalyzer().analyze(image) for _ in range(2))
    assert np.array_equal(first.landmarks, second.landmarks)
    assert first.blendshapes == pytest.approx(second.blendshapes, rel=0, abs=0)


def test_nothing_in_nothing(analyzer):
    assert analyzer.analyze(np.zeros((1, 1, 3), dtype=np.uint8)) == []


def test_mesh_has_a_veto(example_images):
    image = np.asarray(Image.open(example_images / "p001_portrait.jpg"))
    assert MeshFaceAnalyzer(mesh_threshold=1.1).analyze(image) == []


def test_face_whose_detection_was_turned(example_images):
    image = np.asarray(Image.open(example_images / "p001_portrait.jpg"))
    analyzer = MeshFaceAnalyzer()
    (detection,) = analyzer.detector.detect(image)
    (face,) = analyzer.analyze(image)
    for turns in (1, 2, 3):
        wrong = type(detection)(detection.bbox, detection.score, _turn(detection.keypoints, turns))
        again = analyzer._describe(image, wrong)
        assert again is not None
        assert again.head_pose == pytest.approx(face.head_pose, abs=2)


@pytest.mark.parametrize(
    ("detected", "others", "chosen"),
    [(0.9775, (0.0, 0.9905, 0.0), 0.9775), (0.9, (0.2, 0.5, 0.995), 0.995), (0.3, (0.1, 0.9, 0.2), 0.3)],
)
def test_another_orientation_has_to_be_much_surer_than_the_detected_one(detected, others, chosen):
    """The first are those of a hatted, bearded man, whom the mesh likes a little better upside down."""
    meshes = [MeshResult(np.zeros(0), np.zeros(0), np.zeros(0), np.zeros(3), sure) for sure in (detected, *others)]
    assert _most_confident(meshes[0], meshes[1:]).confidence == chosen


def test_turn_goes_around_the_middle():
    points = np.array([[0.0, 0.0], [4.0, 2.0]])
    assert _turn(points, 1) == pytest.approx(np.array([[3, -1], [1, 3]]))
    assert _turn(points, 2) == pytest.approx(np.array([[4, 2], [0, 0]]))
    assert _turn(points, 4) == pytest.approx(points)


def test_face_at_the_edge_of_the_photo(analyzer, example_images):
    image = np.asarray(Image.open(example_images / "p001_portrait.jpg"))
    (whole,) = analyzer.analyze(image)
    left = int(whole.keypoints[0, 0] - 30)
    (cut,) = analyzer.analyze(np.ascontiguousarray(image[:, left:]))
    assert np.abs(cut.keypoints + np.array([left, 0]) - whole.keypoints).max() < 12


def test_fast_enough_to_be_no_burden(analyzer, example_images):
    image = np.asarray(Image.open(example_images / "p001_portrait.jpg").resize((1024, 1024)))
    analyzer.analyze(image)
    start = time.process_time()
    analyzer.analyze(image)
    # 0.15 s of one idle core; the bound leaves room for slow machines, not for a run at full size four times over.
    assert time.process_time() - start < 0.5
