"""The kinds of autoencoders: each swaps, trains and is measured; others are refused by name."""

from types import SimpleNamespace

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.vq_model import VQModel

from faceswap_diffusion.pipelines import latents
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from tests.tiny import TINY_SETTINGS, tiny_autoencoder, tiny_components, tiny_inputs, tiny_vae

KINDS = [kind.__name__ for kind in latents.WIDTHS]


def pixels(batch_size: int = 2) -> torch.Tensor:
    return torch.rand(batch_size, 3, 32, 48, generator=torch.Generator().manual_seed(0)) * 2 - 1


def tiny_with(vae: torch.nn.Module) -> FaceSwapInpaintPipeline:
    pipeline = FaceSwapInpaintPipeline(**{**tiny_components(), "vae": vae}, **TINY_SETTINGS)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@torch.no_grad()
@pytest.mark.parametrize("kind", KINDS)
def test_pictures_come_back_in_their_shape(kind):
    vae = tiny_autoencoder(kind)
    encoded = latents.encode(vae, pixels())
    assert encoded.shape == (2, latents.channel_count(vae), 16, 24)
    assert latents.spatial_factor(vae) == 2
    assert latents.decode(vae, encoded).shape == pixels().shape
    torch.testing.assert_close(latents.decode(vae, encoded), latents.rebuild(vae, latents.posterior(vae, pixels())))


@torch.no_grad()
@pytest.mark.parametrize(("kind", "scale"), [*zip(KINDS, [0.18215, 1.0, 0.5, 0.18215], strict=True)])
def test_latents_are_what_the_encoder_says_times_the_scale(kind, scale):
    vae = tiny_autoencoder(kind)
    encoded = vae.encode(pixels())
    raw = {
        "AutoencoderTiny": lambda: encoded.latents, "AutoencoderDC": lambda: encoded.latent,
    }.get(kind, lambda: encoded.latent_dist.mode())()  # fmt: skip
    assert torch.equal(latents.encode(vae, pixels()), raw * scale)


@pytest.mark.parametrize(("kind", "shift"), [("AutoencoderKL", 0.25), ("AutoencoderTiny", -0.5)])
def test_a_shift_is_taken_off_before_the_scale_and_put_back_after_it(kind, shift):
    vae = tiny_autoencoder(kind)
    vae.register_to_config(scaling_factor=4.0, shift_factor=shift)
    raw = torch.tensor([1.0, 2.0])
    expected = {0.25: [3.0, 7.0], -0.5: [6.0, 10.0]}[shift]  # (1 - 0.25) * 4 and so on
    assert latents.scale(vae, raw).tolist() == expected
    assert latents.unscale(vae, torch.tensor(expected)).tolist() == [1.0, 2.0]


def test_a_shift_reaches_the_swap():
    """The decoder of a shifted autoencoder gets what that of an unshifted one gets, and the UNet less of it."""
    shifted, plain = tiny_vae(), tiny_vae()
    shifted.register_to_config(shift_factor=3.0)
    images = [tiny_with(vae)(**tiny_inputs()).images for vae in (plain, shifted)]
    assert (images[0] - images[1]).abs().max() > 1e-3
    pipeline = tiny_with(shifted)
    pipeline.register_to_config(masked_latents="mode")
    encoded = pipeline.encode_vae_image(pixels(), None)
    expected = (plain.encode(pixels()).latent_dist.mode() - 3.0) * 0.18215
    torch.testing.assert_close(encoded, expected)


@torch.no_grad()
def test_an_autoencoder_without_a_posterior_draws_no_random_numbers():
    vae, generator = tiny_autoencoder("AutoencoderTiny"), torch.Generator().manual_seed(0)
    drawn = latents.encode(vae, pixels(), sample=True, generator=generator)
    assert torch.equal(drawn, latents.encode(vae, pixels()))
    assert torch.equal(generator.get_state(), torch.Generator().manual_seed(0).get_state())
    assert not latents.posterior(vae, pixels()).std.any()


@torch.no_grad()
def test_a_sample_is_one_of_the_posterior():
    vae, generators = tiny_vae(), [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    posterior = vae.encode(pixels()).latent_dist
    again = [torch.Generator().manual_seed(seed) for seed in (3, 4)]
    noise = torch.cat([torch.randn(1, 4, 16, 24, generator=generator) for generator in again])
    expected = (posterior.mean + posterior.std * noise) * 0.18215
    torch.testing.assert_close(latents.encode(vae, pixels(), sample=True, generator=generators), expected)


def test_the_factor_of_an_asymmetric_autoencoder_is_its_encoders():
    vae = AsymmetricAutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3, down_block_out_channels=(8, 16, 24),
        up_block_types=("UpDecoderBlock2D",) * 2, up_block_out_channels=(16, 24), norm_num_groups=4,
    )  # fmt: skip
    assert latents.spatial_factor(vae) == 4
    assert latents.encoder_widths(vae) == (8, 16, 24)


@pytest.mark.parametrize("kind", KINDS)
def test_a_pipeline_swaps_with_every_kind_and_comes_back_from_its_folder(kind, tmp_path):
    pipeline = tiny_with(tiny_autoencoder(kind))
    images = pipeline(**tiny_inputs()).images
    assert images.shape == (1, 3, 32, 32)
    assert images.std() > 0
    pipeline.save_pretrained(tmp_path)
    loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert type(loaded.vae).__name__ == kind
    assert torch.equal(loaded(**tiny_inputs()).images, images)
    assert type(latents.load_autoencoder(tmp_path / "vae")).__name__ == kind


def test_a_compiled_autoencoder_is_still_of_its_kind():
    assert latents.spatial_factor(torch.compile(tiny_vae())) == 2


def test_an_unknown_kind_is_refused_by_name(tmp_path):
    vae = VQModel(norm_num_groups=4)
    told = "the autoencoder is of kind VQModel: use one of AutoencoderKL, AutoencoderTiny, AutoencoderDC, Asymm"
    with pytest.raises(ValueError, match=told):
        tiny_with(vae)
    vae.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=told):
        latents.load_autoencoder(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_freezing_the_encoder_leaves_the_decoder_alone(kind):
    vae = tiny_autoencoder(kind)
    latents.freeze_encoder(vae)
    for name, parameter in vae.named_parameters():
        assert parameter.requires_grad == name.startswith(("decoder.", "post_quant_conv.")), name


def test_old_checkpoints_are_scaled_to_the_byte_as_they_were():
    """Checkpoints of before there was a shift have none in their config, or one of `None`."""
    raw = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    for config in ({"scaling_factor": 0.18215}, {"scaling_factor": 0.18215, "shift_factor": None}):
        vae = SimpleNamespace(config=config)
        assert torch.equal(latents.scale(vae, raw), raw * 0.18215)
        assert torch.equal(latents.unscale(vae, raw), raw / 0.18215)
