import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from faceswap_diffusion.training.losses import predict_x0
from faceswap_diffusion.training.sampling import ddim_step, roll_out

SCHEDULER = DDIMScheduler(
    beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False, set_alpha_to_one=False,
    prediction_type="v_prediction", timestep_spacing="leading",
)  # fmt: skip


def test_a_step_is_the_schedulers_own():
    torch.manual_seed(0)
    SCHEDULER.set_timesteps(5)
    noisy, output = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    now, following = SCHEDULER.timesteps[:2]
    wanted = SCHEDULER.step(output, int(now), noisy).prev_sample
    alphas = SCHEDULER.alphas_cumprod
    x0 = predict_x0(output, noisy, alphas[now].expand(2), "v_prediction")
    torch.testing.assert_close(ddim_step(x0, noisy, alphas[now], alphas[following]), wanted, atol=1e-5, rtol=1e-5)


def test_a_roll_out_visits_its_timesteps_as_the_scheduler_does():
    torch.manual_seed(0)
    SCHEDULER.set_timesteps(5)
    noise, seen = torch.randn(2, 4, 8, 8), []

    def predict(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        seen.append(timesteps.tolist())
        return torch.tanh(noisy) * (timesteps.view(-1, 1, 1, 1) / 1000)

    visited = SCHEDULER.timesteps[:4]
    state = roll_out(predict, noise, visited, SCHEDULER.alphas_cumprod, "v_prediction")
    assert seen == [[int(timestep)] * 2 for timestep in visited[:3]]  # it stops where the gradient step begins
    wanted = noise
    for timestep in visited[:3]:
        wanted = SCHEDULER.step(predict(wanted, timestep.expand(2)), int(timestep), wanted).prev_sample
    torch.testing.assert_close(state, wanted, atol=1e-4, rtol=1e-4)


def test_the_first_state_is_the_noise_itself():
    noise = torch.randn(1, 4, 8, 8)
    assert torch.equal(
        roll_out(lambda *_: noise, noise, torch.tensor([999]), SCHEDULER.alphas_cumprod, "epsilon"), noise
    )
