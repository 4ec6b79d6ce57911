"""The mathematics of consistency distillation, by hand and against diffusers' schedulers."""

import math

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler

from faceswap_diffusion.training.objectives.consistency import (
    boundary_scalings,
    consistency_function,
    guided,
    pseudo_huber,
    solver_step,
    solver_timesteps,
)
from faceswap_diffusion.training.objectives.losses import PREDICTION_TYPES, prediction_target

ALPHAS = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod


def noise_of(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def noised(x0: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    alphas = ALPHAS[timesteps].view(-1, 1, 1, 1)
    return alphas.sqrt() * x0 + (1 - alphas).sqrt() * noise


def output_for(point: torch.Tensor, noisy: torch.Tensor, timesteps: torch.Tensor, prediction_type: str):
    """What the best model of a distribution that is one point says: the noise that leads from there to here."""
    alphas = ALPHAS[timesteps].view(-1, 1, 1, 1)
    noise = (noisy - alphas.sqrt() * point) / (1 - alphas).sqrt()
    return prediction_target(point, noise, ALPHAS[timesteps], prediction_type)


def test_solver_timesteps_are_those_of_the_lcm_scheduler():
    assert solver_timesteps(5, 1000).tolist() == [199, 399, 599, 799, 999]
    for count in (10, 50):
        scheduler = LCMScheduler(original_inference_steps=count)
        scheduler.set_timesteps(count)
        assert solver_timesteps(count, 1000).flip(0).tolist() == scheduler.timesteps.tolist()


def test_solver_steps_that_miss_the_last_timestep_are_refused():
    with pytest.raises(ValueError, match=r"got 30 solver steps for 1000 training timesteps: use a divisor, like 25$"):
        solver_timesteps(30, 1000)


def test_boundary_scalings_are_those_of_the_lcm_scheduler():
    skip, out = boundary_scalings(torch.tensor([0, 1, 19, 999]))
    assert skip.flatten().tolist()[:2] == pytest.approx([1.0, 0.25 / 100.25])
    assert out.flatten().tolist()[:2] == pytest.approx([0.0, 10 / math.sqrt(100.25)])
    scheduler = LCMScheduler()
    for index, timestep in enumerate((0, 1, 19, 999)):
        expected = scheduler.get_scalings_for_boundary_condition_discrete(timestep)
        assert (skip[index].item(), out[index].item()) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_consistency_function_is_what_the_lcm_scheduler_ends_a_swap_with(prediction_type):
    output, noisy = noise_of(0, 2, 4, 3, 3), noise_of(1, 2, 4, 3, 3)
    scheduler = LCMScheduler(prediction_type=prediction_type)
    scheduler.set_timesteps(1)
    expected = scheduler.step(output, 999, noisy, return_dict=False)[1]
    timesteps = torch.full((2,), 999)
    torch.testing.assert_close(consistency_function(output, noisy, timesteps, ALPHAS, prediction_type), expected)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_consistency_function_is_the_identity_at_timestep_0(prediction_type):
    noisy = noise_of(0, 1, 4, 2, 2)
    ended = consistency_function(noise_of(1, 1, 4, 2, 2), noisy, torch.tensor([0]), ALPHAS, prediction_type)
    assert torch.equal(ended, noisy)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_a_solver_step_is_one_of_the_ddim_scheduler(prediction_type):
    """Each sample at its own timestep."""
    output, noisy = noise_of(0, 2, 4, 3, 3), noise_of(1, 2, 4, 3, 3)
    timesteps, earlier = torch.tensor([999, 399]), torch.tensor([799, 199])
    got = solver_step(output, noisy, timesteps, earlier, ALPHAS, prediction_type)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
        timestep_spacing="trailing", prediction_type=prediction_type,
    )  # fmt: skip
    scheduler.set_timesteps(5)
    for index, timestep in enumerate(timesteps.tolist()):
        expected = scheduler.step(output[index], timestep, noisy[index], return_dict=False)[0]
        torch.testing.assert_close(got[index], expected, rtol=1e-4, atol=1e-5)


def test_a_solver_step_by_hand():
    """a = 1/4 to 9/16, x_t = 1, eps = 1 / sqrt(3): x_0 = (1 - 1/2) / (1/2) = 1, then 3/4 + sqrt(7/16) / sqrt(3)."""
    alphas = torch.tensor([9 / 16, 1 / 4])
    output, one = torch.full((1, 1, 1, 1), 1 / math.sqrt(3)), torch.ones(1, 1, 1, 1)
    got = solver_step(output, one, torch.tensor([1]), torch.tensor([0]), alphas, "epsilon")
    assert got.item() == pytest.approx(0.75 + math.sqrt(7 / 16) / math.sqrt(3))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_best_model_of_one_point_is_consistent(prediction_type):
    """The teacher's way leads through states of the same noise, and from each the end is the point."""
    point, noise = noise_of(0, 3, 4, 2, 2), noise_of(1, 3, 4, 2, 2)
    timesteps, earlier = torch.tensor([199, 599, 999]), torch.tensor([0, 399, 799])
    noisy = noised(point, noise, timesteps)
    output = output_for(point, noisy, timesteps, prediction_type)
    before = solver_step(output, noisy, timesteps, earlier, ALPHAS, prediction_type)
    torch.testing.assert_close(before, noised(point, noise, earlier), rtol=1e-4, atol=1e-4)
    ends = consistency_function(output, noisy, timesteps, ALPHAS, prediction_type)
    torch.testing.assert_close(ends, point, rtol=1e-3, atol=1e-3)
    other = output_for(point, before, earlier, prediction_type)
    ends_before = consistency_function(other, before, earlier, ALPHAS, prediction_type)
    error = (ends - ends_before)[1:].square().mean(dim=(1, 2, 3))  # at timestep 0 the state itself is the end
    assert pseudo_huber(error, 0.001).max() < 1e-4


def test_guidance_by_hand():
    """Scale 1 is the condition alone, as LCM's w = 0; above it the difference is stretched."""
    conditional, unconditional = torch.tensor([3.0]), torch.tensor([1.0])
    assert guided(conditional, unconditional, 1.0).item() == 3
    assert guided(conditional, unconditional, 3.5).item() == 8


def test_the_pseudo_huber_loss_by_hand():
    losses = pseudo_huber(torch.tensor([0.0, 9.0, 1e-4]), 4.0)
    assert losses[:2].tolist() == [0, 1]
    assert losses[2].item() == pytest.approx(1e-4 / 8, abs=1e-6)
