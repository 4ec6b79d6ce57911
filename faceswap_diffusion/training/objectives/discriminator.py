"""A patch discriminator, and its adversarial losses."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from faceswap_diffusion.training.objectives.losses import weighted_mean


class PatchDiscriminator(nn.Module):
    """Scores for each overlapping patch how real it looks (PatchGAN, arXiv 1611.07004, section 3.2).

    Args:
        in_channels (`int`): Of what is judged: 3 for pictures, the autoencoder's for latents.
        channels (`int`): Of the first layer; each further layer has twice as many, up to four times.
        num_halvings (`int`): Layers that halve the resolution. With 2 a patch is 30 pixels wide, with 3 it is 62.
    """

    def __init__(self, in_channels: int = 3, channels: int = 32, num_halvings: int = 2):
        super().__init__()
        widths = [in_channels, *(channels * min(2**layer, 4) for layer in range(num_halvings + 1))]
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            stride = 2 if index < num_halvings else 1
            convolution = nn.utils.parametrizations.spectral_norm(nn.Conv2d(before, after, 4, stride, 1))
            layers += [convolution, nn.LeakyReLU(0.2)]
        # No bias: the hinge loss lifts real verdicts as much as it lowers generated ones; rounding would move it.
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Judges RGB (B, 3, H, W) in [-1, 1], or latents: a number a patch, (B, 1, h, w), higher if it looks real."""
        return self.layers(images)


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Hinge loss of verdicts on real and on generated patches (arXiv 1705.02894, eq. 3), each sample's weighted mean.

    Args:
        real (`torch.Tensor`): (B, 1, h, w).
        fake (`torch.Tensor`): (B, 1, h, w).
        weights (`torch.Tensor`, *optional*): (B, 1, h, w) in [0, 1], of each patch; all alike if left out.

    Returns:
        `torch.Tensor`: (B,).
    """
    return _mean_of_patches(F.relu(1 - real) + F.relu(1 + fake), weights)


def generator_loss(fake: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Loss of the generator: minus the verdict, averaged for each sample like `discriminator_loss`."""
    return -_mean_of_patches(fake, weights)


def _mean_of_patches(values: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    return weighted_mean(values, torch.ones_like(values) if weights is None else weights)
