"""A process of the test of FSDP: takes steps with its part of the batch, and gathers the weights."""

import torch
from accelerate import Accelerator
from safetensors.torch import save_file
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from faceswap_diffusion.training.config import LossConfig
from faceswap_diffusion.training.data.batches import SampleRoles, SwapBatch
from faceswap_diffusion.training.engine.trainable import select_trainable, trained_parameters
from faceswap_diffusion.training.objectives.objective import SwapObjective
from tests.tiny import CROP_SIZE, tiny_inputs, tiny_pipeline
from tests.train.divided_on_cpu import allow_dividing_on_cpu

BATCH_SIZE = 4
ROLES = SampleRoles.from_shares(0.25, 0.25)


def build_objective() -> SwapObjective:
    """Without a discriminator, whose spectral norms move with each batch that they see."""
    torch.manual_seed(0)
    pipeline = tiny_pipeline()
    select_trainable(pipeline, "full")
    pipeline.unet.enable_gradient_checkpointing()
    settings = LossConfig(
        num_rollout_steps=(2,), rollout_depth="full", num_gradient_steps=None, rollout_checkpointing=True,
        adversarial_weight=0.0,
    )  # fmt: skip
    return SwapObjective(pipeline, settings, ROLES)


def build_batch(step: int, process_index: int) -> SwapBatch:
    generator = torch.Generator().manual_seed(10 * step + process_index)
    pixels, source = torch.rand(2, BATCH_SIZE, 3, CROP_SIZE, CROP_SIZE, generator=generator) * 2 - 1
    mask = torch.zeros(BATCH_SIZE, 1, CROP_SIZE, CROP_SIZE)
    mask[..., 8:24, 8:24] = 1
    return SwapBatch(
        pixels=pixels,
        mask=mask,
        landmarks=torch.rand(BATCH_SIZE, 68, 2, generator=generator) * CROP_SIZE,
        source_pixels=source,
        source_mask=mask,
        identity_embeds=torch.nn.functional.normalize(torch.randn(BATCH_SIZE, 128, generator=generator)),
        indices=torch.arange(BATCH_SIZE) + BATCH_SIZE * process_index,
        num_cross_identity=1,
        num_self_reconstruction=1,
    )


def take_steps(objective: SwapObjective, optimizer: torch.optim.Optimizer, num_processes: int) -> None:
    """Three steps of one process that sees the batches of all; a swap before the last one changes nothing."""
    for step in range(3):
        losses = [objective(build_batch(step, index), step)["loss"] for index in range(num_processes)]
        torch.stack(losses).mean().backward()
        optimizer.step()
        optimizer.zero_grad()


def build_optimizer(objective: SwapObjective) -> torch.optim.Optimizer:
    """AdamW with an epsilon above the rounding errors that some processors leave of gradients that are zero."""
    return torch.optim.AdamW(trained_parameters(objective), lr=1e-3, eps=1e-6)


def main(path: str) -> None:
    torch.set_num_threads(1)
    allow_dividing_on_cpu()
    accelerator = Accelerator()
    objective = build_objective()
    objective, optimizer = accelerator.prepare(objective, build_optimizer(objective))
    for step in range(3):
        loss = objective(build_batch(step, accelerator.process_index), step)["loss"]
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        if step == 1:
            objective.pipeline(**tiny_inputs(), guidance_scale=2.0)
    weights = get_model_state_dict(objective, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if accelerator.is_main_process:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    accelerator.end_training()
