"""A whole swap through the pipeline's `__call__` against golden tensors of the original REFace implementation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline
from tests.parity.test_conditioner_parity import CONDITIONER_KEYS, ENCODER_KEYS, relative_error, weights
from tests.tiny import tiny_scheduler


def load_unet() -> UNet2DConditionModel:
    unet = UNet2DConditionModel(
        sample_size=32,
        in_channels=9,
        out_channels=4,
        block_out_channels=(32, 64, 128, 128),
        cross_attention_dim=64,
        attention_head_dim=8,
    )
    checkpoint = weights({"model.diffusion_model.": "model.diffusion_model."})
    unet.load_state_dict(convert_ldm_unet_checkpoint(checkpoint, unet.config))
    return unet.eval()


def load_vae() -> AutoencoderKL:
    config: dict[str, Any] = {
        "block_out_channels": (32, 64, 128, 128),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "layers_per_block": 2,
        "latent_channels": 4,
        "sample_size": 256,
        "scaling_factor": 0.18215,
    }
    vae = AutoencoderKL(**config)
    checkpoint = weights({"first_stage_model.": "first_stage_model."})
    vae.load_state_dict(convert_ldm_vae_checkpoint(checkpoint, vae.config))
    return vae.eval()


def load_image_encoder() -> CLIPVisionModelWithProjection:
    encoder = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            image_size=224,
            patch_size=32,
            projection_dim=64,
        )
    )
    encoder.load_state_dict(weights(ENCODER_KEYS))
    return encoder.eval()


def load_conditioner() -> FaceConditioner:
    conditioner = FaceConditioner(identity_network="ir_se50", clip_embed_dim=64, cross_attention_dim=64)
    conditioner.load_state_dict(weights(CONDITIONER_KEYS), strict=False)
    return conditioner.eval()


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(Path(__file__).parent / "golden.safetensors")


@pytest.fixture(scope="module")
def pipe() -> FaceSwapInpaintPipeline:
    pipe = FaceSwapInpaintPipeline(
        vae=load_vae(),
        unet=load_unet(),
        image_encoder=load_image_encoder(),
        feature_extractor=CLIPImageProcessorPil(),
        conditioner=load_conditioner(),
        scheduler=tiny_scheduler(),
        channel_order="latents,masked_image_latents,keep_mask",
        masked_latents="mode",
        crop_size=256,
        identity_size=224,
        mask_identity=True,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def arguments(pipe, golden) -> dict[str, Any]:
    """What a call takes for the golden inputs; the source was stored as the view of its encoder."""
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (pipe.feature_extractor.image_mean, pipe.feature_extractor.image_std)
    )
    with torch.no_grad():
        view = golden["source_clip_pixels"]
        return {
            "image": golden["target_pixels"] / 2 + 0.5,
            "mask_image": 1 - golden["keep_mask"],
            "identity_embeds": pipe.conditioner.encode_identity(2 * (view * std + mean) - 1),
            "source_clip_embeds": pipe.image_encoder(view).image_embeds,
            "landmarks": golden["landmarks"].view(2, 68, 2),
        }


def test_context(pipe, arguments, golden):
    conditions = {name: value for name, value in arguments.items() if name != "mask_image"}
    with torch.no_grad():
        context = pipe.encode_condition(**conditions)
    assert relative_error(context, golden["conditioning"]) <= 1e-5


def test_masked_latents_and_latent_mask(pipe, golden):
    image = golden["target_pixels"] / 2 + 0.5
    pixels = pipe.preprocess(image, 256, 256)
    mask = pipe.preprocess_mask(1 - golden["keep_mask"], image, 256, 256)
    with torch.no_grad():
        mask_latents, masked = pipe.prepare_mask_latents(
            pixels, mask, None, torch.float32, torch.device("cpu"), generator=None
        )
    assert torch.allclose(1 - mask_latents, golden["latent_keep_mask"], atol=1e-6)
    assert relative_error(masked, golden["masked_latents_mode"]) <= 1e-5


def test_one_prediction(pipe, golden):
    pipe._guidance_scale = 1.0
    for index, timestep in enumerate(golden["timestep"]):
        one = slice(index, index + 1)
        with torch.no_grad():
            noise_pred = pipe.predict_noise(
                golden["initial_noise"][one],
                timestep,
                golden["conditioning"][one],
                1 - golden["latent_keep_mask"][one],
                golden["masked_latents_mode"][one],
            )
        assert relative_error(noise_pred, golden["unet_eps"][one]) <= 1e-5


@pytest.mark.parametrize("steps", [4, 10, pytest.param(50, marks=pytest.mark.slow)])
def test_swap(pipe, arguments, golden, steps):
    settings = {"latents": golden["initial_noise"], "num_inference_steps": steps, "guidance_scale": 3.5}
    latents = pipe(**arguments, **settings, output_type="latent").images
    assert torch.equal(pipe.scheduler.timesteps.flip(0), golden[f"timesteps_ddim{steps}"].sort().values)
    assert relative_error(latents, golden[f"latents_ddim{steps}"]) <= 1e-5
    with torch.no_grad():
        decoded = pipe.vae.decode(latents / 0.18215).sample
    assert relative_error(decoded, golden[f"image_ddim{steps}"]) <= 1e-5
    images = pipe.image_processor.postprocess(decoded, output_type="pt")
    assert torch.allclose(images, (golden[f"image_ddim{steps}"] / 2 + 0.5).clamp(0, 1), atol=1e-4)
