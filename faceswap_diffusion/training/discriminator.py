"""A judge of small patches, against which the autoencoder's decoder learns to paint sharply."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn


class PatchDiscriminator(nn.Module):
    """Says of each overlapping patch (22 px wide) whether it looks real (PatchGAN, arXiv 1611.07004, section 3.2).

    Args:
        channels (`int`): Of the first layer; each of the two further layers has twice as many.
    """

    def __init__(self, channels: int = 32):
        super().__init__()
        widths = (3, channels, 2 * channels, 4 * channels)
        layers: list[nn.Module] = []
        for index, (before, after) in enumerate(pairwise(widths)):
            stride = 2 if index < 2 else 1
            convolution = nn.utils.parametrizations.spectral_norm(nn.Conv2d(before, after, 4, stride, 1))
            layers += [convolution, nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 3, padding=1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Judges RGB (B, 3, H, W) in [-1, 1]: one number a patch, (B, 1, h, w), the higher the more real."""
        return self.layers(images)


def discriminator_loss(real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    """Hinge loss of verdicts on real and on painted patches (arXiv 1705.02894, eq. 3)."""
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
