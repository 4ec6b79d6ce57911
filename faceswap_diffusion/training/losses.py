"""The objective, term by term."""

import torch
import torch.nn.functional as F


def predict_x0(
    model_output: torch.Tensor, noisy: torch.Tensor, alphas_cumprod: torch.Tensor, prediction_type: str
) -> torch.Tensor:
    """The clean latents that a prediction stands for.

    Args:
        model_output (`torch.Tensor`): (B, C, h, w).
        noisy (`torch.Tensor`): (B, C, h, w), x_t = sqrt(a) x_0 + sqrt(1 - a) eps (DDPM, arXiv 2006.11239, eq. 4).
        alphas_cumprod (`torch.Tensor`): (B,), a of each sample's timestep.
        prediction_type (`str`): `"epsilon"` or `"v_prediction"`, v = sqrt(a) eps - sqrt(1 - a) x_0 (arXiv 2202.00512).
    """
    signal, noise = (part.view(-1, 1, 1, 1).sqrt() for part in (alphas_cumprod, 1 - alphas_cumprod))
    if prediction_type == "v_prediction":
        return signal * noisy - noise * model_output
    return (noisy - noise * model_output) / signal


def masked_mse(prediction: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor, outside: float) -> torch.Tensor:
    """Squared error of each sample, (B,), where pixels outside the mask weigh `outside`: only the inside is pasted.

    Args:
        prediction (`torch.Tensor`): (B, C, h, w).
        wanted (`torch.Tensor`): (B, C, h, w).
        mask (`torch.Tensor`): (B, 1, h, w), 1 = repaint.
        outside (`float`): Weight in [0, 1].
    """
    weights = outside + (1 - outside) * mask
    error = (prediction - wanted).square().mean(dim=1, keepdim=True)
    return (error * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3))


def identity_loss(embeds: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """1 - cosine of unit vectors (B, D), a value a sample: REFace's identity loss (arXiv 2409.07269, section 3.3)."""
    return 1 - (embeds * wanted).sum(dim=1)


def coarse_loss(images: torch.Tensor, wanted: torch.Tensor, mask: torch.Tensor, factor: int = 8) -> torch.Tensor:
    """L1 between pictures seen at 1/`factor` of their size, inside the mask, a value a sample.

    Holds colour, light and pose of a swap whose exact pixels nobody knows.

    Args:
        images (`torch.Tensor`): (B, 3, H, W).
        wanted (`torch.Tensor`): (B, 3, H, W).
        mask (`torch.Tensor`): (B, 1, H, W).
        factor (`int`): How much smaller.
    """
    small_mask = F.avg_pool2d(mask, factor)
    difference = (F.avg_pool2d(images, factor) - F.avg_pool2d(wanted, factor)).abs().mean(1, keepdim=True)
    return (difference * small_mask).sum(dim=(1, 2, 3)) / small_mask.sum(dim=(1, 2, 3)).clamp(min=1)


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
