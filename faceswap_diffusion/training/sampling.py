"""DDIM inside training: the states that a swap passes through, as the model itself makes them."""

from collections.abc import Callable
from itertools import pairwise

import torch

from faceswap_diffusion.training.losses import predict_x0


def ddim_step(
    x0: torch.Tensor, noisy: torch.Tensor, alpha_cumprod: torch.Tensor, previous: torch.Tensor
) -> torch.Tensor:
    """One deterministic step (DDIM, arXiv 2010.02502, eq. 12 with sigma 0).

    Args:
        x0 (`torch.Tensor`): (B, C, h, w), the clean latents predicted at the present timestep.
        noisy (`torch.Tensor`): (B, C, h, w), the present state.
        alpha_cumprod (`torch.Tensor`): Scalar, of the present timestep.
        previous (`torch.Tensor`): Scalar, of the timestep to go to.
    """
    noise = (noisy - alpha_cumprod.sqrt() * x0) / (1 - alpha_cumprod).sqrt()
    return previous.sqrt() * x0 + (1 - previous).sqrt() * noise


@torch.no_grad()
def roll_out(
    predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Denoises pure noise down to the last of `timesteps`, without gradients.

    A noised target still holds the target's face; a swap never sees that. Training on states of the model's own making
    closes this gap.

    Args:
        predict (`Callable`): Takes (B, C, h, w) and timesteps (B,), returns the model's output.
        noise (`torch.Tensor`): (B, C, h, w).
        timesteps (`torch.Tensor`): (n,), falling, the first at or near the noisiest.
        alphas_cumprod (`torch.Tensor`): Of all training timesteps.
        prediction_type (`str`): See `predict_x0`.

    Returns:
        `torch.Tensor`: (B, C, h, w), the state at the last timestep.
    """
    noisy = noise
    for timestep, following in pairwise(timesteps):
        batch = timestep.expand(len(noisy))
        alphas = alphas_cumprod[batch]
        x0 = predict_x0(predict(noisy, batch), noisy, alphas, prediction_type)
        noisy = ddim_step(x0, noisy, alphas_cumprod[timestep], alphas_cumprod[following])
    return noisy
