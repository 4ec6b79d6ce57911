"""What the latents of a grown autoencoder are to be."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.models.autoencoder_growth import grow_autoencoder
from faceswap_diffusion.training.models.latent_targets import LatentTargets, fit_new_channels
from faceswap_diffusion.training.objectives.reconstruction import load_crops
from tests.tiny import small_vae


@pytest.fixture(scope="module")
def old() -> AutoencoderKL:
    return small_vae()


@pytest.fixture(scope="module")
def images(prepared_faces) -> torch.Tensor:
    return load_crops(PreparedFaces([prepared_faces], 64), range(4))


@pytest.fixture(scope="module")
def targets(old, images) -> LatentTargets:
    return LatentTargets(old, 4, images)


def test_old_latents_come_first_and_new_ones_have_unit_spread(old, targets, images):
    latents = targets(images)
    assert latents.shape == (4, 8, 8, 8)
    torch.testing.assert_close(latents[:, :4], old.encode(F.avg_pool2d(images, 2)).latent_dist.mean)
    scaled = latents[:, 4:] * old.config["scaling_factor"]
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(4), atol=1e-3, rtol=0)


def test_a_patch_lies_under_the_place_of_its_latents(targets, images):
    place = images[1, :, 16:24, 40:48].flatten()  # colour, row, column, as pixel_unshuffle has them
    details = (place @ targets.components - targets.mean) / targets.std / targets.scale
    torch.testing.assert_close(targets(images)[1, 4:, 2, 5], details, atol=1e-4, rtol=1e-4)


def test_components_are_those_that_most_of_the_error_lies_in(targets, images):
    missing = targets.patches(images - targets.restored(images))
    torch.testing.assert_close(targets.components.T @ targets.components, torch.eye(4), atol=1e-4, rtol=0)
    within = (missing @ targets.components).square().sum(0)
    assert targets.explained == pytest.approx((within.sum() / missing.square().sum()).item(), rel=1e-3)
    assert within.tolist() == sorted(within.tolist(), reverse=True)
    anything, _ = torch.linalg.qr(torch.randn(192, 4, generator=torch.Generator().manual_seed(0)))
    assert (missing @ anything).square().sum() < 0.5 * within.sum()


def test_new_channels_begin_near_their_targets(old, targets, images):
    torch.manual_seed(0)
    vae = grow_autoencoder(old, 8)
    before = vae.encode(images).latent_dist.mean[:, :4]
    fit_new_channels(vae, targets, images)
    latents, wanted = vae.encode(images).latent_dist.mean, targets(images)
    torch.testing.assert_close(latents[:, :4], before)
    left = (latents - wanted)[:, 4:].square().mean() / wanted[:, 4:].var()
    assert left < 0.3
