"""An autoencoder grows to crops of twice the side."""

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from faceswap_diffusion.training.models.autoencoder_growth import grow_autoencoder, halving_kernel
from tests.tiny import small_vae, tiny_autoencoder, tiny_vae


@pytest.fixture(scope="module")
def old() -> AutoencoderKL:
    return small_vae()


@pytest.fixture(scope="module")
def grown(old) -> AutoencoderKL:
    torch.manual_seed(0)
    return grow_autoencoder(old, 8)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def doubled(images: torch.Tensor) -> torch.Tensor:
    return images.repeat_interleave(2, 2).repeat_interleave(2, 3)


def test_crops_of_twice_the_side_become_latents_of_the_same_side(grown, images):
    assert grown.config["block_out_channels"] == (16, 16, 32, 64)
    assert grown.config["sample_size"] == 256
    latents = grown.encode(doubled(images)).latent_dist.mean
    assert latents.shape == (2, 8, 8, 8)
    assert grown.decode(latents).sample.shape == (2, 3, 64, 64)


def test_where_nothing_is_finer_the_first_latents_are_the_old_ones(old, grown, images):
    before, after = old.encode(images).latent_dist, grown.encode(doubled(images)).latent_dist
    torch.testing.assert_close(after.mean[:, :4], before.mean, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after.logvar, torch.full((2, 8, 8, 8), -6.0))
    assert (after.mean[:, 4:].std((0, 2, 3)) > 0.01).all()


def test_the_halving_kernel_sees_each_pixel_with_the_weight_that_its_mean_has():
    """One colour; a kernel that is the middle, then the upper left neighbour of the halved picture."""
    kernel = torch.zeros(2, 3, 3, 3)
    kernel[0, 0, 1, 1], kernel[1, 0, 0, 0] = 1, 1
    weights = halving_kernel(kernel)
    # Copies: 3 colours of (-1, -1), (-1, 1), (1, -1), (1, 1). Pixels 0 and 1 along an axis make the middle: pixel 0 is
    # tap 1 of the copy that is taken from -1, pixel 1 is tap 0 of the one from +1.
    middle = torch.zeros(12, 3, 3)
    middle[0, 1, 1] = middle[3, 1, 0] = middle[6, 0, 1] = middle[9, 0, 0] = 0.25
    torch.testing.assert_close(weights[0], middle)
    corner = torch.zeros(12, 3, 3)
    corner[0, 0, 0] = 1  # pixel -1 stands for -2, too
    torch.testing.assert_close(weights[1], corner)


def test_what_cannot_grow_is_told_in_a_line(old):
    with pytest.raises(ValueError, match="got 3 latent channels, the old autoencoder has 4: raise --latent_channels"):
        grow_autoencoder(old, 3)
    with pytest.raises(ValueError, match="first level has 8 channels: grow one of 12 or more"):
        grow_autoencoder(tiny_vae(), 8)


def test_another_kind_of_autoencoder_is_not_grown():
    with pytest.raises(ValueError, match="of kind AutoencoderTiny: only an AutoencoderKL can be grown"):
        grow_autoencoder(tiny_autoencoder("AutoencoderTiny"), 8)
