"""The age network: the same numbers as the original, and sensible ages of faces that were made up as adults'."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.alignment import arcface_matrix, crop
from faceswap_diffusion.faces.detection import FaceDetector
from faceswap_diffusion.safety.age import AGE_PROBE, AgeEstimator, AgeNet, ReductionBlock, age_crop, dequantize

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def net() -> AgeNet:
    return AgeNet()


def pattern() -> np.ndarray:
    """A picture (112, 112, 3), uint8, that a formula tells to any language."""
    y, x = np.mgrid[:112, :112]
    return np.stack([(3 * x + 5 * y) % 256, (x * y) % 256, (x * x + y) % 256], axis=2).astype(np.uint8)


@pytest.mark.parametrize(
    ("picture", "age"), [(pattern(), 68.884598), (np.full((112, 112, 3), 128, np.uint8), 15.275552)]
)
def test_ages_are_those_of_the_original_in_tensorflow_js(net: AgeNet, picture: np.ndarray, age: float):
    # computed by face-api.js 0.22.2 with tfjs-core 1.7.0, on the CPU, from age_gender_model.bin
    pixel_values = torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1
    assert net(pixel_values).item() == pytest.approx(age, abs=1e-3)


def test_each_face_of_a_batch_has_an_age_of_its_own(net: AgeNet):
    pixel_values = torch.rand(3, 3, 112, 112, generator=torch.Generator().manual_seed(0)) * 2 - 1
    torch.testing.assert_close(net(pixel_values), torch.cat([net(face[None]) for face in pixel_values]))


def test_weights_are_steps_of_a_scale_above_a_minimum():
    stored = {
        "weight": torch.tensor([0, 1, 255], dtype=torch.uint8),
        "weight.affine": torch.tensor([0.5, -2.0]),
        "bias": torch.tensor([7.0]),
    }
    weights = dequantize(stored)
    assert sorted(weights) == ["bias", "weight"]
    assert weights["weight"].tolist() == [-2.0, -1.5, 125.5]
    assert weights["bias"].tolist() == [7.0]


def test_pooling_reaches_beyond_the_far_edges_only():
    block = ReductionBlock(1, 1)
    pooled = block.pool(torch.arange(16.0).view(1, 1, 4, 4))
    assert pooled[0, 0].tolist() == [[10.0, 11.0], [14.0, 15.0]]


def test_crop_is_seen_as_it_is_and_mirrored():
    image = np.asarray(Image.open(IMAGES / "p005_portrait.jpg").convert("RGB"))
    views = age_crop(image, FaceDetector().detect(image)[0].keypoints)
    assert views.shape == (2, 3, 112, 112)
    assert -1 <= views.min() < -0.5 < 0.5 < views.max() <= 1
    assert torch.equal(views[0], views[1].flip(2))


class Examples:
    """The example photos through detector, SFace and estimator."""

    def __init__(self):
        self.detector, self.recognizer, self.estimate = FaceDetector(), SFace(), AgeEstimator()

    def look(self, name: str) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Photo, keypoints and embedding of each face."""
        image = np.asarray(Image.open(IMAGES / name).convert("RGB"))
        keypoints = [face.keypoints for face in self.detector.detect(image)]
        faces = [torch.from_numpy(crop(image, arcface_matrix(points), 112)).permute(2, 0, 1) for points in keypoints]
        embeddings = self.recognizer(torch.stack(faces) / 127.5 - 1).numpy()
        return [(image, *described) for described in zip(keypoints, embeddings, strict=True)]

    def ages(self, name: str) -> list[float]:
        return [self.estimate(*face) for face in self.look(name)]


@pytest.fixture(scope="module")
def examples() -> Examples:
    return Examples()


def test_grown_ups_look_grown_up_in_every_photo(examples: Examples):
    ages = {path.name: examples.ages(path.name) for path in sorted(IMAGES.glob("*.jpg"))}
    assert [len(of_photo) for of_photo in ages.values()] == [4, 1, 1, 1, 1, 1, 1, 1, 1]
    assert all(20 < age < 55 for of_photo in ages.values() for age in of_photo)
    # one man in two photos, older than the others
    assert ages["p005_portrait.jpg"][0] == pytest.approx(ages["p005_selfie.jpg"][0], abs=8)
    assert min(ages["p005_portrait.jpg"] + ages["p005_selfie.jpg"]) > 35


def test_an_estimate_is_the_mean_of_the_younger_view_and_the_probe(examples: Examples):
    ((image, keypoints, embedding),) = examples.look("p001_portrait.jpg")
    probe = load_file(AGE_PROBE)
    told = float(probe["weight"][0] @ torch.from_numpy(embedding) + probe["bias"][0])
    youngest = min(examples.estimate.net(age_crop(image, keypoints)).tolist())
    assert examples.estimate(image, keypoints, embedding) == pytest.approx((youngest + told) / 2, abs=1e-4)
