"""Which parameters of a checkpoint a run trains."""

import hashlib
from collections.abc import Sequence

import torch
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from peft import LoraConfig
from torch import nn

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline

TRAINING_MODES = ("full", "attention", "lora")
LORA_LAYERS = ["to_q", "to_k", "to_v", "to_out.0"]


def select_trainable(pipeline: FaceSwapInpaintPipeline, mode: str, lora_rank: int = 16) -> None:
    """Freezes everything in a pipeline that is not trained, and sets the networks to training or evaluation mode.

    Autoencoder, image encoder and recogniser are always frozen. REFace's released code leaves its mapper and three
    projections of the conditioner untrained; here the conditioner is trained as a whole.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): Changed in place.
        mode (`str`): `"full"`: UNet and conditioner. `"attention"`: the UNet's attention layers and the conditioner.
            `"lora"`: low-rank additions to the UNet's attention layers (arXiv 2106.09685), and nothing else.
        lora_rank (`int`): Rank of these additions.

    Raises:
        ValueError: For an unknown mode.
    """
    if mode not in TRAINING_MODES:
        raise ValueError(f"got training mode {mode!r}; choose one of {', '.join(TRAINING_MODES)}")
    pipeline.vae.requires_grad_(False).eval()
    pipeline.image_encoder.requires_grad_(False).eval()
    pipeline.unet.requires_grad_(mode == "full").train()
    pipeline.conditioner.requires_grad_(mode != "lora").train()
    pipeline.conditioner.identity_encoder.requires_grad_(False).eval()
    if mode == "attention":
        for module in pipeline.unet.modules():
            if isinstance(module, Attention):
                module.requires_grad_(True)
    if mode == "lora":
        add_lora(pipeline.unet, lora_rank, LORA_LAYERS)


def add_lora(unet: UNet2DConditionModel, rank: int, layers: Sequence[str]) -> None:
    """Adds layers of low rank (arXiv 2106.09685), which change nothing yet.

    Args:
        unet (`UNet2DConditionModel`): Changed in place.
        rank (`int`): Of each.
        layers (`Sequence[str]`): Ends of the names of the layers that they are added to.
    """
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=[*layers]))


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters of a module that are trained, in its order."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def architecture_of(module: nn.Module) -> str:
    """SHA-256 over names and shapes of what is trained: states of one architecture do not fit another."""
    described = [
        f"{name} {tuple(parameter.shape)}" for name, parameter in module.named_parameters() if parameter.requires_grad
    ]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()


def build_optimizer(groups: list[dict], weight_decay: float, use_8bit_adam: bool) -> torch.optim.Optimizer:
    """AdamW (arXiv 1711.05101), or bitsandbytes' with states of 8 bits.

    Args:
        groups (`list[dict]`): Parameter groups with `lr` and `betas`.
        weight_decay (`float`): Of groups that name none.
        use_8bit_adam (`bool`): Whether to take bitsandbytes'.

    Raises:
        ValueError: If bitsandbytes is not installed.
    """
    if not use_8bit_adam:
        return torch.optim.AdamW(groups, weight_decay=weight_decay, fused=True)
    try:
        import bitsandbytes  # pyright: ignore[reportMissingImports] - no package for all platforms
    except ImportError as error:
        raise ValueError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes") from error
    return bitsandbytes.optim.AdamW8bit(groups, weight_decay=weight_decay)
