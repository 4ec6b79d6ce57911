"""The age network: the same numbers as the original, and sensible ages of faces that were made up as adults'."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from faceswap_diffusion.faces.detection import FaceDetector
from faceswap_diffusion.training.age import AgeNet, ReductionBlock, age_crop, dequantize, youngest_age

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


def test_grown_ups_look_grown_up_in_every_picture(net: AgeNet):
    detector = FaceDetector()
    ages = {}
    for path in sorted(IMAGES.glob("*.jpg")):
        image = np.asarray(Image.open(path).convert("RGB"))
        ages[path.name] = [youngest_age(net, image, face.keypoints) for face in detector.detect(image)]
    assert [len(of_picture) for of_picture in ages.values()] == [4, 1, 1, 1, 1, 1, 1, 1, 1]
    assert all(20 < age < 55 for of_picture in ages.values() for age in of_picture)
    # one man in two photos, the oldest of them all
    assert ages["p005_portrait.jpg"][0] == pytest.approx(ages["p005_selfie.jpg"][0], abs=8)
    assert min(ages["p005_portrait.jpg"] + ages["p005_selfie.jpg"]) > 40


def test_the_younger_view_counts(net: AgeNet):
    image = np.asarray(Image.open(IMAGES / "p001_portrait.jpg").convert("RGB"))
    keypoints = FaceDetector().detect(image)[0].keypoints
    assert youngest_age(net, image, keypoints) == net(age_crop(image, keypoints)).min().item()
