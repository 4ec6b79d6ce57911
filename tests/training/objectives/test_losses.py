import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from faceswap_diffusion.training.objectives.losses import (
    coarse_loss,
    identity_loss,
    image_gradients,
    masked_mse,
    min_snr_weights,
    perceptual_loss,
    predict_x0,
    prediction_target,
    reconstruction_loss,
)

ALPHA = torch.tensor([0.36])  # sqrt(a) = 0.6, sqrt(1 - a) = 0.8


def test_targets_by_hand():
    latents, noise = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0)
    assert prediction_target(latents, noise, ALPHA, "epsilon").item() == 3
    assert prediction_target(latents, noise, ALPHA, "v_prediction").item() == pytest.approx(0.6 * 3 - 0.8 * 2)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_targets_are_the_schedulers_and_give_back_the_clean_latents(prediction_type):
    scheduler = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012)
    torch.manual_seed(0)
    clean, noise, timesteps = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8), torch.tensor([0, 250, 600, 950])
    noisy, alphas = scheduler.add_noise(clean, noise, timesteps), scheduler.alphas_cumprod[timesteps]
    target = prediction_target(clean, noise, alphas, prediction_type)
    if prediction_type == "v_prediction":
        torch.testing.assert_close(target, scheduler.get_velocity(clean, noise, timesteps))
    torch.testing.assert_close(predict_x0(target, noisy, alphas, prediction_type), clean, atol=1e-4, rtol=1e-4)


def test_min_snr_weights_by_hand():
    alphas = torch.tensor([0.5, 0.8, 0.9])  # SNR 1, 4, 9
    weights = min_snr_weights(alphas, 5.0, "epsilon")
    torch.testing.assert_close(weights, torch.tensor([1.0, 1.0, 5 / 9]))
    weights = min_snr_weights(alphas, 5.0, "v_prediction")
    torch.testing.assert_close(weights, torch.tensor([1 / 2, 4 / 5, 5 / 10]))


def test_min_snr_weighs_the_error_of_the_clean_latents_alike_for_both_predictions():
    torch.manual_seed(0)
    alphas = torch.tensor([0.05, 0.5, 0.95])
    clean, noise, error = (torch.randn(3, 4, 2, 2) for _ in range(3))
    rate, spread = (part.sqrt().view(-1, 1, 1, 1) for part in (alphas, 1 - alphas))
    noisy, predicted = rate * clean + spread * noise, clean + error
    wanted = (alphas / (1 - alphas)).clamp(max=5) * error.square().sum((1, 2, 3))
    outputs = {
        "epsilon": (noisy - rate * predicted) / spread,
        "v_prediction": (rate * noisy - predicted) / spread,
    }
    for prediction_type, output in outputs.items():
        missed = (output - prediction_target(clean, noise, alphas, prediction_type)).square().sum((1, 2, 3))
        torch.testing.assert_close(min_snr_weights(alphas, 5.0, prediction_type) * missed, wanted)


def test_other_predictions_are_refused():
    latents = torch.zeros(1, 1, 1, 1)
    for attempt in (
        lambda: prediction_target(latents, latents, ALPHA, "sample"),
        lambda: predict_x0(latents, latents, ALPHA, "sample"),
        lambda: min_snr_weights(ALPHA, 5.0, "sample"),
    ):
        with pytest.raises(ValueError, match="got prediction type 'sample'; choose one of epsilon, v_prediction"):
            attempt()


def test_the_perceptual_loss_sums_predictions_and_scales_of_each_sample_by_hand():
    seen = []

    def distance(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        seen.append(first.shape[-1])
        return (first - second).abs().amax((1, 2, 3))

    wanted, spot = torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)
    spot[0, :, 2, 2] = 16  # a mean of 4 at half the size, of 1 at a quarter
    loss = perceptual_loss([spot, wanted + 1], wanted, distance)
    assert loss.tolist() == [16 + 4 + 1 + 3 * 1, 3 * 1]
    assert sorted(seen) == [2, 2, 4, 4, 8, 8]


def test_masked_error_by_hand():
    prediction, wanted = torch.tensor([[[[2.0, 1.0]]]]), torch.zeros(1, 1, 1, 2)
    mask = torch.tensor([[[[1.0, 0.0]]]])
    assert masked_mse(prediction, wanted, mask, outside=0.0).tolist() == [4.0]
    assert masked_mse(prediction, wanted, mask, outside=0.5).tolist() == pytest.approx([(4 + 0.5) / 1.5])
    assert masked_mse(prediction, wanted, torch.zeros_like(mask), outside=0.0).tolist() == [0.0]


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
