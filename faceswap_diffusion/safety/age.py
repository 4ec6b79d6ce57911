"""Apparent age of a face, to keep minors out: face-api.js's age network and a probe of ours."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from faceswap_diffusion.faces.alignment import arcface_matrix, crop
from faceswap_diffusion.safety.constants import channels_last, fix_weights
from faceswap_diffusion.weights.registry import model_path

AGE_PROBE = Path(__file__).parents[1] / "checkpoints" / "age_probe" / "model.safetensors"
CROP_SIZE = 112
# The network was trained on detectors' boxes, which reach below the chin: ArcFace's square has to move down by this
# many of its pixels, measured on pictures that were inspected one by one.
CROP_DROP = 12.0
MEAN_RGB = (122.782, 117.001, 104.298)


class SeparableConv(nn.Module):
    """A depthwise convolution, then a pointwise one."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False)
        self.pointwise = nn.Conv2d(in_channels, channels, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H, W)."""
        return self.pointwise(self.depthwise(hidden))


class ReductionBlock(nn.Module):
    """Two separable convolutions and a max pooling beside a strided shortcut (Xception, arXiv 1610.02357)."""

    def __init__(self, in_channels: int, channels: int):
        super().__init__()
        self.separable_conv0 = SeparableConv(in_channels, channels)
        self.separable_conv1 = SeparableConv(channels, channels)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)  # TensorFlow's "same": windows may reach beyond the far edges
        self.expansion_conv = nn.Conv2d(in_channels, channels, 1, 2)

    def forward(self, hidden: torch.Tensor, activated: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W), and the same as the convolutions see it, to (B, channels, H / 2, W / 2)."""
        pooled = self.pool(self.separable_conv1(F.relu(self.separable_conv0(activated))))
        return pooled + self.expansion_conv(hidden)


class MainBlock(nn.Module):
    """Three separable convolutions beside a shortcut (Xception, arXiv 1610.02357)."""

    def __init__(self, channels: int):
        super().__init__()
        self.separable_conv0 = SeparableConv(channels, channels)
        self.separable_conv1 = SeparableConv(channels, channels)
        self.separable_conv2 = SeparableConv(channels, channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Keeps the shape, (B, channels, H, W)."""
        inner = self.separable_conv0(F.relu(hidden))
        inner = self.separable_conv1(F.relu(inner))
        return hidden + self.separable_conv2(F.relu(inner))


class AgeNet(nn.Module):
    """The age half of face-api.js's `age_gender_model`: a small Xception and a linear layer, with its own weights.

    Its author states a mean error of 4.5 years over eight data sets, 3.1 from 4 to 8 years and 4.8 from 9 to 18.

    Raises:
        ModelFileError: When the file of weights is missing or altered.
    """

    def __init__(self):
        super().__init__()
        self.conv_in = nn.Conv2d(3, 32, 3, 2)
        self.reduction_block_0 = ReductionBlock(32, 64)
        self.reduction_block_1 = ReductionBlock(64, 128)
        self.main_block_0 = MainBlock(128)
        self.main_block_1 = MainBlock(128)
        self.reduction_block = ReductionBlock(128, 256)
        self.separable_conv = SeparableConv(256, 512)
        self.age = nn.Linear(512, 1)
        weights = dequantize(load_file(model_path("age_net")))
        fix_weights(self, {name: channels_last(weight) for name, weight in weights.items()})

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Estimates ages.

        Args:
            pixel_values (`torch.Tensor`): (B, 3, 112, 112), RGB in [-1, 1], faces as `age_crop` cuts them.

        Returns:
            `torch.Tensor`: (B,), years.
        """
        mean = torch.tensor(MEAN_RGB, device=pixel_values.device)[:, None, None]
        hidden = (((channels_last(pixel_values) + 1) * 127.5 - mean) / 256).to(self.conv_in.weight.dtype)
        hidden = F.relu(self.conv_in(F.pad(hidden, (0, 1, 0, 1))))
        hidden = self.reduction_block_0(hidden, hidden)
        hidden = self.reduction_block_1(hidden, F.relu(hidden))
        hidden = self.main_block_1(self.main_block_0(hidden))
        hidden = self.reduction_block(hidden, F.relu(hidden))
        hidden = F.relu(self.separable_conv(hidden))
        return self.age(hidden.mean(dim=(2, 3)))[:, 0]


def dequantize(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undoes the quantisation of TensorFlow.js: a uint8 weight stands for `weight * scale + min`.

    Args:
        stored (`dict[str, torch.Tensor]`): By name; with each uint8 tensor NAME comes `NAME.affine`, (2,), scale
            and min.

    Returns:
        `dict[str, torch.Tensor]`: The same, all float32, without the `affine`s.
    """
    weights = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.uint8:
            scale, minimum = stored[f"{name}.affine"]
            weights[name] = tensor * scale + minimum
        elif not name.endswith(".affine"):
            weights[name] = tensor
    return weights


def age_crop(image: np.ndarray, keypoints: np.ndarray) -> torch.Tensor:
    """Cuts out the input of `AgeNet`, as it is and mirrored.

    Args:
        image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo.
        keypoints (`np.ndarray` of shape `(5, 2)`): Eyes, nose, mouth corners in pixels, viewer's left first.

    Returns:
        `torch.Tensor`: (2, 3, 112, 112), RGB in [-1, 1].
    """
    matrix = arcface_matrix(keypoints, CROP_SIZE) - [[0, 0, 0], [0, 0, CROP_DROP]]
    face = torch.from_numpy(crop(image, matrix, CROP_SIZE)).permute(2, 0, 1).float() / 127.5 - 1
    return torch.stack([face, face.flip(2)])


class AgeEstimator(nn.Module):
    """Apparent age of a face: the mean of two estimates whose errors differ.

    `AgeNet` looks at the face and at its mirror image, and the younger answer counts. The age probe, a linear layer,
    predicts the age from SFace's identity embedding; `tools/fit_age_probe.py` fitted it to answers of `AgeNet`.

    Raises:
        ModelFileError: When the network's file of weights is missing or altered.
    """

    probe_weight: torch.Tensor
    probe_bias: torch.Tensor

    def __init__(self):
        super().__init__()
        self.net = AgeNet()
        for name, tensor in load_file(AGE_PROBE).items():
            self.register_buffer(f"probe_{name}", tensor)

    @torch.no_grad()
    def forward(self, image: np.ndarray, keypoints: np.ndarray, embedding: np.ndarray) -> float:
        """Estimates an age.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo.
            keypoints (`np.ndarray` of shape `(5, 2)`): Eyes, nose, mouth corners in pixels, viewer's left first.
            embedding (`np.ndarray` of shape `(128,)`, float32): SFace's, of unit length.

        Returns:
            `float`: Years.
        """
        youngest = self.net(age_crop(image, keypoints).to(self.probe_weight.device)).min()
        told = self.probe_weight.float().cpu() @ torch.from_numpy(embedding) + self.probe_bias.float().cpu()
        return float(youngest.cpu() + told[0]) / 2
