"""SFace on real faces, and an ONNX recogniser built on the spot."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from faceswap_diffusion.evaluation import recognizers
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import select_face

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def aligned_face(name: str) -> np.ndarray:
    image = np.asarray(Image.open(IMAGES / name).convert("RGB"))
    return recognizers.align_to_template(image, select_face(MeshFaceAnalyzer().analyze(image)).keypoints)


def write_channel_means(path: Path, shape: list[int | str]) -> Path:
    """A 'recogniser' whose embedding is the mean of each channel."""
    node = onnx.helper.make_node("ReduceMean", ["pixels"], ["embedding"], axes=[2, 3], keepdims=0)
    graph = onnx.helper.make_graph(
        [node],
        "channel_means",
        [onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, shape)],
        [onnx.helper.make_tensor_value_info("embedding", onnx.TensorProto.FLOAT, [shape[0], 3])],
    )
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_sface_knows_one_person_from_another_in_different_photos():
    recognizer = recognizers.SFaceRecognizer()
    portrait, selfie, other = (
        recognizer(aligned_face(name)) for name in ("p010_portrait.jpg", "p010_selfie.jpg", "p005_portrait.jpg")
    )
    assert portrait.shape == (128,)
    assert portrait @ selfie > 0.5
    assert portrait @ other < 0.3


def test_an_onnx_recognizer_gets_rgb_from_minus_one_to_one(tmp_path: Path):
    recognizer = recognizers.OnnxRecognizer(write_channel_means(tmp_path / "means.onnx", ["N", 3, 112, 112]))
    pixels = np.zeros((112, 112, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = 255, 51
    np.testing.assert_allclose(recognizer(pixels), [1.0, -0.6, -1.0], atol=2e-5)


def test_recognizers_come_by_name(tmp_path: Path):
    path = write_channel_means(tmp_path / "means.onnx", ["N", 3, 112, 112])
    assert list(recognizers.parse_recognizers([f"w600k={path}"])) == ["sface", "w600k"]
    assert list(recognizers.parse_recognizers([])) == ["sface"]


@pytest.mark.parametrize("argument", ["w600k", "=x.onnx", "sface=x.onnx"])
def test_malformed_recognizers_are_refused(argument: str):
    with pytest.raises(ValueError, match="expected NAME=PATH"):
        recognizers.parse_recognizers([argument])


def test_missing_and_unfitting_recognizers_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no such recogniser"):
        recognizers.parse_recognizers([f"w600k={tmp_path / 'none.onnx'}"])
    with pytest.raises(ValueError, match="112"):
        recognizers.OnnxRecognizer(write_channel_means(tmp_path / "means.onnx", [1, 3, 64, 64]))
