"""A small face parser of our own: which pixel of an aligned crop is skin, hair, brow, eye and so on."""

from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

LABELS = ("background", "skin", "hair", "brows", "eyes", "nose", "lips", "mouth", "other")
"""What the parser tells apart, by index. "other" is neck, ears, hats, clothes, hands and things before the face."""

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "face_parser"


class ConvBlock(nn.Sequential):
    """3x3 convolution, batch normalisation, SiLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1):
        super().__init__(
            nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.SiLU(),
        )


class SeparableBlock(nn.Module):
    """Residual block of a wide depthwise convolution and a pointwise one: a large view for little arithmetic."""

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


class FaceParser(ModelMixin, ConfigMixin):
    """U-Net that labels every pixel of an FFHQ-aligned crop.

    Pixels are folded into channels on entry and unfolded on exit, so that no convolution runs at full resolution.

    Args:
        sample_size (`int`): Side in pixels at which the network looks at a crop; a multiple of 16.
        block_out_channels (`tuple[int, ...]`): Channels at 1/2, 1/4, ... of `sample_size`.
        layers_per_block (`int`): Residual blocks a level below the first, on the way down.
        num_labels (`int`): Number of labels, see `LABELS`.
    """

    label_names = LABELS
    """What the labels mean that `parse` gives."""

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        block_out_channels: tuple[int, ...] = (24, 48, 96, 160),
        layers_per_block: int = 2,
        num_labels: int = len(LABELS),
    ):
        super().__init__()
        first, *_ = channels = list(block_out_channels)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), ConvBlock(12, first))
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
        """Computes label logits.

        Args:
            pixel_values (`torch.Tensor`): (B, 3, S, S) in [-1, 1], RGB; S a multiple of 16, best `sample_size`.

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

    @torch.no_grad()
    def parse(self, crop: np.ndarray) -> np.ndarray:
        """Labels an aligned crop.

        Args:
            crop (`np.ndarray`): (S, S, 3) uint8 RGB of any size, FFHQ-aligned.

        Returns:
            `np.ndarray`: (S, S) uint8, indices into `LABELS`.

        Raises:
            ValueError: If `crop` is no square uint8 RGB picture.
        """
        if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[0] != crop.shape[1] or crop.shape[2] != 3:
            raise ValueError(f"got a crop of shape {crop.shape}, {crop.dtype}; a square RGB crop in uint8 is needed")
        size, side = crop.shape[0], self.config["sample_size"]
        resampling = cv2.INTER_AREA if size > side else cv2.INTER_CUBIC
        pixels = torch.from_numpy(cv2.resize(crop, (side, side), interpolation=resampling))
        pixel_values = pixels.permute(2, 0, 1)[None].to(self.device, self.dtype) / 127.5 - 1
        logits = F.interpolate(self(pixel_values).float(), size=(size, size), mode="bilinear", antialias=size < side)
        return logits[0].argmax(0).to(torch.uint8).cpu().numpy()


@lru_cache(maxsize=1)
def load_face_parser() -> FaceParser:
    """Loads the parser that ships with the package, in float32 on the CPU, once a process."""
    return FaceParser.from_pretrained(CHECKPOINT).eval()
