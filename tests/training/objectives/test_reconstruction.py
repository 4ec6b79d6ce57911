"""What is told of an autoencoder's reconstructions."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image

from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.objectives.reconstruction import load_crops, reconstruct
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT
from tests.tiny import CROP_SIZE


@pytest.fixture(scope="module")
def crops(prepared_faces) -> torch.Tensor:
    faces = PreparedFaces([prepared_faces], CROP_SIZE)
    return load_crops(faces, range(len(faces)))


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    return AutoencoderKL.from_pretrained(EMBEDDED_CHECKPOINT / "vae", torch_dtype=torch.float32)


def test_figures_are_means_over_pictures(vae, crops):
    result = reconstruct(vae, crops, batch_size=3)
    assert result.images.shape == crops.shape
    got, wanted = result.images.numpy(), crops.numpy()
    psnr = [
        10 * np.log10(2**2 / np.square(view - original).mean()) for view, original in zip(got, wanted, strict=True)
    ]
    assert result.psnr == pytest.approx(np.mean(psnr), abs=1e-3)
    energies = [
        sum(np.square(np.diff(pictures, axis=axis)).mean(axis=(1, 2, 3)) for axis in (2, 3))
        for pictures in (got, wanted)
    ]
    assert result.gradient_energy == pytest.approx(np.mean(energies[0] / energies[1]), rel=1e-4)


def test_the_autoencoder_of_the_package_keeps_what_faces_look_like(vae, example_images):
    photos = [np.asarray(Image.open(path).resize((256, 256))) for path in sorted(example_images.glob("p0*.jpg"))]
    images = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).float() / 127.5 - 1
    result = reconstruct(vae, images)
    assert result.psnr > 24
    # Half as fine as the crop: what is finer comes from the reference, see `compositing.keep_reference`.
    shrunk = [F.avg_pool2d(view, 2) for view in (result.images, images)]
    energies = [sum(view.diff(dim=axis).square().mean(dim=(1, 2, 3)) for axis in (2, 3)) for view in shrunk]
    assert 0.6 < (energies[0] / energies[1]).mean() < 1.2
    assert result.latent_std * vae.config["scaling_factor"] == pytest.approx(1, abs=0.25)


def test_it_does_not_matter_how_many_go_through_at_a_time(vae, crops):
    alone, together = reconstruct(vae, crops, batch_size=1), reconstruct(vae, crops, batch_size=len(crops))
    torch.testing.assert_close(alone.images, together.images, atol=1e-4, rtol=0)
    assert alone.psnr == pytest.approx(together.psnr, abs=1e-3)
