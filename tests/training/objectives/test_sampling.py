"""Sampling inside training: the path is diffusers' own, and its gradients are those of finite differences."""

from collections.abc import Callable

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from faceswap_diffusion.training.objectives.losses import predict_x0
from faceswap_diffusion.training.objectives.sampling import ddim_predictions, ddim_step, visited_timesteps
from tests.tiny import CROSS_ATTENTION_DIM, tiny_unet

PREDICTION_TYPES = ["epsilon", "v_prediction"]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def scheduler(prediction_type: str) -> DDIMScheduler:
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False,
        prediction_type=prediction_type, timestep_spacing="trailing",
    )  # fmt: skip


ALPHAS = scheduler("epsilon").alphas_cumprod.double()


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return tiny_unet().double().requires_grad_(False)


@pytest.fixture(scope="module")
def noise() -> torch.Tensor:
    return torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def predict(unet: UNet2DConditionModel) -> Predict:
    generator = torch.Generator().manual_seed(2)
    masked = torch.randn(2, 5, 8, 8, dtype=torch.float64, generator=generator)
    context = torch.randn(2, 1, CROSS_ATTENTION_DIM, dtype=torch.float64, generator=generator)
    return lambda noisy, timesteps: unet(torch.cat([noisy, masked], 1), timesteps, context).sample


class Perturbed:
    """Adds to the output of the first step, so that one can ask what that changes later."""

    def __init__(self, predict: Predict, perturbation: torch.Tensor, timestep: int = 999):
        self.predict, self.perturbation, self.timestep = predict, perturbation, timestep

    def __call__(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        output = self.predict(noisy, timesteps)
        return output + self.perturbation if int(timesteps[0]) == self.timestep else output


class Detached(Perturbed):
    """The mistake: the network sees its state as data, so that only DDIM's own arithmetic leads back."""

    def __call__(self, noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        return super().__call__(noisy.detach(), timesteps)


def last_loss(predict: Predict, noise: torch.Tensor, prediction_type: str, **options) -> torch.Tensor:
    """A loss of the last of four steps' predictions, uneven so that no part of it cancels."""
    x0 = ddim_predictions(predict, noise, visited_timesteps(4, 1000), ALPHAS, prediction_type, **options)[-1]
    return (x0 - 0.3).square().mean() + x0[:, :, ::2].mean()


def gradient(wrapper: type[Perturbed], predict: Predict, noise: torch.Tensor, prediction_type: str, **options):
    perturbation = torch.zeros_like(noise, requires_grad=True)
    last_loss(wrapper(predict, perturbation), noise, prediction_type, **options).backward()
    assert perturbation.grad is not None
    return perturbation.grad


def finite_differences(
    predict: Predict, noise: torch.Tensor, prediction_type: str, directions: torch.Tensor, width: float = 1e-5
) -> torch.Tensor:
    """Slopes of the last step's loss along changes of the first step's prediction."""
    slopes = []
    for direction in directions:
        ahead, behind = (
            last_loss(Perturbed(predict, sign * width * direction), noise, prediction_type) for sign in (1, -1)
        )
        slopes.append((ahead - behind) / (2 * width))
    return torch.stack(slopes)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_last_loss_reaches_the_first_prediction_as_finite_differences_say(predict, noise, prediction_type):
    directions = torch.randn(4, *noise.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    measured = finite_differences(predict, noise, prediction_type, directions)
    for checkpointing in (False, True):
        computed = gradient(Perturbed, predict, noise, prediction_type, gradient_checkpointing=checkpointing)
        slopes = (directions * computed).sum((1, 2, 3, 4))
        torch.testing.assert_close(slopes, measured, rtol=1e-6, atol=1e-9)
    detached = gradient(Detached, predict, noise, prediction_type)
    slopes = (directions * detached).sum((1, 2, 3, 4))
    assert (slopes - measured).norm() > 0.05 * measured.norm()  # the right ones agree to 1e-6


def test_every_gradient_step_reaches_its_own_prediction_and_all_before(predict, noise):
    perturbation = torch.zeros_like(noise, requires_grad=True)
    timesteps = visited_timesteps(4, 1000)
    changed = Perturbed(predict, perturbation, timestep=int(timesteps[2]))
    predictions = ddim_predictions(changed, noise, timesteps, ALPHAS, "v_prediction")
    reached = [prediction.requires_grad for prediction in predictions]
    assert reached == [False, False, True, True]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_silent_steps_carry_no_gradient_and_change_no_value(predict, noise, checkpointing):
    timesteps, perturbation = visited_timesteps(4, 1000), torch.zeros_like(noise, requires_grad=True)
    everywhere = lambda noisy, timesteps: predict(noisy, timesteps) + perturbation  # noqa: E731
    whole = ddim_predictions(everywhere, noise, timesteps, ALPHAS, "epsilon")
    assert len(whole) == 4
    for count in (1, 2, 4):
        part = ddim_predictions(everywhere, noise, timesteps, ALPHAS, "epsilon", count, checkpointing)
        assert len(part) == count
        for got, wanted in zip(part, whole[-count:], strict=True):
            torch.testing.assert_close(got, wanted)
    first = Perturbed(predict, perturbation)
    (alone,) = ddim_predictions(first, noise, timesteps, ALPHAS, "epsilon", 1, checkpointing)
    assert not alone.requires_grad
    assert ddim_predictions(first, noise, timesteps, ALPHAS, "epsilon")[-1].requires_grad


def test_parameters_get_the_same_gradients_with_and_without_checkpointing(noise):
    def gradients(checkpointing: bool) -> dict[str, torch.Tensor]:
        unet = tiny_unet().double()
        masked, context = torch.zeros(2, 5, 8, 8).double(), torch.ones(2, 1, CROSS_ATTENTION_DIM).double()

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return unet(torch.cat([noisy, masked], 1), timesteps, context).sample

        last_loss(predict, noise, "v_prediction", gradient_checkpointing=checkpointing).backward()
        return {name: parameter.grad for name, parameter in unet.named_parameters() if parameter.grad is not None}

    kept, anew = gradients(False), gradients(True)
    assert kept.keys() == anew.keys()
    assert len(kept) > 50
    for name, wanted in kept.items():
        torch.testing.assert_close(anew[name], wanted)


def test_checkpointing_keeps_fewer_activations(predict, noise):
    def kept_numbers(checkpointing: bool) -> int:
        kept = []

        def count(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor.numel())
            return tensor

        changed = Perturbed(predict, torch.zeros_like(noise, requires_grad=True))
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            last_loss(changed, noise, "v_prediction", gradient_checkpointing=checkpointing)
        return sum(kept)

    assert kept_numbers(True) < kept_numbers(False) / 20


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_the_whole_path_is_the_schedulers(predict, noise, prediction_type):
    ddim = scheduler(prediction_type)
    ddim.set_timesteps(4)
    state, wanted, told = noise, [], []
    for timestep in ddim.timesteps:
        step = ddim.step(predict(state, timestep.expand(2)), int(timestep), state)
        state, wanted = step.prev_sample, [*wanted, step.pred_original_sample]

    def seen(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        told.append(timesteps.tolist())
        return predict(noisy, timesteps)

    visited = visited_timesteps(4, 1000)
    predictions = ddim_predictions(seen, noise, visited, ALPHAS, prediction_type)
    for got, expected in zip(predictions, wanted, strict=True):
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)  # the scheduler's alphas are float32
    assert told == [[timestep] * 2 for timestep in visited.tolist()]


def test_the_visited_timesteps_are_those_of_a_swap():
    assert visited_timesteps(5, 1000).tolist() == [999, 799, 599, 399, 199]
    assert visited_timesteps(1, 1000).tolist() == [999]
    for count in range(1, 51):
        ddim = scheduler("epsilon")
        ddim.set_timesteps(count)
        assert visited_timesteps(count, 1000).tolist() == ddim.timesteps.tolist()
    with pytest.raises(ValueError, match="cannot be larger"):
        visited_timesteps(1001, 1000)


def test_a_step_is_the_schedulers_own():
    torch.manual_seed(0)
    ddim = scheduler("v_prediction")
    ddim.set_timesteps(5)
    noisy, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    now, following = ddim.timesteps[:2]
    wanted = ddim.step(output, int(now), noisy).prev_sample
    alphas = ddim.alphas_cumprod
    x0 = predict_x0(output, noisy, alphas[now].expand(2), "v_prediction")
    torch.testing.assert_close(ddim_step(x0, noisy, alphas[now], alphas[following]), wanted, atol=1e-5, rtol=1e-5)


def test_latents_noised_to_the_first_timestep_come_back_from_a_perfect_model():
    torch.manual_seed(0)
    clean, noise = torch.randn(2, 4, 4, 4).double(), torch.randn(2, 4, 4, 4).double()
    timesteps = torch.tensor([700, 400, 100])
    start = ALPHAS[700].sqrt() * clean + (1 - ALPHAS[700]).sqrt() * noise
    for x0 in ddim_predictions(lambda *_: noise, start, timesteps, ALPHAS, "epsilon"):
        torch.testing.assert_close(x0, clean)
