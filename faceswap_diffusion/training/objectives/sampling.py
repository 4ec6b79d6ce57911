"""DDIM inside training: the trajectory of a swap by the model itself, with gradients."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch.utils.checkpoint import checkpoint

from faceswap_diffusion.training.objectives.losses import predict_x0


def visited_timesteps(num_inference_steps: int, num_train_timesteps: int) -> torch.Tensor:
    """Timesteps that a swap of few steps visits: evenly spaced down from the noisiest (arXiv 2305.08891, table 2).

    Args:
        num_inference_steps (`int`): At most `num_train_timesteps`.
        num_train_timesteps (`int`): Of the noise schedule.

    Returns:
        `torch.Tensor`: (num_inference_steps,) int64, falling: 999, 799, ... 199 for 5 of 1000.
    """
    scheduler = DDIMScheduler(num_train_timesteps, timestep_spacing="trailing")
    scheduler.set_timesteps(num_inference_steps)
    return scheduler.timesteps


def ddim_step(
    x0: torch.Tensor, noisy: torch.Tensor, alpha_cumprod: torch.Tensor, previous: torch.Tensor
) -> torch.Tensor:
    """One deterministic step (DDIM, arXiv 2010.02502, eq. 12 with sigma 0).

    Args:
        x0 (`torch.Tensor`): (B, C, h, w), the clean latents predicted at the present timestep.
        noisy (`torch.Tensor`): (B, C, h, w), the present state.
        alpha_cumprod (`torch.Tensor`): Of the present timestep, a scalar, or (B, 1, 1, 1) of each sample's.
        previous (`torch.Tensor`): Of the timestep to go to, likewise.
    """
    noise = (noisy - alpha_cumprod.sqrt() * x0) / (1 - alpha_cumprod).sqrt()
    return previous.sqrt() * x0 + (1 - previous).sqrt() * noise


def ddim_predictions(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
    num_gradient_steps: int | None = None,
    gradient_checkpointing: bool = False,
) -> list[torch.Tensor]:
    """The clean latents predicted at each timestep of a DDIM sampling, with gradients through the steps between.

    REFace's identity loss looks at each of them (arXiv 2409.07269, section 3.3). A noised target still holds the
    target's face, which a swap never sees: the states here are of the model's own making.

    Args:
        predict (`Callable`): Takes (B, C, h, w) and timesteps (B,), returns the model's output.
        noisy (`torch.Tensor`): (B, C, h, w), the state at the first of `timesteps`: pure noise, or latents noised to
            that very timestep.
        timesteps (`torch.Tensor`): (n,) int64, falling. The model gets the timesteps whose `alphas_cumprod` are used.
        alphas_cumprod (`torch.Tensor`): Of all training timesteps.
        prediction_type (`str`): See `prediction_target`.
        num_gradient_steps (`int`, *optional*): The last steps, which carry gradients; those before run without and
            their predictions are not returned: with 1 there is one look at a state made without. All if left out.
        gradient_checkpointing (`bool`): Recomputes each step in the backward pass instead of keeping its activations.

    Returns:
        `list[torch.Tensor]`: (B, C, h, w) for each step with gradients, in the order of `timesteps`.
    """

    def denoise(noisy: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        batch = timestep.expand(len(noisy))
        return predict_x0(predict(noisy, batch), noisy, alphas_cumprod[batch], prediction_type)

    num_silent = 0 if num_gradient_steps is None else len(timesteps) - num_gradient_steps
    predictions, alphas = [], alphas_cumprod[timesteps]
    for index, timestep in enumerate(timesteps):
        with torch.no_grad() if index < num_silent else nullcontext():
            if index > 0:
                noisy = ddim_step(predictions[-1], noisy, alphas[index - 1], alphas[index])
            if gradient_checkpointing:
                predictions.append(checkpoint(denoise, noisy, timestep, use_reentrant=False))
            else:
                predictions.append(denoise(noisy, timestep))
    return predictions[max(num_silent, 0) :]
