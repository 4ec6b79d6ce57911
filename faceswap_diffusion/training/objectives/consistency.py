"""Consistency distillation in latent space: the mathematics of LCM (arXiv 2310.04378), as `LCMScheduler` has it.

A swap follows an ordinary differential equation from noise to a picture. A consistency function jumps from any state
on the way to its end; it is learnt by asking that it jumps to the same end from neighbouring states.
"""

import torch

from faceswap_diffusion.training.objectives.losses import predict_x0
from faceswap_diffusion.training.objectives.sampling import ddim_step

SIGMA_DATA = 0.5
TIMESTEP_SCALING = 10.0


def solver_timesteps(num_ddim_timesteps: int, num_train_timesteps: int) -> torch.Tensor:
    """Timesteps between which the teacher steps, a `LCMScheduler`'s with as many `original_inference_steps`.

    Args:
        num_ddim_timesteps (`int`): How many; a divisor of `num_train_timesteps`, or no step would begin at pure noise.
        num_train_timesteps (`int`): Of the noise schedule.

    Returns:
        `torch.Tensor`: (num_ddim_timesteps,) int64, rising: 19, 39, ... 999 for 50 of 1000.

    Raises:
        ValueError: If it is no divisor.
    """
    if num_train_timesteps % num_ddim_timesteps:
        raise ValueError(
            f"got {num_ddim_timesteps} solver steps for {num_train_timesteps} training timesteps: use a divisor, like "
            f"{_divisor_near(num_ddim_timesteps, num_train_timesteps)}"
        )
    return torch.arange(1, num_ddim_timesteps + 1) * (num_train_timesteps // num_ddim_timesteps) - 1


def _divisor_near(wanted: int, number: int) -> int:
    divisors = [divisor for divisor in range(1, number + 1) if number % divisor == 0]
    return min(divisors, key=lambda divisor: abs(divisor - wanted))


def boundary_scalings(timesteps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """c_skip and c_out (arXiv 2310.04378, eq. 9), which make the consistency function the identity at timestep 0.

    As in diffusers, timesteps are scaled so that the function is almost x_0 alone everywhere else.

    Args:
        timesteps (`torch.Tensor`): (B,).

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: Each (B, 1, 1, 1).
    """
    scaled = (timesteps * TIMESTEP_SCALING).float().view(-1, 1, 1, 1)
    norm = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / norm, scaled / norm.sqrt()


def consistency_function(
    model_output: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """Where a state ends: c_skip x_t + c_out x_0 (arXiv 2310.04378, eq. 9), x_0 from the model's output.

    Args:
        model_output (`torch.Tensor`): (B, C, h, w), eps or v.
        noisy (`torch.Tensor`): (B, C, h, w), x_t.
        timesteps (`torch.Tensor`): (B,) int64.
        alphas_cumprod (`torch.Tensor`): Of all training timesteps.
        prediction_type (`str`): See `losses.prediction_target`.

    Returns:
        `torch.Tensor`: (B, C, h, w).
    """
    skip, out = boundary_scalings(timesteps)
    return skip * noisy + out * predict_x0(model_output, noisy, alphas_cumprod[timesteps], prediction_type)


def guided(conditional: torch.Tensor, unconditional: torch.Tensor, guidance_scale: float) -> torch.Tensor:
    """Classifier-free guidance (arXiv 2207.12598, eq. 6) as the pipeline has it; LCM's w is `guidance_scale` - 1."""
    return unconditional + guidance_scale * (conditional - unconditional)


def solver_step(
    model_output: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    earlier: torch.Tensor,
    alphas_cumprod: torch.Tensor,
    prediction_type: str,
) -> torch.Tensor:
    """One step of DDIM along the teacher's equation, over many timesteps at once (arXiv 2310.04378, 4.2 and 4.3).

    Args:
        model_output (`torch.Tensor`): (B, C, h, w), of the teacher, with guidance.
        noisy (`torch.Tensor`): (B, C, h, w), x_t.
        timesteps (`torch.Tensor`): (B,) int64, t of each.
        earlier (`torch.Tensor`): (B,) int64, the timestep to go to.
        alphas_cumprod (`torch.Tensor`): Of all training timesteps.
        prediction_type (`str`): See `losses.prediction_target`.

    Returns:
        `torch.Tensor`: (B, C, h, w), the state there.
    """
    x0 = predict_x0(model_output, noisy, alphas_cumprod[timesteps], prediction_type)
    alphas, earlier_alphas = (alphas_cumprod[steps].view(-1, 1, 1, 1) for steps in (timesteps, earlier))
    return ddim_step(x0, noisy, alphas, earlier_alphas)


def pseudo_huber(squared_errors: torch.Tensor, huber_c: float) -> torch.Tensor:
    """sqrt(d^2 + c^2) - c of squared distances d^2: quadratic below c, linear above (arXiv 2310.14189, eq. 8).

    Args:
        squared_errors (`torch.Tensor`): (B,); means over elements, where the paper has sums.
        huber_c (`float`): The paper's c divided by the root of the number of elements: 0.00054.
    """
    return (squared_errors + huber_c**2).sqrt() - huber_c
