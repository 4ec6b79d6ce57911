"""Stable Diffusion 1.x, in either layout, into a face-swap checkpoint that a training begins with."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from faceswap_diffusion.checkpoint_files import EMBEDDED_CHECKPOINT
from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conversion.compvis import UNET_PREFIX, VAE_PREFIX, compvis_shape, unet_keys, vae_keys
from faceswap_diffusion.conversion.output import check_output, written
from faceswap_diffusion.conversion.reface import (
    LEFT_OUT,
    PUBLISHED,
    SCHEDULE,
    TRAINING_STATE,
    Architecture,
    clip_feature_extractor,
    stable_diffusion_scheduler,
)
from faceswap_diffusion.conversion.torch_files import Checkpoint, read_checkpoint
from faceswap_diffusion.conversion.weights import (
    ConversionReport,
    cast,
    check_weights,
    fill,
    reason_to_leave_out,
)
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline

NO_TEXT = "the text encoder: conditions come from pictures"
LEFT_OUT_OF_STABLE_DIFFUSION = {
    **{name: reason for name, reason in LEFT_OUT.items() if reason == SCHEDULE},
    "cond_stage_model.": NO_TEXT,
    "model_ema.": "moving averages of the weights",
}
