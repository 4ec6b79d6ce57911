"""LPIPS with weights that can be followed by hand, and the reader of its file."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faceswap_diffusion.metrics.lpips import LPIPS, VGG16_STAGES
from faceswap_diffusion.metrics.lpips import normalized as to_unit_length
from faceswap_diffusion.training.objectives.losses import perceptual_loss
from faceswap_diffusion.weights.registry import MODEL_FILES, models_folder

FILE = models_folder() / MODEL_FILES["lpips_vgg16"].filename


def weights(width: int = 4, seed: int = 0) -> dict:
    generator = np.random.default_rng(seed)
    channels = [3, *[width] * sum(VGG16_STAGES)]
    convolutions = {
        f"Conv_{index}": {
            "kernel": generator.normal(0, 0.3, (3, 3, channels[index], width)).astype(np.float32),
            "bias": np.full(width, 0.1, np.float32),
        }
        for index in range(len(channels) - 1)
    }
    heads = {
        f"NetLinLayer_{stage}": {"Conv_0": {"kernel": np.full((1, 1, width, 1), 0.5, np.float32)}}
        for stage in range(5)
    }
    return {"VGG16_0": convolutions, **heads}


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (64, 48, 3), np.uint8)


def tensor(picture: np.ndarray) -> torch.Tensor:
    """(1, 3, H, W) in [-1, 1]."""
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1


def test_it_is_the_weighted_distance_of_normalised_maps():
    lpips = LPIPS(weights())
    resized = [tensor(cv2.resize(picture(seed), (256, 256), interpolation=cv2.INTER_AREA)) for seed in (0, 1)]
    first, second = (lpips.feature_maps(image) for image in resized)
    assert [tuple(maps.shape) for maps in first] == [(1, 4, 256 // 2**stage, 256 // 2**stage) for stage in range(5)]
    expected = sum(
        (0.5 * (to_unit_length(x) - to_unit_length(y)) ** 2).sum(1).mean().item()
        for x, y in zip(first, second, strict=True)
    )
    assert lpips([picture(0)], [picture(1)]) == pytest.approx(expected, rel=1e-5)
    assert lpips.distance(*resized).item() == pytest.approx(expected, rel=1e-5)


def test_one_pixel_by_hand():
    """A kernel that looks at red alone, at the centre: every map is red's, and of unit length unless it is 0."""
    followed = weights(width=1)
    for layer in followed["VGG16_0"].values():
        layer["kernel"][:] = 0
        layer["kernel"][1, 1, 0] = 1
        layer["bias"][:] = 0
    red, black = torch.full((1, 3, 16, 16), 1.0), torch.full((1, 3, 16, 16), -1.0)  # black is cut off by the ReLU
    assert LPIPS(followed).distance(red, black).item() == pytest.approx(5 * 0.5 * (1 - 0) ** 2)


def test_distances_carry_gradients_to_the_picture_and_not_to_the_network():
    lpips = LPIPS(weights())
    image, other = tensor(picture(0)).requires_grad_(), tensor(picture(1))
    distance = lpips.distance(image, other)
    distance.sum().backward()
    assert image.grad is not None
    with torch.no_grad():
        step = image - 0.05 * image.grad / image.grad.norm()
    assert lpips.distance(step, other).item() < distance.item()
    assert not any(parameter.requires_grad for parameter in lpips.parameters())


def test_as_a_loss_it_looks_at_three_sizes_of_64_pixels_and_more():
    lpips = LPIPS(weights())
    images, wanted = torch.rand(2, 2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[1] = wanted[1]
    images.requires_grad_()
    loss = perceptual_loss([images, images], wanted, lpips.distance)
    halves = (torch.nn.functional.avg_pool2d(torch.stack([images[0], wanted[0]]), 2**scale) for scale in range(3))
    expected = sum(lpips.distance(pair[:1], pair[1:]).item() for pair in halves)
    assert loss.tolist() == pytest.approx([2 * expected, 0.0], rel=1e-4)
    loss.sum().backward()
    assert images.grad is not None
    assert images.grad.isfinite().all()
    assert images.grad[0].abs().sum() > 0


def test_it_moves_to_a_device_and_a_type_whole():
    lpips = LPIPS(weights()).to("meta", torch.float64)
    tensors = [*lpips.parameters(), *lpips.buffers()]
    assert len(tensors) == 13 + 13 + 5 + 2
    assert {(tensor.device.type, tensor.dtype) for tensor in tensors} == {("meta", torch.float64)}


def test_equal_pictures_have_no_distance_and_batches_do_not_matter():
    lpips = LPIPS(weights())
    assert lpips([picture(0)], [picture(0)]) == 0.0
    both = lpips([picture(0), picture(2)], [picture(1), picture(3)])
    alone = [lpips([picture(0)], [picture(1)]).item(), lpips([picture(2)], [picture(3)]).item()]
    np.testing.assert_allclose(both, alone, rtol=1e-5)


def test_channels_are_scaled_to_unit_length_at_each_place():
    maps = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    torch.testing.assert_close(to_unit_length(maps).flatten(), torch.tensor([0.6, 0.8]))


@pytest.mark.skipif(not FILE.is_file(), reason="needs: faceswap-diffusion fetch lpips_vgg16")
def test_the_real_weights_rank_a_blur_below_another_picture(example_images: Path):
    from PIL import Image, ImageFilter

    picture, other = (
        Image.open(example_images / name).convert("RGB").resize((128, 128))
        for name in ("p010_portrait.jpg", "p005_portrait.jpg")
    )
    pictures = [np.asarray(image) for image in (picture.filter(ImageFilter.GaussianBlur(1)), other)]
    blurred, different = LPIPS()(pictures, [np.asarray(picture)] * 2)
    assert 0.01 < blurred < 0.3 < different < 1
