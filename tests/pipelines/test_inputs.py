"""Pictures as tensors, and the views that the encoders see, against values computed by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from faceswap_diffusion.pipelines.inputs import (
    close_holes,
    fill_hidden,
    image_to_tensor,
    images_to_tensors,
    preprocess_encoder_image,
    preprocess_identity_image,
    repeat_batch,
    resize,
)
from tests.tiny import tiny_picture


def test_pil_arrays_and_tensors_are_the_same_picture():
    picture = tiny_picture(3, size=5)
    array = np.asarray(picture)
    expected = torch.from_numpy(array / np.float32(255)).permute(2, 0, 1)[None]
    for same in (picture, array, array / 255.0, array[None], expected[0], expected, (expected[0] * 255).byte()):
        assert torch.allclose(image_to_tensor(same, 3, "image"), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 1), (1, 4, 6), (1, 4, 6, 1)])
def test_grey_arrays_with_and_without_channel(shape):
    values = np.arange(24, dtype=np.float32).reshape(4, 6) / 24
    assert torch.equal(image_to_tensor(values.reshape(shape), 1, "mask_image")[0, 0], torch.from_numpy(values))


def test_the_alpha_of_a_mask_counts_and_that_of_a_photo_does_not():
    layer = Image.new("RGBA", (2, 1), (255, 255, 255, 255))
    layer.putpixel((1, 0), (255, 255, 255, 51))
    assert image_to_tensor(layer, 1, "mask_image").flatten().tolist() == pytest.approx([1, 0.2])
    assert torch.equal(image_to_tensor(layer, 3, "image"), torch.ones(1, 3, 1, 2))


def test_a_mask_of_16_bits_is_scaled():
    deep = Image.fromarray(np.array([[0, 128 * 257, 65535]], np.uint16))
    assert image_to_tensor(deep, 1, "mask_image").flatten().tolist() == pytest.approx([0, 128 / 255, 1])


@pytest.mark.parametrize("shape", [(4, 6), (1, 4, 6), (1, 1, 4, 6)])
def test_grey_tensors_with_and_without_channel(shape):
    values = torch.arange(24).view(4, 6) / 24
    assert torch.equal(image_to_tensor(values.view(shape), 1, "mask_image")[0, 0], values)


def test_a_grey_batch_keeps_its_length():
    assert image_to_tensor(torch.zeros(3, 4, 6), 1, "mask_image").shape == (3, 1, 4, 6)
    assert image_to_tensor(np.zeros((3, 4, 6)), 1, "mask_image").shape == (3, 1, 4, 6)


def test_pil_pictures_of_other_modes_are_converted():
    assert image_to_tensor(Image.new("L", (2, 2), 51), 3, "image")[0, :, 0, 0].tolist() == pytest.approx([0.2] * 3)
    assert image_to_tensor(Image.new("RGB", (2, 2), "white"), 1, "mask_image").shape == (1, 1, 2, 2)


@pytest.mark.parametrize(
    "bad", [torch.zeros(1, 4, 8, 8), torch.zeros(8, 8), np.zeros((8, 8)), torch.zeros(1, 1, 3, 8, 8)]
)
def test_a_wrong_shape_is_refused_by_name(bad):
    with pytest.raises(ValueError, match="`source_image` has shape"):
        image_to_tensor(bad, 3, "source_image")


@pytest.mark.parametrize("value", [-1.0, 1.5, 255.0, float("nan")])
def test_a_wrong_range_is_refused(value):
    with pytest.raises(ValueError, match="`image` reaches from"):
        image_to_tensor(torch.full((3, 2, 2), value), 3, "image")


def test_a_list_may_mix_sizes():
    small, large = images_to_tensors([tiny_picture(0, 4), tiny_picture(0, 6)], 3, "image")
    assert (small.shape, large.shape) == ((1, 3, 4, 4), (1, 3, 6, 6))


def test_encoder_view_is_normalised_by_hand_computed_values():
    pixels = torch.tensor([-1.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 4, 4)
    view = preprocess_encoder_image(pixels, 2, mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 0.5))
    assert view.shape == (1, 3, 2, 2)
    assert view[0, :, 0, 0].tolist() == [-1.0, 1.0, 2.0]


def test_encoder_view_shrinks_without_antialiasing():
    pixels = torch.zeros(1, 3, 8, 8)
    pixels[:, :, 0, 0] = 1.0  # bilinear from 8 to 2 reads pixels 1 and 2 of each four only: this one must not count
    view = preprocess_encoder_image(pixels, 2, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert torch.equal(view, torch.zeros(1, 3, 2, 2))


def test_with_antialiasing_every_pixel_counts():
    pixels = torch.zeros(1, 1, 8, 8)
    pixels[:, :, 0, 0] = 1.0
    assert resize(pixels, 2, 2, antialias=True)[0, 0, 0, 0] > 0


def test_hidden_pixels_are_zero_after_normalisation_and_the_mask_stays_soft():
    pixels = torch.ones(1, 3, 2, 2)
    mask = torch.tensor([[[[0.0, 0.5], [1.0, 0.25]]]])
    view = preprocess_encoder_image(pixels, 2, mean=(0.0,) * 3, std=(0.5,) * 3, mask=mask)
    assert view[0, 2].tolist() == [[0.0, 1.0], [2.0, 0.5]]


def test_encoder_view_is_differentiable():
    pixels = torch.rand(1, 3, 6, 6, requires_grad=True)
    preprocess_encoder_image(pixels, 6, mean=(0.5,) * 3, std=(0.5,) * 3).sum().backward()
    assert pixels.grad is not None
    assert torch.allclose(pixels.grad, torch.ones_like(pixels))


def test_identity_view_is_the_encoder_view_turned_back():
    generator = torch.Generator().manual_seed(0)
    pixels, mask = 2 * torch.rand(2, 3, 9, 9, generator=generator) - 1, torch.rand(2, 1, 9, 9, generator=generator)
    mean, std = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
    view = preprocess_encoder_image(pixels, 6, mean, std, mask)
    turned_back = 2 * (view * torch.tensor(std).view(3, 1, 1) + torch.tensor(mean).view(3, 1, 1)) - 1
    assert torch.allclose(preprocess_identity_image(pixels, 6, mean, mask), turned_back, atol=1e-6)


def test_hidden_pixels_of_the_identity_view_have_the_mean_colour():
    view = preprocess_identity_image(torch.ones(1, 3, 4, 4), 4, (0.5, 0.75, 0.25), torch.zeros(1, 1, 4, 4))
    assert view[0, :, 0, 0].tolist() == [0.0, 0.5, -0.5]


def test_copies_of_one_face_lie_side_by_side():
    assert repeat_batch(torch.tensor([[1], [2]]), 2, 2, "x").flatten().tolist() == [1, 1, 2, 2]
    assert repeat_batch(torch.tensor([[7]]), 3, 2, "x").flatten().tolist() == [7] * 6


def test_a_batch_that_fits_no_other_is_refused():
    with pytest.raises(ValueError, match="`mask_image` is a batch of 2, others are of 3: pass 1 or 3"):
        repeat_batch(torch.zeros(2, 1), 3, 1, "mask_image")


def test_hidden_pixels_are_grey_or_drawn_and_the_mask_stays_soft():
    pixels, mask = torch.full((1, 3, 1, 3), 0.8), torch.tensor([[[[0.0, 0.5, 1.0]]]])
    assert fill_hidden(pixels, mask)[0, 0, 0].tolist() == pytest.approx([0.8, 0.4, 0.0])
    drawing = torch.full_like(pixels, -1.0)
    for coverage in (None, torch.ones_like(mask)):
        filled = fill_hidden(pixels, mask, drawing, coverage)
        assert filled[0, 0, 0].tolist() == pytest.approx([0.8, -0.1, -1.0])


def row_of(*values: float) -> torch.Tensor:
    """A picture or mask (1, 1, 1, W)."""
    return torch.tensor(values, dtype=torch.float).view(1, 1, 1, -1)


def test_what_no_reference_covers_gets_a_colour_of_its_surroundings():
    """Level by level: 1 and -1 fill their halves, and two pixels to four is a blend of a quarter."""
    filled = fill_hidden(row_of(1, 9, 9, -1), row_of(0, 1, 1, 0), row_of(7, 7, 7, 7), row_of(1, 0, 0, 1))
    assert filled.flatten().tolist() == pytest.approx([1, 0.5, -0.5, -1])


def test_soft_masks_and_soft_coverage_count_by_their_share():
    # Known: 0.8 wholly, 0.4 by half: (0.8 + 0.2) / 1.5, which fills the other half of the second pixel.
    half_hidden = fill_hidden(row_of(0.8, 0.4), row_of(0, 0.5), row_of(7, 7), row_of(0, 0))
    assert half_hidden.flatten().tolist() == pytest.approx([0.8, 0.2 + 0.5 * 1 / 1.5])
    # Known: 0.8 wholly, -1 by a quarter: (0.8 - 0.25) / 1.25 = 0.44
    half_covered = fill_hidden(row_of(0.8, 7), row_of(0, 1), row_of(7, -1), row_of(0, 0.25))
    assert half_covered.flatten().tolist() == pytest.approx([0.8, -0.25 + 0.75 * 0.44])


@pytest.mark.parametrize("excess", [0.0, 1e-7])
def test_where_nothing_is_known_it_is_grey(excess):
    mask = torch.full((2, 1, 64, 64), 1 + excess)  # resizing rounds
    coverage = torch.zeros_like(mask)
    coverage[1, :, 5, 6] = 1e-3
    filled = fill_hidden(torch.full((2, 3, 64, 64), 0.9), mask, torch.full((2, 3, 64, 64), -0.7), coverage)
    assert not filled[0].any()
    torch.testing.assert_close(filled[1], torch.full_like(filled[1], -0.7))  # the little that is known fills it all


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (17, 31)])
def test_holes_are_smooth_and_within_what_is_around_them(height, width):
    pixels = torch.where(torch.arange(width) < width // 2, -1.0, 1.0).expand(1, 3, height, width)
    mask = torch.zeros(1, 1, height, width)
    hole = slice(width // 4, -(width // 4))
    mask[..., hole] = 1
    filled = fill_hidden(pixels, mask, torch.full_like(pixels, 9.0), torch.zeros_like(mask))
    assert -1 <= filled.min() < filled.max() <= 1
    steps = filled.diff(dim=-1)
    assert steps.min() > -1e-6
    assert steps.max() < 0.35  # one step of 2 before
    torch.testing.assert_close(filled[..., :1, :].expand_as(filled), filled, atol=1e-6, rtol=0)  # the same in each row


def test_a_picture_of_one_colour_stays_one_and_pictures_of_a_batch_do_not_mix():
    generator = torch.Generator().manual_seed(0)
    pixels, weights = torch.rand(2, 3, 16, 16, generator=generator), torch.rand(2, 1, 16, 16, generator=generator)
    plain = torch.full((1, 3, 16, 16), 0.3)
    torch.testing.assert_close(close_holes(plain * weights[:1], weights[:1]), plain)
    together = close_holes(pixels * weights, weights)
    for index in range(2):
        one = slice(index, index + 1)
        assert torch.equal(close_holes(pixels[one] * weights[one], weights[one]), together[one])
