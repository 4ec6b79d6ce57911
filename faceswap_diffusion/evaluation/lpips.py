"""LPIPS over VGG16 (Zhang and others, "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018).

Version 0.1 of the weights, read from NumPy arrays. Figures over another backbone (REFace: AlexNet) do not compare.
"""

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from faceswap_diffusion.model_files import ModelFileError, fetched_path

VGG16_STAGES = (2, 2, 3, 3, 3)
"""Convolutions of each stage; their last maps are compared, and pooled for the next stage."""

SHIFT = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
SCALE = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
SIZE = 256
ARRAY_PARTS = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
}


class ArrayUnpickler(pickle.Unpickler):
    """Reads NumPy arrays in dictionaries, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Finds the names that arrays are made of."""
        if (module, name) not in ARRAY_PARTS:
            raise ModelFileError(f"the file names {module}.{name}: only NumPy arrays are read")
        return super().find_class(module.replace(".core.", "._core."), name)  # NumPy 2 moved it


def read_arrays(path: Path) -> dict[str, Any]:
    """Reads a pickled dictionary of NumPy arrays.

    Raises:
        ModelFileError: If there is anything else in it.
    """
    with path.open("rb") as file:
        return ArrayUnpickler(file).load()


class LPIPS:
    """Perceptual distance of pictures at 256 px.

    Args:
        weights (`dict[str, Any]`, *optional*): `VGG16_0` with `Conv_0` to `Conv_12` (kernel (3, 3, I, O), bias) and
            `NetLinLayer_0` to `_4`; the registered file's if left out.
    """

    def __init__(self, weights: dict[str, Any] | None = None):
        weights = weights or read_arrays(fetched_path("lpips_vgg16"))
        convolutions = [weights["VGG16_0"][f"Conv_{index}"] for index in range(sum(VGG16_STAGES))]
        self.convolutions = [
            (torch.tensor(np.asarray(part["kernel"]).transpose(3, 2, 0, 1)), torch.tensor(np.asarray(part["bias"])))
            for part in convolutions
        ]
        self.channel_weights = [
            torch.tensor(np.asarray(weights[f"NetLinLayer_{stage}"]["Conv_0"]["kernel"]).reshape(-1))
            for stage in range(len(VGG16_STAGES))
        ]

    @torch.no_grad()
    def __call__(self, first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> np.ndarray:
        """Distances (B,) of pairs of pictures (H, W, 3) uint8 RGB."""
        distances = torch.zeros(len(first))
        maps = zip(self.feature_maps(first), self.feature_maps(second), self.channel_weights, strict=True)
        for x, y, channel_weights in maps:
            difference = (normalized(x) - normalized(y)) ** 2  # (B, C, H, W)
            distances += (difference * channel_weights[:, None, None]).sum(1).mean((1, 2))
        return distances.numpy()

    def feature_maps(self, images: Sequence[np.ndarray]) -> list[torch.Tensor]:
        """The last map (B, C, H, W) of each stage."""
        resized = [cv2.resize(image, (SIZE, SIZE), interpolation=cv2.INTER_AREA) for image in images]
        hidden = torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float() / 127.5 - 1
        hidden = (hidden - SHIFT) / SCALE
        maps, convolutions = [], iter(self.convolutions)
        for stage, length in enumerate(VGG16_STAGES):
            hidden = F.max_pool2d(hidden, 2) if stage else hidden
            for _ in range(length):
                kernel, bias = next(convolutions)
                hidden = F.relu(F.conv2d(hidden, kernel, bias, padding=1))
            maps.append(hidden)
        return maps


def normalized(maps: torch.Tensor) -> torch.Tensor:
    """Scales the channels (B, C, H, W) at each place to unit length."""
    return maps / (maps.norm(dim=1, keepdim=True) + 1e-10)
