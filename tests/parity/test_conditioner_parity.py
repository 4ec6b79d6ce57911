"""The converted conditioner and image encoder against golden tensors of the original REFace implementation."""

import pytest
import torch
from torch.nn import functional as F

CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((got - wanted).norm() / wanted.norm()).item()


def channels(values: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(values).view(1, 3, 1, 1)


@torch.no_grad()
def test_identity_embedding(pipe, golden):
    pixels = (golden["source_clip_pixels"] * channels(CLIP_STD) + channels(CLIP_MEAN)) * 2 - 1
    assert relative_error(pipe.conditioner.encode_identity(pixels), golden["identity_embedding"]) <= 1e-5


@torch.no_grad()
def test_clip_token_and_whole_context(pipe, golden):
    source = pipe.image_encoder(golden["source_clip_pixels"]).image_embeds
    assert relative_error(pipe.conditioner.map_clip(source)[:, None], golden["clip_token_source"]) <= 1e-5
    target = pipe.encode_clip(golden["target_pixels"] / 2 + 0.5)
    context = pipe.conditioner(golden["identity_embedding"], source, target, golden["landmarks"])
    assert relative_error(context, golden["conditioning"]) <= 1e-5
    assert torch.equal(pipe.conditioner.unconditional(2), golden["unconditional"])


@pytest.fixture(scope="module")
def photo() -> tuple[torch.Tensor, torch.Tensor]:
    """A crop (1, 3, 256, 256) in [0, 1] with detail, and a soft mask of it."""
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(1, 3, 256, 256, generator=generator)
    return image, F.interpolate(torch.rand(1, 1, 16, 16, generator=generator), (256, 256), mode="bilinear")


@torch.no_grad()
def test_the_encoders_view_is_resized_without_antialiasing_and_masked_after_normalisation(pipe, photo):
    image, mask = photo
    view, seen = (F.interpolate(pixels, (224, 224), mode="bilinear", align_corners=False) for pixels in (image, mask))
    view = (view - channels(CLIP_MEAN)) / channels(CLIP_STD) * seen
    assert torch.allclose(pipe.encode_clip(image, mask), pipe.image_encoder(view).image_embeds, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_identity_network_sees_the_masked_view_pooled_and_cut(pipe, photo):
    image, mask = photo
    view, seen = (F.interpolate(pixels, (224, 224), mode="bilinear", align_corners=False) for pixels in (image, mask))
    clip_view = (view - channels(CLIP_MEAN)) / channels(CLIP_STD) * seen
    pixels = 2 * (clip_view * channels(CLIP_STD) + channels(CLIP_MEAN)) - 1
    pooled = F.adaptive_avg_pool2d(pixels, (256, 256))[:, :, 35:223, 32:220]
    network = pipe.conditioner.identity_encoder
    wanted = network(F.adaptive_avg_pool2d(pooled, (112, 112)))
    assert relative_error(pipe.encode_identity(image, mask), wanted) <= 1e-5
    assert wanted.norm().item() == pytest.approx(1, abs=1e-6)


@torch.no_grad()
def test_landmarks_are_raw_pixels_and_zeros_leave_the_bias(pipe):
    landmarks = torch.rand(1, 68, 2) * 256
    assert torch.equal(pipe.prepare_landmarks(landmarks, 256, 256), landmarks)
    zeros = torch.zeros(1, 64)
    without = pipe.conditioner(torch.zeros(1, 512), zeros, zeros, pipe.prepare_landmarks(None, 256, 256))
    with_them = pipe.conditioner(torch.zeros(1, 512), zeros, zeros, landmarks)
    projection = pipe.conditioner.landmark_projection
    difference = 0.05 / 11.05 * F.linear(landmarks.flatten(1), projection.weight)
    assert torch.allclose((with_them - without)[0], difference, rtol=0, atol=1e-5)
