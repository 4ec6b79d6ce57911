"""Tiny components with the classes of a real checkpoint, random weights from a seed: a swap takes milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from PIL import Image
from transformers import CLIPImageProcessorPil, CLIPVisionConfig, CLIPVisionModelWithProjection

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import FEW_STEPS, FEW_STEPS_FOLDER
from faceswap_diffusion.training.engine.checkpoints import save_lora
from faceswap_diffusion.training.objectives.distillation import make_student

CROP_SIZE = 32
CROSS_ATTENTION_DIM = 16
CLIP_DIM = 12
TINY_SETTINGS: dict[str, Any] = {
    "channel_order": "latents,masked_image_latents,keep_mask", "masked_latents": "sample", "shown_regions": "face",
    "landmark_scale": 1.0, "hidden_fill": "grey", "geometry_share": 0.0, "mask_identity": False,
    "default_num_inference_steps": 2, "default_strength": 1.0, "default_guidance_scale": 3.5,
}  # fmt: skip


def tiny_vae(seed: int = 0, latent_channels: int = 4, num_halvings: int = 1) -> AutoencoderKL:
    torch.manual_seed(seed)
    config: dict[str, Any] = {
        "block_out_channels": (8, *(16,) * num_halvings),
        "down_block_types": ("DownEncoderBlock2D",) * (num_halvings + 1),
        "up_block_types": ("UpDecoderBlock2D",) * (num_halvings + 1),
        "latent_channels": latent_channels,
        "norm_num_groups": 4,
        "sample_size": CROP_SIZE,
    }
    return AutoencoderKL(**config).eval()


def tiny_autoencoder(kind: str, seed: int = 0) -> Any:
    """An autoencoder of factor 2 and four channels, of any kind that `pipelines/latents.py` knows."""
    torch.manual_seed(seed)
    kinds: dict[str, Callable[[], Any]] = {
        "AutoencoderKL": tiny_vae,
        "AutoencoderTiny": lambda: AutoencoderTiny(
            encoder_block_out_channels=(8, 8), decoder_block_out_channels=(8, 8), num_encoder_blocks=(1, 1),
            num_decoder_blocks=(1, 1),
        ),
        "AutoencoderDC": lambda: AutoencoderDC(
            latent_channels=4, attention_head_dim=4, encoder_block_out_channels=(8, 16),
            decoder_block_out_channels=(8, 16), encoder_layers_per_block=(1, 1), decoder_layers_per_block=(1, 1),
            encoder_qkv_multiscales=((), ()), decoder_qkv_multiscales=((), ()), scaling_factor=0.5,
        ),
        "AsymmetricAutoencoderKL": lambda: AsymmetricAutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2, down_block_out_channels=(8, 16),
            up_block_types=("UpDecoderBlock2D",) * 2, up_block_out_channels=(16, 24), norm_num_groups=4,
        ),
    }  # fmt: skip
    return kinds[kind]().eval()


def small_vae(seed: int = 0) -> AutoencoderKL:
    """An autoencoder of a small model's kind: factor 4, four channels."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(16, 32, 64),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        latent_channels=4,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=128,
        scaling_factor=0.5,
    ).eval()


def tiny_unet(seed: int = 0, latent_channels: int = 4, crop_size: int = CROP_SIZE) -> UNet2DConditionModel:
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=crop_size // 2,
        in_channels=2 * latent_channels + 1,
        out_channels=latent_channels,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=CROSS_ATTENTION_DIM,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


def tiny_image_encoder(seed: int = 0) -> CLIPVisionModelWithProjection:
    torch.manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=32,
        projection_dim=CLIP_DIM,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=24,
        patch_size=8,
    )
    return CLIPVisionModelWithProjection(config).eval()


def tiny_feature_extractor() -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24})


def tiny_conditioner(seed: int = 0, **config: Any) -> FaceConditioner:
    torch.manual_seed(seed)
    small: dict[str, Any] = {
        "identity_network": "sface",
        "clip_embed_dim": CLIP_DIM,
        "cross_attention_dim": CROSS_ATTENTION_DIM,
        "mapper_layers": 1,
    }
    return FaceConditioner(**{**small, **config}).eval()


def tiny_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        steps_offset=1,
        clip_sample=False,
        set_alpha_to_one=False,
    )


def tiny_components(seed: int = 0, crop_size: int = CROP_SIZE) -> dict[str, Any]:
    """All six components of a pipeline."""
    return {
        "vae": tiny_vae(seed),
        "unet": tiny_unet(seed, crop_size=crop_size),
        "image_encoder": tiny_image_encoder(seed),
        "feature_extractor": tiny_feature_extractor(),
        "conditioner": tiny_conditioner(seed),
        "scheduler": tiny_scheduler(),
    }


def tiny_pipeline(seed: int = 0, crop_size: int = CROP_SIZE, **settings: Any) -> FaceSwapInpaintPipeline:
    """A pipeline of tiny components, for crops of `CROP_SIZE` pixels, 2 steps unless told otherwise."""
    settings = {**TINY_SETTINGS, "requires_safety_checker": False, **settings}
    pipeline = FaceSwapInpaintPipeline(**tiny_components(seed, crop_size), **settings)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def save_with_few_steps(pipeline: FaceSwapInpaintPipeline, folder: Path, num_inference_steps: int = FEW_STEPS) -> None:
    """Saves a checkpoint, with a few-step version of random layers that divides its default steps."""
    pipeline.save_pretrained(folder)
    make_student(pipeline, "lora", 2, pipeline.config["default_num_inference_steps"], num_inference_steps)
    torch.manual_seed(0)
    for name, layer in pipeline.unet.named_parameters():
        if "lora_B" in name:  # 0 at first, so that nothing changes
            torch.nn.init.normal_(layer, std=0.1)
    save_lora(pipeline, folder / FEW_STEPS_FOLDER)


def tiny_picture(seed: int = 0, size: int = CROP_SIZE) -> Image.Image:
    """An RGB picture with detail at every scale."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def tiny_mask(size: int = CROP_SIZE) -> Image.Image:
    """White in the middle, black around it, a grey border between: soft, as real masks are."""
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : -size // 4, size // 4 : -size // 4] = 128
    mask[size // 4 + 1 : -size // 4 - 1, size // 4 + 1 : -size // 4 - 1] = 255
    return Image.fromarray(mask)


def tiny_landmarks(batch_size: int = 1, size: int = CROP_SIZE) -> torch.Tensor:
    """68 points within the picture, in pixels."""
    return torch.rand(batch_size, 68, 2, generator=torch.Generator().manual_seed(0)) * size


def tiny_inputs(seed: int = 0) -> dict[str, Any]:
    """Arguments for one swap, with a generator."""
    return {
        "image": tiny_picture(1),
        "source_image": tiny_picture(2),
        "mask_image": tiny_mask(),
        "source_mask_image": tiny_mask(),
        "landmarks": tiny_landmarks(),
        "generator": torch.Generator().manual_seed(seed),
        "output_type": "pt",
    }


def odd_exif() -> bytes:
    """EXIF whose orientation is the text "6", which Pillow reads and does not write."""
    entry = (274).to_bytes(2, "little") + (2).to_bytes(2, "little") + (2).to_bytes(4, "little") + b"6\0\0\0"
    return b"Exif\0\0II*\0" + (8).to_bytes(4, "little") + (1).to_bytes(2, "little") + entry + bytes(4)
