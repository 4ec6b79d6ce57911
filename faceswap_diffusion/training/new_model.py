# pyright: reportArgumentType=false, reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# pyright: reportIndexIssue=false
# diffusers annotates its models too loosely for the checker.
"""A new swap model around a finished autoencoder and image encoder: the architecture of the model in the package."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers import CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conditioning.geometry import fit_geometry
from faceswap_diffusion.faces.landmarks import dlib68
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.training.dataset import PreparedFaces

CROSS_ATTENTION_DIM = 192


def build_unet(block_out_channels: Sequence[int], sample_size: int) -> UNet2DConditionModel:
    """Attention in the two middle levels; the context also modulates every residual block (`addition_embed_type`).

    Args:
        block_out_channels (`Sequence[int]`): Channels of the four levels, multiples of 32.
        sample_size (`int`): Side of the latents.
    """
    return UNet2DConditionModel(
        sample_size=sample_size,
        in_channels=9,
        out_channels=4,
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
        vae_folder (`Path`): An `AutoencoderKL`, from `train/train_autoencoder.py`.
        image_encoder_folder (`Path`): Holds `image_encoder` and `feature_extractor`, from
            `train/train_image_encoder.py`.
        faces (`PreparedFaces`): What it is going to be trained on; their resolution becomes the crop size.
        block_out_channels (`Sequence[int]`): See `build_unet`.
        prediction_type (`str`): `"epsilon"` or `"v_prediction"`.
    """
    vae = AutoencoderKL.from_pretrained(vae_folder)
    image_encoder = CLIPVisionModelWithProjection.from_pretrained(image_encoder_folder / "image_encoder")
    num_halvings = len(vae.config["block_out_channels"]) - 1
    return FaceSwapInpaintPipeline(
        vae=vae,
        unet=build_unet(block_out_channels, faces.resolution // 2**num_halvings),
        image_encoder=image_encoder,
        feature_extractor=CLIPImageProcessorPil.from_pretrained(image_encoder_folder / "feature_extractor"),
        conditioner=build_conditioner(image_encoder.config.projection_dim, faces),
        scheduler=DDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False,
            set_alpha_to_one=False, prediction_type=prediction_type, timestep_spacing="trailing",
        ),
        crop_size=faces.resolution,
        geometry_share=0.5,
        default_num_inference_steps=5,
        default_guidance_scale=1.0,
    )  # fmt: skip
