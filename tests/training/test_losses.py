import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from faceswap_diffusion.training.losses import (
    coarse_loss,
    identity_loss,
    image_gradients,
    masked_mse,
    predict_x0,
    reconstruction_loss,
)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_true_prediction_gives_back_the_clean_latents(prediction_type):
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.manual_seed(0)
    clean, noise, timesteps = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8), torch.tensor([0, 250, 600, 950])
    noisy = scheduler.add_noise(clean, noise, timesteps)
    truth = noise if prediction_type == "epsilon" else scheduler.get_velocity(clean, noise, timesteps)
    x0 = predict_x0(truth, noisy, scheduler.alphas_cumprod[timesteps], prediction_type)
    torch.testing.assert_close(x0, clean, atol=1e-4, rtol=1e-4)


def test_masked_error_by_hand():
    prediction, wanted = torch.tensor([[[[2.0, 1.0]]]]), torch.zeros(1, 1, 1, 2)
    mask = torch.tensor([[[[1.0, 0.0]]]])
    assert masked_mse(prediction, wanted, mask, outside=0.0).tolist() == [4.0]
    assert masked_mse(prediction, wanted, mask, outside=0.5).tolist() == pytest.approx([(4 + 0.5) / 1.5])


def test_identity_loss_by_hand():
    a, b = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[0.6, 0.8], [-1.0, 0.0]])
    torch.testing.assert_close(identity_loss(a, b), torch.tensor([0.4, 2.0]))


def test_coarse_loss_sees_colour_and_not_texture():
    mask = torch.ones(1, 1, 16, 16)
    wanted = torch.zeros(1, 3, 16, 16)
    texture = wanted.clone()
    texture[..., ::2] += 0.5
    texture[..., 1::2] -= 0.5
    assert coarse_loss(texture, wanted, mask).item() == pytest.approx(0, abs=1e-6)
    assert coarse_loss(wanted + 0.3, wanted, mask).item() == pytest.approx(0.3)
    half = mask.clone()
    half[..., :8] = 0
    changed = wanted.clone()
    changed[..., :8] = 1
    assert coarse_loss(changed, wanted, half).item() == 0


def test_reconstruction_loss_by_hand():
    images = torch.zeros(1, 3, 8, 8)
    assert reconstruction_loss(images + 0.1, images, 1.0, 2.0).item() == pytest.approx(0.1 + 0 + 2 * 0.1)
    stripes = images.clone()
    stripes[..., ::2] = 0.2
    along_x, along_y = image_gradients(stripes)
    assert (along_x.abs().mean().item(), along_y.abs().mean().item()) == (pytest.approx(0.2), 0.0)
    assert reconstruction_loss(stripes, images, 3.0, 0.0).item() == pytest.approx(0.1 + 3 * 0.2)
