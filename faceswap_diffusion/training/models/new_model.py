# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportIndexIssue=false, reportOptionalSubscript=false
# diffusers annotates its models too loosely for the checker.
"""Swap models around a finished autoencoder: a new one with the architecture of the package's, or one that goes on."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn
from transformers import CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conditioning.geometry import fit_geometry
from faceswap_diffusion.faces.landmarks import dlib68
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline, assemble_unet_input
from faceswap_diffusion.pipelines.latents import Autoencoder, channel_count, load_autoencoder, spatial_factor
from faceswap_diffusion.safety.checker import SafetyChecker
from faceswap_diffusion.training.data.dataset import PreparedFaces

CROSS_ATTENTION_DIM = 192


def build_unet(block_out_channels: Sequence[int], sample_size: int, latent_channels: int = 4) -> UNet2DConditionModel:
    """Attention in the two middle levels; the context also modulates every residual block (`addition_embed_type`).

    Args:
        block_out_channels (`Sequence[int]`): Channels of the four levels, multiples of 32.
        sample_size (`int`): Side of the latents.
        latent_channels (`int`): Of the autoencoder.
    """
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=2 * latent_channels + 1,
        out_channels=latent_channels,
        block_out_channels=tuple(block_out_channels),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=CROSS_ATTENTION_DIM,
        attention_head_dim=tuple(channels // 32 for channels in block_out_channels),
        norm_num_groups=8,
        resnet_time_scale_shift="scale_shift",
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
    )


def build_conditioner(clip_embed_dim: int, faces: PreparedFaces) -> FaceConditioner:
    """A conditioner of four kinds of tokens, which knows mean, spread and geometry of the faces' landmarks.

    Args:
        clip_embed_dim (`int`): Width of the image encoder's `image_embeds`.
        faces (`PreparedFaces`): What it is going to be trained on.
    """
    conditioner = FaceConditioner(
        identity_network="sface", clip_embed_dim=clip_embed_dim, cross_attention_dim=CROSS_ATTENTION_DIM,
        mapper_layers=0, identity_tokens=4, clip_tokens=1, landmark_tokens=4, combine="concat",
        identity_weight=2.0, clip_weight=0.5, landmark_weight=1.0, hidden_dim=192, identity_geometry=True,
    )  # fmt: skip
    # An embedding of unit length through weights of unit variance gives activations of unit variance.
    torch.nn.init.normal_(conditioner.identity_projection[0].weight, std=1.0)
    landmarks = torch.from_numpy(np.stack([dlib68(points) for points in faces.column("landmarks")])).float()
    head_pose, blendshapes = (torch.from_numpy(faces.column(name)) for name in ("head_pose", "blendshapes"))
    conditioner.landmark_mean.copy_(landmarks.flatten(1).mean(0))
    conditioner.landmark_std.copy_(landmarks.flatten(1).std(0))
    conditioner.geometry_coefficients.copy_(fit_geometry(landmarks, head_pose, blendshapes))
    return conditioner


def build_pipeline(
    vae_folder: Path,
    image_encoder_folder: Path,
    faces: PreparedFaces,
    block_out_channels: Sequence[int] = (32, 64, 128, 192),
    prediction_type: str = "v_prediction",
) -> FaceSwapInpaintPipeline:
    """A pipeline with a random UNet and conditioner.

    Args:
        vae_folder (`Path`): An autoencoder, as from `train/train_autoencoder.py`.
        image_encoder_folder (`Path`): Holds `image_encoder` and `feature_extractor`, from
            `train/train_image_encoder.py`.
        faces (`PreparedFaces`): What it is going to be trained on; their resolution becomes the crop size.
        block_out_channels (`Sequence[int]`): See `build_unet`.
        prediction_type (`str`): `"epsilon"` or `"v_prediction"`.
    """
    vae = load_autoencoder(vae_folder)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(image_encoder_folder / "image_encoder")
    return FaceSwapInpaintPipeline(
        vae=vae,
        unet=build_unet(block_out_channels, faces.resolution // spatial_factor(vae), channel_count(vae)),
        image_encoder=image_encoder,
        feature_extractor=CLIPImageProcessorPil.from_pretrained(image_encoder_folder / "feature_extractor"),
        conditioner=build_conditioner(image_encoder.config.projection_dim, faces),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False,
            set_alpha_to_one=False, prediction_type=prediction_type, timestep_spacing="trailing",
        ),
        safety_checker=SafetyChecker(),
        channel_order="latents,masked_image_latents,keep_mask",
        masked_latents="sample",
        crop_size=faces.resolution,
        shown_regions="face",
        landmark_scale=1.0,
        hidden_fill="grey",
        geometry_share=0.5,
        mask_identity=False,
        default_num_inference_steps=5,
        default_strength=1.0,
        default_guidance_scale=1.0,
    )  # fmt: skip


def exchange_autoencoder(pipeline: FaceSwapInpaintPipeline, vae: Autoencoder) -> FaceSwapInpaintPipeline:
    """The same swap model around another autoencoder, whose latents may have more channels.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): Whose UNet is widened in place.
        vae (`Autoencoder`): Finished.

    Raises:
        ValueError: If its latents have fewer channels than the UNet knows.
    """
    widen_unet(pipeline.unet, channel_count(vae), pipeline.config["channel_order"])
    pipeline.unet.register_to_config(sample_size=pipeline.config["crop_size"] // spatial_factor(vae))
    return FaceSwapInpaintPipeline(**{**pipeline.components, "vae": vae}, **pipeline.settings)


@torch.no_grad()
def resize_checkpoint(pipeline: FaceSwapInpaintPipeline, crop_size: int) -> None:
    """Makes a swap model one for crops of another size. What its conditioner sees of them stays as it was.

    With an autoencoder whose factor grew as the crops did, latents keep their size, and the UNet knows them.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): Changed in place.
        crop_size (`int`): Side in pixels.
    """
    factor = crop_size / pipeline.config["crop_size"]
    pipeline.register_to_config(crop_size=crop_size, landmark_scale=pipeline.config["landmark_scale"] / factor)
    pipeline.unet.register_to_config(sample_size=crop_size // pipeline.vae_scale_factor)
    if pipeline.conditioner.config["identity_geometry"]:
        coefficients = pipeline.conditioner.geometry_coefficients
        coefficients *= factor
        coefficients[0] += (factor - 1) / 2  # the constant: pixels are counted from the first one's centre


def widen_unet(unet: UNet2DConditionModel, latent_channels: int, channel_order: str) -> None:
    """Makes an inpainting UNet one for latents of more channels: new weights are 0, old ones stay with their channels.

    Args:
        unet (`UNet2DConditionModel`): Changed in place.
        latent_channels (`int`): Number of latent channels.
        channel_order (`str`): Of its inputs, see `assemble_unet_input`.

    Raises:
        ValueError: If there are more already.
    """
    num_known = unet.config["out_channels"]
    if latent_channels < num_known:
        raise ValueError(
            f"the autoencoder's latents have {latent_channels} channels, the UNet is for {num_known}: take one of "
            f"{num_known} channels or more"
        )
    known = (torch.arange(latent_channels) < num_known).float().view(1, -1, 1, 1)
    mask = torch.full((1, 1, 1, 1), 0.5)  # neither 0 nor 1: known, whichever its polarity
    known_inputs = assemble_unet_input(known, known, mask, channel_order).flatten() > 0
    unet.conv_in = widened(unet.conv_in, known_inputs, torch.ones(unet.conv_in.out_channels, dtype=torch.bool))
    unet.conv_out = widened(
        unet.conv_out, torch.ones(unet.conv_out.in_channels, dtype=torch.bool), known.flatten() > 0
    )
    unet.register_to_config(in_channels=len(known_inputs), out_channels=latent_channels)


def widened(conv: nn.Conv2d, known_inputs: torch.Tensor, known_outputs: torch.Tensor) -> nn.Conv2d:
    """A convolution with more channels: `conv` on those that are marked in (C_in,) and (C_out,) bool, 0 elsewhere."""
    wide = nn.Conv2d(len(known_inputs), len(known_outputs), conv.kernel_size, conv.stride, conv.padding)
    for parameter in wide.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        wide.weight[known_outputs[:, None] & known_inputs] = conv.weight.flatten(0, 1)
        wide.bias[known_outputs] = conv.bias
    return wide
