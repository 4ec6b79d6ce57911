"""What becomes of a swap model whose autoencoder is exchanged for one with other latents."""

import copy

import pytest
import torch

from faceswap_diffusion.conditioning.geometry import identity_geometry
from faceswap_diffusion.pipelines.faceswap_inpaint import CHANNEL_ORDERS, FaceSwapInpaintPipeline, assemble_unet_input
from faceswap_diffusion.training.data.dataset import resize_landmarks
from faceswap_diffusion.training.models.new_model import (
    build_unet,
    exchange_autoencoder,
    resize_checkpoint,
    widen_unet,
)
from tests.tiny import (
    CROSS_ATTENTION_DIM,
    tiny_conditioner,
    tiny_inputs,
    tiny_picture,
    tiny_pipeline,
    tiny_unet,
    tiny_vae,
)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
@pytest.mark.parametrize("channel_order", CHANNEL_ORDERS)
def test_a_wider_unet_does_with_the_old_channels_what_it_did_and_leaves_new_ones_0(channel_order):
    narrow, context = tiny_unet(), noise(1, 1, CROSS_ATTENTION_DIM)
    wide = copy.deepcopy(narrow)
    widen_unet(wide, 6, channel_order)
    latents, masked, mask = noise(1, 6, 8, 8), noise(1, 6, 8, 8, seed=1), noise(1, 1, 8, 8, seed=2)
    expected = narrow(
        assemble_unet_input(latents[:, :4], masked[:, :4], mask, channel_order), 500, context
    ).sample  # fmt: skip
    got = wide(assemble_unet_input(latents, masked, mask, channel_order), 500, context).sample
    assert got.shape == (1, 6, 8, 8)
    torch.testing.assert_close(got[:, :4], expected)
    assert not got[:, 4:].any()
    assert (wide.config["in_channels"], wide.config["out_channels"]) == (13, 6)


def test_new_weights_are_trained():
    unet = tiny_unet()
    widen_unet(unet, 6, CHANNEL_ORDERS[0])
    for parameters in (unet.conv_in, unet.conv_out):
        assert all(parameter.requires_grad for parameter in parameters.parameters())
    unet(noise(1, 13, 8, 8), 500, noise(1, 1, CROSS_ATTENTION_DIM)).sample.square().sum().backward()
    # New inputs, latents 4 and 5 and masked latents 10 and 11, are weighed by 0, but move at once.
    assert (unet.conv_in.weight.grad.abs().amax(dim=(0, 2, 3)) > 0).all()
    unet(noise(1, 13, 8, 8), 500, noise(1, 1, CROSS_ATTENTION_DIM)).sample.sum().backward()
    assert (unet.conv_out.weight.grad.abs().amax(dim=(1, 2, 3)) > 0).all()


def test_a_unet_is_not_made_narrower():
    with pytest.raises(ValueError, match="latents have 3 channels, the UNet is for 4: take one of 4 channels or more"):
        widen_unet(tiny_unet(), 3, CHANNEL_ORDERS[0])


def test_a_model_goes_on_with_an_autoencoder_of_more_channels_and_another_factor(tmp_path):
    pipeline = tiny_pipeline(hidden_fill="reference", default_strength=0.5, landmark_scale=0.5)
    exchanged = exchange_autoencoder(pipeline, tiny_vae(latent_channels=8, num_halvings=3))
    assert exchanged.vae_scale_factor == 8
    assert (exchanged.config["default_strength"], exchanged.config["landmark_scale"]) == (0.5, 0.5)
    assert exchanged.conditioner is pipeline.conditioner
    inputs = {**tiny_inputs(), "reference_image": tiny_picture(5)}
    expected = exchanged(**inputs).images
    assert expected.shape == (1, 3, 32, 32)
    exchanged.save_pretrained(tmp_path)
    loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
    assert torch.equal(loaded(**{**inputs, "generator": torch.Generator().manual_seed(0)}).images, expected)


def test_a_model_for_larger_crops_sees_the_same_landmarks_and_knows_their_geometry(tmp_path):
    pipeline = tiny_pipeline()
    conditioner = tiny_conditioner(identity_geometry=True)
    conditioner.geometry_coefficients.copy_(noise(58, 136))
    pipeline.register_modules(conditioner=conditioner)
    landmarks, pose, expression = noise(3, 68, 2) * 10 + 16, noise(3, 3), noise(3, 52).abs()
    small = identity_geometry(landmarks, pose, expression, conditioner.geometry_coefficients.clone())
    resize_checkpoint(pipeline, 64)
    assert (pipeline.config["crop_size"], pipeline.config["landmark_scale"]) == (64, 0.5)
    large = torch.from_numpy(resize_landmarks(landmarks.numpy(), 32, 64))
    assert torch.equal(large[:, 0], landmarks[:, 0] * 2 + 0.5)
    got = identity_geometry(large, pose, expression, conditioner.geometry_coefficients)
    torch.testing.assert_close(got, small * 2, rtol=1e-4, atol=1e-4)
    resize_checkpoint(pipeline, 32)
    assert (pipeline.config["crop_size"], pipeline.config["landmark_scale"]) == (32, 1.0)
    again = identity_geometry(landmarks, pose, expression, conditioner.geometry_coefficients)
    torch.testing.assert_close(again, small, rtol=1e-4, atol=1e-4)


def test_a_conditioner_without_geometry_is_resized_as_well():
    pipeline = tiny_pipeline(landmark_scale=0.25)
    resize_checkpoint(pipeline, 128)
    assert (pipeline.config["crop_size"], pipeline.config["landmark_scale"]) == (128, 0.0625)


def test_the_same_number_of_channels_leaves_the_unet_as_it_is():
    pipeline = tiny_pipeline()
    before = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    vae = tiny_vae(seed=1)
    exchanged = exchange_autoencoder(pipeline, vae)
    assert exchanged.vae is vae
    assert all(torch.equal(tensor, before[name]) for name, tensor in exchanged.unet.state_dict().items())


@pytest.mark.parametrize("latent_channels", [4, 8])
def test_a_new_unet_is_one_for_its_autoencoder(latent_channels):
    unet = build_unet((32, 32, 32, 32), 32, latent_channels)
    assert (unet.conv_in.in_channels, unet.conv_out.out_channels) == (2 * latent_channels + 1, latent_channels)
