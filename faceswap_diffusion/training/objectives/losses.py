"""Loss functions."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

PREDICTION_TYPES = ("epsilon", "v_prediction")


def _signal_and_noise(alphas_cumprod: torch.Tensor, prediction_type: str) -> tuple[torch.Tensor, torch.Tensor]:
    """sqrt(a) and sqrt(1 - a) of (B,), as (B, 1, 1, 1); the prediction type must be one that is trained."""
    if prediction_type not in PREDICTION_TYPES:
        raise ValueError(f"got prediction type {prediction_type!r}; choose one of {', '.join(PREDICTION_TYPES)}")
    shape = -1, 1, 1, 1
    return alphas_cumprod.sqrt().view(shape), (1 - alphas_cumprod).sqrt().view(shape)


def prediction_target(
    latents: torch.Tensor, noise: torch.Tensor, alphas_cumprod: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """The training target for latents noised as x_t = sqrt(a) x_0 + sqrt(1 - a) eps.

    Args:
        latents (`torch.Tensor`): (B, C, h, w), x_0.
        noise (`torch.Tensor`): (B, C, h, w), eps.
        alphas_cumprod (`torch.Tensor`): (B,), a of each sample's timestep.
        prediction_type (`str`): `"epsilon"` (DDPM, arXiv 2006.11239, eq. 14) or `"v_prediction"`,
            v = sqrt(a) eps - sqrt(1 - a) x_0 (arXiv 2202.00512, appendix D).

    Returns:
        `torch.Tensor`: (B, C, h, w).

    Raises:
        ValueError: If the prediction type is another.
    """
    signal, spread = _signal_and_noise(alphas_cumprod, prediction_type)
    return noise if prediction_type == "epsilon" else signal * noise - spread * latents


def predict_x0(
    model_output: torch.Tensor, noisy: torch.Tensor, alphas_cumprod: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """The clean latents that a prediction stands for.

    Args:
        model_output (`torch.Tensor`): (B, C, h, w).
        noisy (`torch.Tensor`): (B, C, h, w), x_t = sqrt(a) x_0 + sqrt(1 - a) eps (DDPM, arXiv 2006.11239, eq. 4).
        alphas_cumprod (`torch.Tensor`): (B,), a of each sample's timestep.
        prediction_type (`str`): `"epsilon"` or `"v_prediction"`, see `prediction_target`.

    Returns:
        `torch.Tensor`: (B, C, h, w).

    Raises:
        ValueError: If the prediction type is another.
    """
    signal, spread = _signal_and_noise(alphas_cumprod, prediction_type)
    if prediction_type == "epsilon":
        return (noisy - spread * model_output) / signal
    return signal * noisy - spread * model_output


def min_snr_weights(alphas_cumprod: torch.Tensor, gamma: float, prediction_type: str) -> torch.Tensor:
    """Weights of the samples' squared errors, so that the error of x_0 weighs min(SNR, gamma) (Min-SNR).

    The strategy of arXiv 2303.09556, section 3.4, with SNR = a / (1 - a). The squared error of eps is SNR times
    that of x_0, and the error of v is SNR + 1 times it, hence min(SNR, gamma) / SNR and min(SNR, gamma) / (SNR + 1).

    Args:
        alphas_cumprod (`torch.Tensor`): (B,), a of each sample's timestep.
        gamma (`float`): Where the weight is cut off; the paper's choice is 5.
        prediction_type (`str`): `"epsilon"` or `"v_prediction"`.

    Returns:
        `torch.Tensor`: (B,).

    Raises:
        ValueError: If the prediction type is another.
    """
    signal, spread = (rate.flatten() for rate in _signal_and_noise(alphas_cumprod, prediction_type))
    snr = (signal / spread).square()
    return snr.clamp(max=gamma) / (snr if prediction_type == "epsilon" else snr + 1)


def weighted_mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Mean of each sample's values, (B,), that count as much as their weights.

    Weights that sum to less than one pixel do not make up for it: a sample whose mask is empty has no loss.

    Args:
        values (`torch.Tensor`): (B, 1, h, w).
        weights (`torch.Tensor`): (B, 1, h, w) in [0, 1].
    """
    return (values * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp(min=1)


def masked_mse(prediction: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor, outside: float) -> torch.Tensor:
    """Squared error of each sample, (B,), where pixels outside the mask weigh `outside`: only the inside is pasted.

    Args:
        prediction (`torch.Tensor`): (B, C, h, w).
        wanted (`torch.Tensor`): (B, C, h, w).
        mask (`torch.Tensor`): (B, 1, h, w), 1 = repaint.
        outside (`float`): Weight in [0, 1].
    """
    error = (prediction - wanted).square().mean(dim=1, keepdim=True)
    return weighted_mean(error, outside + (1 - outside) * mask)


def identity_loss(embeds: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 - cosine of unit vectors (B, D), a value a sample: REFace's identity loss (arXiv 2409.07269, section 3.3)."""
    return 1 - (embeds * wanted).sum(dim=1)


def coarse_loss(images: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor, factor: int = 8) -> torch.Tensor:
    """L1 between pictures seen at 1/`factor` of their size, inside the mask, a value a sample.

    Preserves colour, light and pose of a swap without ground truth.

    Args:
        images (`torch.Tensor`): (B, 3, H, W).
        wanted (`torch.Tensor`): (B, 3, H, W).
        mask (`torch.Tensor`): (B, 1, H, W).
        factor (`int`): How much smaller.
    """
    small_mask = F.avg_pool2d(mask, factor)
    difference = (F.avg_pool2d(images, factor) - F.avg_pool2d(wanted, factor)).abs().mean(1, keepdim=True)
    return weighted_mean(difference, small_mask)


def perceptual_loss(
    predictions: Sequence[torch.Tensor],
    wanted: torch.Tensor,
    distance: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    num_scales: int = 3,
) -> torch.Tensor:
    """Perceptual distance of each prediction to the target, summed over predictions and scales: REFace's LPIPS term.

    The pictures are compared at their own size and, as means of 2 x 2 pixels, at 1/2 and 1/4 of it: at 512, 256 and
    128 px in REFace (arXiv 2409.07269, section 3.3).

    Args:
        predictions (`Sequence[torch.Tensor]`): Pictures (B, 3, H, W), RGB in [-1, 1], of the visited timesteps.
        wanted (`torch.Tensor`): (B, 3, H, W), RGB in [-1, 1].
        distance (`Callable`): Takes two batches (B, 3, h, w), returns (B,): `LPIPS.distance`, which needs 16 px at the
            smallest scale.
        num_scales (`int`): Sizes that are compared, each half of the one before.

    Returns:
        `torch.Tensor`: (B,).
    """
    loss = wanted.new_zeros(len(wanted))
    for scale in range(num_scales):
        small_wanted = F.avg_pool2d(wanted, 2**scale)
        for prediction in predictions:
            loss = loss + distance(F.avg_pool2d(prediction, 2**scale), small_wanted)
    return loss


def image_gradients(images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Differences of neighbouring pixels of (B, C, H, W) along x and y."""
    return images[..., :, 1:] - images[..., :, :-1], images[..., 1:, :] - images[..., :-1, :]


def reconstruction_loss(
    reconstruction: torch.Tensor, images: torch.Tensor, gradient_weight: float, color_weight: float
) -> torch.Tensor:
    """L1 of pixels, of their gradients (edges), and of 8 x 8 means (colours), averaged over everything.

    Args:
        reconstruction (`torch.Tensor`): (B, 3, H, W), H and W at least 8.
        images (`torch.Tensor`): (B, 3, H, W).
        gradient_weight (`float`): Weight of the gradients' L1.
        color_weight (`float`): Weight of the means' L1.
    """
    loss = F.l1_loss(reconstruction, images)
    for got, wanted in zip(image_gradients(reconstruction), image_gradients(images), strict=True):
        loss = loss + gradient_weight * F.l1_loss(got, wanted)
    return loss + color_weight * F.l1_loss(F.avg_pool2d(reconstruction, 8), F.avg_pool2d(images, 8))
