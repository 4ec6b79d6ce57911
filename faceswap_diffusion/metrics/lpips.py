"""LPIPS with VGG16 (Zhang and others, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018).

Version 0.1 of the weights, read from NumPy arrays. Values with another backbone (REFace uses AlexNet) differ.
"""

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from faceswap_diffusion.weights.pickled import read_arrays
from faceswap_diffusion.weights.registry import fetched_path

VGG16_STAGES = (2, 2, 3, 3, 3)
"""Number of convolutions in each stage. The last map of a stage is compared, and pooled for the next stage."""

SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
SIZE = 256


class LPIPS(nn.Module):
    """Differentiable perceptual distance of pictures, with a frozen network.

    Args:
        weights (`dict[str, Any]`, *optional*): `VGG16_0` with `Conv_0` to `Conv_12` (kernel (3, 3, I, O), bias) and
            `NetLinLayer_0` to `_4`; those of the registered file if left out.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weights: dict[str, Any] | None = None):
        super().__init__()
        weights = weights or read_arrays(fetched_path("lpips_vgg16"))
        convolutions = [weights["VGG16_0"][f"Conv_{index}"] for index in range(sum(VGG16_STAGES))]
        self.kernels = _frozen(np.asarray(part["kernel"]).transpose(3, 2, 0, 1) for part in convolutions)
        self.biases = _frozen(part["bias"] for part in convolutions)
        self.channel_weights = _frozen(
            np.asarray(weights[f"NetLinLayer_{stage}"]["Conv_0"]["kernel"]).reshape(-1, 1, 1)
            for stage in range(len(VGG16_STAGES))
        )
        self.register_buffer("shift", torch.tensor(SHIFT)[:, None, None])
        self.register_buffer("scale", torch.tensor(SCALE)[:, None, None])

    @torch.no_grad()
    def forward(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        """Distances (B,) between pairs of pictures (H, W, 3) uint8 RGB, resized to 256 px."""
        return self.distance(self._tensor(first), self._tensor(second)).cpu().numpy()

    def distance(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Distances between pairs of pictures at their own size, with gradients.

        Args:
            first (`torch.Tensor`): (B, 3, H, W), RGB in [-1, 1], at least 16 pixels wide and high.
            second (`torch.Tensor`): (B, 3, H, W), the same.

        Returns:
            `torch.Tensor`: (B,).
        """
        distances = first.new_zeros(len(first))
        maps = zip(self.feature_maps(first), self.feature_maps(second), self.channel_weights, strict=True)
        for x, y, channel_weights in maps:
            difference = (normalized(x) - normalized(y)) ** 2  # (B, C, H, W)
            distances = distances + (difference * channel_weights).sum(1).mean((1, 2))
        return distances

    def feature_maps(self, images: torch.Tensor) -> list[torch.Tensor]:
        """The last map (B, C, h, w) of each stage, of pictures (B, 3, H, W), RGB in [-1, 1]."""
        hidden = (images - self.shift) / self.scale
        maps, convolutions = [], zip(self.kernels, self.biases, strict=True)
        for stage, length in enumerate(VGG16_STAGES):
            hidden = F.max_pool2d(hidden, 2) if stage else hidden
            for kernel, bias in islice(convolutions, length):
                hidden = F.relu(F.conv2d(hidden, kernel, bias, padding=1))
            maps.append(hidden)
        return maps

    def _tensor(self, images: Sequence[np.ndarray]) -> torch.Tensor:
        resized = [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in images]
        pixels = torch.from_numpy(np.stack(resized)).to(self.shift.device)
        return pixels.permute(0, 3, 1, 2).float() / 127.5 - 1


def _frozen(arrays: Iterable[np.ndarray]) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.tensor(np.asarray(array)), requires_grad=False) for array in arrays)


def normalized(maps: torch.Tensor) -> torch.Tensor:
    """Scales the channels (B, C, H, W) at each position to unit length."""
    return maps / (maps.norm(dim=1, keepdim=True) + 1e-10)
