"""SFace on real faces; the others where their files were fetched; IR-SE50 and the CLIP tower with random weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig

from faceswap_diffusion.conditioning.identity import IRSE50
from faceswap_diffusion.evaluation.description import NETWORK_FILES, load_networks
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.metrics import feature_networks, onnx_networks, recognizers
from faceswap_diffusion.metrics.faces import rotation_angles
from faceswap_diffusion.weights.registry import MODEL_FILES, ModelFileError, models_folder

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def needs(name: str) -> pytest.MarkDecorator:
    path = models_folder() / MODEL_FILES[name].filename
    return pytest.mark.skipif(not path.is_file(), reason=f"needs: faceswap-diffusion fetch {name}")


@pytest.fixture(scope="module")
def faces() -> dict[str, tuple[np.ndarray, Face]]:
    analyzer = MeshFaceAnalyzer()
    found = {}
    for name in ("p010_portrait", "p010_selfie", "p005_portrait"):
        image = np.asarray(Image.open(IMAGES / f"{name}.jpg").convert("RGB").resize((384, 384)))
        found[name] = image, select_face(analyzer.analyze(image))
    return found


def cosines(recognizer: recognizers.Recognizer, faces: dict[str, tuple[np.ndarray, Face]]) -> tuple[float, float]:
    """Of two photos of one person, and of two people."""
    portrait, selfie, other = (recognizer(*faces[name]) for name in ("p010_portrait", "p010_selfie", "p005_portrait"))
    portrait, selfie, other = (vector / np.linalg.norm(vector) for vector in (portrait, selfie, other))
    return float(portrait @ selfie), float(portrait @ other)


def test_sface_knows_one_person_from_another(faces):
    recognizer = recognizers.SFaceRecognizer()
    assert recognizer(*faces["p010_portrait"]).shape == (128,)
    same, different = cosines(recognizer, faces)
    assert same > 0.5
    assert different < 0.35


@needs("w600k_mbf")
def test_w600k_knows_one_person_from_another(faces):
    same, different = cosines(recognizers.ArcFaceRecognizer(), faces)
    assert same > 0.5
    assert different < 0.2


@needs("dlib_resnet")
def test_dlib_knows_one_person_from_another(faces):
    pytest.importorskip("dlib", reason="needs: pip install dlib-bin")
    recognizer = recognizers.DlibRecognizer()
    portrait, selfie, other = (recognizer(*faces[name]) for name in ("p010_portrait", "p010_selfie", "p005_portrait"))
    # dlib's own rule: one person below a distance of 0.6.
    assert np.linalg.norm(portrait - selfie) < 0.6 < np.linalg.norm(portrait - other)


def test_ir_se50_reads_weights_without_running_code(faces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    torch.manual_seed(0)
    network = IRSE50().eval()
    torch.save(network.state_dict(), tmp_path / "model_ir_se50.pth")
    monkeypatch.setattr(recognizers, "fetched_path", lambda name: tmp_path / MODEL_FILES[name].filename)
    image, face = faces["p010_portrait"]
    embedding = recognizers.IRSE50Recognizer()(image, face)
    assert embedding.shape == (512,)
    assert np.linalg.norm(embedding) == pytest.approx(1, abs=1e-5)
    torch.save({"code": Path("x")}, tmp_path / "model_ir_se50.pth")
    with pytest.raises(Exception, match="Weights only load failed"):
        recognizers.IRSE50Recognizer()


@needs("6drepnet360")
def test_6drepnet_sees_a_turned_photo_turned(faces):
    network = onnx_networks.SixDRepNet()
    image, face = faces["p010_portrait"]
    upright = network(image, face)
    np.testing.assert_allclose(upright @ upright.T, np.eye(3), atol=1e-4)
    turned_image = np.asarray(Image.fromarray(image).rotate(20, Image.Resampling.BICUBIC))
    turned = network(turned_image, select_face(MeshFaceAnalyzer().analyze(turned_image)))
    assert rotation_angles(upright[None], turned[None])[0] == pytest.approx(20, abs=4)


@needs("inception")
def test_inception_features_do_not_depend_on_the_batch(faces):
    network = feature_networks.InceptionFeatures()
    images = [image for image, _ in faces.values()][:2]
    features = network(images)
    assert features.shape == (2, 2048)
    assert features.min() >= 0  # pooled after a ReLU
    np.testing.assert_allclose(network(images[1:]), features[1:], atol=1e-4)


def test_the_clip_tower_is_that_of_the_whole_model():
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    torch.manual_seed(0)
    vision = CLIPVisionConfig(**small, image_size=32, patch_size=16, projection_dim=8)
    config = CLIPConfig(text_config={**small, "vocab_size": 20}, vision_config=vision.to_dict(), projection_dim=8)
    whole = CLIPModel(config).eval()
    tower = feature_networks.load_clip_vision(whole.state_dict(), vision)
    pixels = torch.randn(2, 3, 32, 32)
    hidden = whole.vision_model(pixel_values=pixels).pooler_output
    torch.testing.assert_close(tower(pixel_values=pixels).image_embeds, whole.visual_projection(hidden))


def test_pictures_of_any_size_make_one_batch():
    batch = feature_networks.resized_batch([np.full((20, 30, 3), 7, np.uint8), np.zeros((64, 64, 3), np.uint8)], 32)
    assert batch.shape == (2, 3, 32, 32)
    assert (batch[0] == 7).all()


def test_networks_that_are_not_there_say_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FACESWAP_DIFFUSION_MODELS", str(tmp_path))
    networks = load_networks()
    assert networks.names() == ["sface"]
    assert set(networks.unavailable) == set(NETWORK_FILES) - {"sface"}
    assert networks.unavailable["w600k"].startswith("not available: faceswap-diffusion fetch w600k_mbf gets it")
    assert {row["name"] for row in networks.licences()} == {"yunet", "face_landmarker", "sface"}


def test_a_wrong_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FACESWAP_DIFFUSION_MODELS", str(tmp_path))
    (tmp_path / "w600k_mbf.onnx").write_bytes(b"another file")
    with pytest.raises(ModelFileError, match="SHA-256"):
        recognizers.ArcFaceRecognizer()
    assert "SHA-256" in load_networks().unavailable["w600k"]
