"""The reduced checkpoint that the golden tensors belong to: its architecture, and the Lightning file rebuilt."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from faceswap_diffusion.conversion.reface import PUBLISHED, Architecture, stable_diffusion_scheduler
from tests.parity.synthetic_weights import is_synthetic, synthetic_tensor

HERE = Path(__file__).parent

REDUCED = Architecture(
    unet={**PUBLISHED.unet, "sample_size": 32, "block_out_channels": (32, 64, 128, 128), "cross_attention_dim": 64},
    vae={**PUBLISHED.vae, "sample_size": 256, "block_out_channels": (32, 64, 128, 128)},
    image_encoder={
        **PUBLISHED.image_encoder, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "patch_size": 32, "projection_dim": 64,
    },
    conditioner={**PUBLISHED.conditioner, "clip_embed_dim": 64, "cross_attention_dim": 64},
    pipeline={**PUBLISHED.pipeline, "crop_size": 256},
)  # fmt: skip
REDUCED_MODE = replace(REDUCED, pipeline={**REDUCED.pipeline, "masked_latents": "mode"})  # as the golden tensors


class TrainerState:
    """Stands for the classes of other packages that a Lightning file pickles."""

    def __init__(self):
        self.best_score = torch.tensor(0.5)


def reduced_weights() -> dict[str, torch.Tensor]:
    """Every weight and the schedule of the checkpoint that gave the golden tensors."""
    keys = json.loads((HERE / "keys.json").read_text())
    weights = {key: synthetic_tensor(key, shape) for key, (_, shape) in keys.items() if is_synthetic(key)}
    scheduler = stable_diffusion_scheduler()
    return {**weights, "betas": scheduler.betas, "alphas_cumprod": scheduler.alphas_cumprod}


def lightning_file(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """What a Lightning checkpoint holds around its weights."""
    return {
        "epoch": 19,
        "pytorch-lightning_version": "1.4.2",
        "state_dict": weights,
        "optimizer_states": [{"state": {0: {"step": 10, "exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-5}]}],
        "callbacks": {TrainerState: TrainerState(), "checkpoint": {"paths": {"a", "b"}, "scores": (1.5, None, True)}},
    }
