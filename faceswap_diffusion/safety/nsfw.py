"""Yahoo's open_nsfw: how likely a picture is not suitable for work."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from faceswap_diffusion.safety.constants import channels_last, fix_weights
from faceswap_diffusion.weights.registry import model_path

RESIZED, CROPPED = 256, 224
MEAN_BGR = (104.0, 117.0, 123.0)
STAGES = ((32, 3), (64, 4), (128, 6), (256, 3))
"""Of each stage the width of its bottlenecks, and how many there are."""


class Bottleneck(nn.Module):
    """A bottleneck of a residual network (arXiv 1512.03385), its batch normalisations folded into the convolutions."""

    def __init__(self, in_channels: int, width: int, stride: int, projects: bool):
        super().__init__()
        if projects:
            self.proj_shortcut = nn.Conv2d(in_channels, 4 * width, 1, stride)
        self.branch2a = nn.Conv2d(in_channels, width, 1, stride)
        self.branch2b = nn.Conv2d(width, width, 3, 1, 1)
        self.branch2c = nn.Conv2d(width, 4 * width, 1)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W) to (B, 4 * width, H / stride, W / stride)."""
        shortcut = self.proj_shortcut(hidden) if hasattr(self, "proj_shortcut") else hidden
        inner = F.relu(self.branch2b(F.relu(self.branch2a(hidden))))
        return F.relu(self.branch2c(inner) + shortcut)


class NSFWNet(nn.Module):
    """open_nsfw, a thin ResNet-50 of 6 million weights, from the int8 weights in the package.

    Its authors (Jay Mahadeokar, Gerry Pesavento) call scores below 0.2 safe and those above 0.8 explicit.

    Raises:
        ModelFileError: When the file of weights is missing or altered.
    """

    def __init__(self):
        super().__init__()
        self.conv_1 = nn.Conv2d(3, 64, 7, 2, 3)
        channels = 64
        for stage, (width, count) in enumerate(STAGES):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                bottleneck = Bottleneck(channels, width, stride, projects=block == 0)
                self.add_module(f"stage{stage}_block{block}", bottleneck)
                channels = 4 * width
        self.fc_nsfw = nn.Linear(channels, 2)
        weights = dequantize_rows(load_file(model_path("open_nsfw")))
        fix_weights(self, {name: channels_last(weight) for name, weight in weights.items()})

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Scores pictures.

        Args:
            pixel_values (`torch.Tensor`): (B, 3, 224, 224), BGR, less `MEAN_BGR`, as `nsfw_input` makes them.

        Returns:
            `torch.Tensor`: (B,), the probability that a picture is explicit.
        """
        hidden = F.relu(self.conv_1(channels_last(pixel_values)))
        hidden = F.max_pool2d(hidden, 3, 2, ceil_mode=True)
        for stage, (_, count) in enumerate(STAGES):
            for block in range(count):
                hidden = self.get_submodule(f"stage{stage}_block{block}")(hidden)
        return self.fc_nsfw(hidden.mean(dim=(2, 3))).float().softmax(dim=1)[:, 1]


def dequantize_rows(stored: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Undoes the quantisation of `tools/convert_open_nsfw.py`.

    Args:
        stored (`dict[str, torch.Tensor]`): By name; an int8 tensor NAME.weight with (rows, ...) comes with NAME.scale,
            (rows,).

    Returns:
        `dict[str, torch.Tensor]`: The same in float32, without the scales.
    """
    weights = {}
    for name, tensor in stored.items():
        if tensor.dtype == torch.int8:
            scale = stored[name.replace(".weight", ".scale")]
            weights[name] = tensor * scale.view(-1, *(1,) * (tensor.ndim - 1))
        elif not name.endswith(".scale"):
            weights[name] = tensor
    return weights


def nsfw_input(image: np.ndarray) -> torch.Tensor:
    """Makes the input of `NSFWNet`, as open_nsfw has it but for a pass through JPEG: all of the picture, squeezed.

    Args:
        image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The picture.

    Returns:
        `torch.Tensor`: (1, 3, 224, 224).
    """
    picture = Image.fromarray(image).resize((RESIZED, RESIZED), Image.Resampling.BILINEAR, reducing_gap=3.0)
    margin = (RESIZED - CROPPED) // 2
    rgb = np.asarray(picture)[margin:-margin, margin:-margin].astype(np.float32)
    bgr = np.ascontiguousarray((rgb[..., ::-1] - np.array(MEAN_BGR, np.float32)).transpose(2, 0, 1))
    return torch.from_numpy(bgr)[None]
