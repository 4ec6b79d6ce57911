"""open_nsfw in PyTorch: the scores of the original, over its whole range."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

from faceswap_diffusion.safety.nsfw import Bottleneck, NSFWNet, dequantize_rows, nsfw_input
from faceswap_diffusion.weights.registry import MODEL_FILES

GOLDEN = Path(__file__).parent / "open_nsfw_golden.safetensors"


@pytest.fixture(scope="module")
def net() -> NSFWNet:
    return NSFWNet()


def test_scores_are_those_of_the_original(net: NSFWNet):
    # by open-nsfw.onnx in ONNX Runtime 1.32, of pictures that were made to get every kind of score
    golden = load_file(GOLDEN)
    pictures = [Image.fromarray(golden[f"picture_{number}"]) for number in range(5)]
    large = [np.asarray(picture.resize((256, 256), Image.Resampling.BILINEAR)) for picture in pictures]
    with torch.no_grad():
        scores = net(torch.cat(list(map(nsfw_input, large)))).numpy()
    assert golden["scores"] == pytest.approx([0.017, 0.278, 0.587, 0.898, 0.989], abs=0.001)
    assert scores == pytest.approx(golden["scores"], abs=0.03)


def test_portraits_are_far_from_explicit(net: NSFWNet, example_images: Path):
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(example_images.glob("p0*.jpg"))]
    with torch.no_grad():
        assert float(net(torch.cat(list(map(nsfw_input, pictures)))).max()) < 0.2


def test_weights_are_steps_of_a_scale_for_each_row():
    stored = {
        "conv.weight": torch.tensor([[[[1]]], [[[-127]]]], dtype=torch.int8),
        "conv.scale": torch.tensor([0.5, 2.0]),
        "conv.bias": torch.tensor([7.0, 8.0]),
    }
    weights = dequantize_rows(stored)
    assert sorted(weights) == ["conv.bias", "conv.weight"]
    assert weights["conv.weight"].flatten().tolist() == [0.5, -254.0]


def test_a_bottleneck_halves_what_its_stride_says():
    assert Bottleneck(8, 4, 2, projects=True)(torch.zeros(1, 8, 6, 6)).shape == (1, 16, 3, 3)
    assert Bottleneck(16, 4, 1, projects=False)(torch.zeros(1, 16, 6, 6)).shape == (1, 16, 6, 6)


def test_input_is_bgr_without_the_mean_and_the_margin():
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[..., 0] = 200
    values = nsfw_input(picture)
    assert values.shape == (1, 3, 224, 224)
    assert values[0, :, 100, 100].tolist() == [-104.0, -117.0, 77.0]


def test_the_file_is_small_enough_to_ship():
    assert MODEL_FILES["open_nsfw"].size <= 8_000_000
