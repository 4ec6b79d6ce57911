"""The small U-Net of the networks that label every pixel of an aligned crop."""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers.models.modeling_utils import ModelMixin
from torch import nn


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, SiLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.SiLU(),
        )


class SeparableBlock(nn.Module):
    """Residual block of a wide depthwise and a pointwise convolution: a large receptive field at low cost."""

    def __init__(self, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, 2 * channels, 1)
        self.project = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, H, W) to the same shape."""
        residual = self.norm(self.depthwise(hidden_states))
        return hidden_states + self.project(F.silu(self.pointwise(residual)))


class SegmentationUNet(ModelMixin):
    """U-Net over an aligned crop.

    Pixels are folded into channels on entry and unfolded on exit, so that no convolution runs at full resolution.

    Args:
        in_channels (`int`): Planes of the input.
        block_out_channels (`Sequence[int]`): Channels at 1/2, 1/4, ... of the input's side.
        layers_per_block (`int`): Residual blocks in each level of the encoder but the first.
        num_labels (`int`): Planes of the output.
    """

    def __init__(self, in_channels: int, block_out_channels: Sequence[int], layers_per_block: int, num_labels: int):
        super().__init__()
        first, *_ = channels = list(block_out_channels)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), ConvBlock(4 * in_channels, first))
        self.down = nn.ModuleList(
            nn.Sequential(
                ConvBlock(before, after, stride=2), *(SeparableBlock(after) for _ in range(layers_per_block))
            )
            for before, after in pairwise(channels)
        )
        self.reduce = nn.ModuleList(nn.Conv2d(deep, shallow, 1) for shallow, deep in pairwise(channels))
        self.merge = nn.ModuleList(ConvBlock(shallow, shallow) for shallow in channels[:-1])
        self.head = nn.Sequential(nn.Conv2d(first, 4 * num_labels, 1), nn.PixelShuffle(2))

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Computes logits.

        Args:
            pixel_values (`torch.Tensor`): (B, C, S, S), the first three planes RGB in [-1, 1]. S is a multiple of
                16, preferably the size that the network was trained at.

        Returns:
            `torch.Tensor`: Logits (B, num_labels, S, S).
        """
        hidden_states = self.stem(pixel_values)
        skips = []
        for block in self.down:
            skips.append(hidden_states)
            hidden_states = block(hidden_states)
        for skip, reduce, merge in zip(skips[::-1], list(self.reduce)[::-1], list(self.merge)[::-1], strict=True):
            upsampled = F.interpolate(reduce(hidden_states), scale_factor=2.0, mode="bilinear")
            hidden_states = merge(skip + upsampled)
        return self.head(hidden_states)
