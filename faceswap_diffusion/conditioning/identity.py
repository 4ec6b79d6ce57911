"""Identity networks as differentiable torch modules: SFace (128-d) and IR-SE50 ArcFace (512-d)."""

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import nn

from faceswap_diffusion.faces.alignment import arcface_matrix, resized_matrix
from faceswap_diffusion.weights.registry import model_path

SFACE_WINDOW = (36, 219, 35, 218)
"""Top, bottom, left and right of ArcFace's view in an FFHQ-aligned crop of 256 pixels."""

# (name, stride) of SFace's layers, a MobileNet: "dw" ones are depthwise. The input is 112 px, the last map 7 px.
SFACE_LAYERS = (
    ("conv_1", 1), ("conv_2_dw", 1), ("conv_2", 1), ("conv_3_dw", 2), ("conv_3", 1), ("conv_4_dw", 1), ("conv_4", 1),
    ("conv_5_dw", 2), ("conv_5", 1), ("conv_6_dw", 1), ("conv_6", 1), ("conv_7_dw", 2), ("conv_7", 1),
    ("conv_8_dw", 1), ("conv_8", 1), ("conv_9_dw", 1), ("conv_9", 1), ("conv_10_dw", 1), ("conv_10", 1),
    ("conv_11_dw", 1), ("conv_11", 1), ("conv_12_dw", 1), ("conv_12", 1), ("conv_13_dw", 2), ("conv_13", 1),
    ("conv_14_dw", 1), ("conv_14", 1),
)  # fmt: skip


def dequantize_blocks(weight: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> torch.Tensor:
    """Reverses ONNX's block quantisation: (weight - zero_point) * scale, with one pair for each block of columns.

    Args:
        weight (`torch.Tensor`): int8, (rows, columns).
        scale (`torch.Tensor`): float32, (rows, blocks).
        zero_point (`torch.Tensor`): int8, (rows, blocks).

    Returns:
        `torch.Tensor`: float32, (rows, columns).
    """
    block_size = -(-weight.shape[1] // scale.shape[1])
    steps = weight.float() - zero_point.float().repeat_interleave(block_size, 1)[:, : weight.shape[1]]
    return steps * scale.repeat_interleave(block_size, 1)[:, : weight.shape[1]]


def sface_matrix(keypoints: np.ndarray, size: int) -> np.ndarray:
    """Photo pixels to pixels of a crop of which `SFace.prepare` cuts out ArcFace's view of a face, (2, 3).

    Args:
        keypoints (`np.ndarray` of shape `(5, 2)`): Eyes, nose, mouth corners in pixels, viewer's left first.
        size (`int`): Side of the crop.
    """
    top, bottom, left, _ = (size * edge / 256 for edge in SFACE_WINDOW)
    matrix = resized_matrix(arcface_matrix(keypoints, 112), 112, round(bottom - top))
    return matrix + np.array([[0, 0, left], [0, 0, top]])


class SFace(nn.Module):
    """SFace (arXiv 2205.12010) of the OpenCV zoo, 128-d, from the int8 weights in the package.

    The weights are buffers outside the state dict. They are constants of the package, checked by SHA-256: checkpoints
    do not contain them, and training cannot change them.

    `same_person` is the minimal cosine of two faces of one person. OpenCV's tutorial "DNN-based Face Detection And
    Recognition" gives 0.363, with an accuracy of 99.60 % on LFW.
    """

    embedding_dim = 128
    same_person: float | None = 0.363

    conv_1_weight: torch.Tensor
    norm_scale: torch.Tensor
    norm_bias: torch.Tensor
    head_weight: torch.Tensor
    head_bias: torch.Tensor

    def __init__(self):
        super().__init__()
        stored = load_file(model_path("sface"))
        # Sorted, because DDP synchronises buffers between processes by their order.
        for name in sorted({key.rpartition(".")[0] for key in stored if key.endswith(".zero_point")}):
            weight = dequantize_blocks(*(stored[f"{name}.{part}"] for part in ("weight", "scale", "zero_point")))
            if name.endswith("dw") or name == "conv_1":
                weight = weight.view(len(weight), -1, 3, 3)
            elif name != "head":
                weight = weight[:, :, None, None]
            self._add_buffer(name, "weight", weight)
            self._add_buffer(name, "bias", stored[f"{name}.bias"])
            if name != "head":
                self._add_buffer(name, "slope", stored[f"{name}.slope"])
        self._add_buffer("norm", "scale", stored["norm.scale"][:, None, None])
        self._add_buffer("norm", "bias", stored["norm.bias"][:, None, None])

    def _add_buffer(self, name: str, part: str, tensor: torch.Tensor) -> None:
        self.register_buffer(f"{name}_{part}", tensor, persistent=False)

    def prepare(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Cuts the 112 px input of the recogniser out of FFHQ-aligned crops (B, 3, H, W) of any square size.

        The window is the position of ArcFace's template on the mean FFHQ-aligned face.
        """
        top, bottom, left, right = (round(pixel_values.shape[-1] * edge / 256) for edge in SFACE_WINDOW)
        window = pixel_values[..., top:bottom, left:right]
        # In float32, because torch has no antialiased resizing in half precision on the CPU.
        view = F.interpolate(window.float(), (112, 112), mode="bilinear", antialias=True, align_corners=False)
        return view.to(pixel_values.dtype)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds faces.

        Args:
            pixel_values (`torch.Tensor`): (B, 3, 112, 112), RGB in [-1, 1], aligned to ArcFace's template.

        Returns:
            `torch.Tensor`: (B, 128), of unit length.
        """
        hidden = pixel_values.to(self.conv_1_weight.dtype) * (127.5 / 128)
        for name, stride in SFACE_LAYERS:
            weight = getattr(self, f"{name}_weight")
            padding, groups = weight.shape[-1] // 2, hidden.shape[1] // weight.shape[1]
            hidden = F.conv2d(hidden, weight, getattr(self, f"{name}_bias"), stride, padding, groups=groups)
            hidden = F.prelu(hidden, getattr(self, f"{name}_slope"))
        hidden = hidden * self.norm_scale + self.norm_bias
        return F.normalize(F.linear(hidden.flatten(1), self.head_weight, self.head_bias))


class SqueezeExcitation(nn.Module):
    """Channel attention (arXiv 1709.01507) without biases, as in IR-SE50."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1, bias=False)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Scales the channels of (B, C, H, W)."""
        gates = self.fc2(F.relu(self.fc1(hidden.mean(dim=(2, 3), keepdim=True))))
        return hidden * gates.sigmoid()


class ImprovedResidualUnit(nn.Module):
    """One IR-SE unit: batch norm, conv, PReLU, strided conv, batch norm and channel attention, plus a shortcut."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        if in_channels == channels:
            self.shortcut_layer = nn.MaxPool2d(1, stride)
        else:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            SqueezeExcitation(channels),
        )

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        return self.shortcut_layer(hidden) + self.res_layer(hidden)


class IRSE50(nn.Module):
    """IR-SE50 ArcFace (arXiv 1801.07698), 512-d, with the parameter names of the published `model_ir_se50.pth`.

    `same_person` is the minimal cosine of two faces of one person: 1 - d / 2, where d = 1.54 is the largest squared
    distance of unit vectors that the network's author accepts as one person (`--threshold` of `face_verify.py` in
    TreB1eN/InsightFace_Pytorch). It was not measured on our crops.
    """

    embedding_dim = 512
    same_person: float | None = 0.23

    def __init__(self):
        super().__init__()
        self.input_layer = nn.Sequential(nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))
        units, in_channels = [], 64
        for channels, num_units in ((64, 3), (128, 4), (256, 14), (512, 3)):
            for index in range(num_units):
                units.append(ImprovedResidualUnit(in_channels, channels, stride=2 if index == 0 else 1))
                in_channels = channels
        self.body = nn.Sequential(*units)
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(512), nn.Dropout(), nn.Flatten(), nn.Linear(512 * 7 * 7, 512), nn.BatchNorm1d(512)
        )

    def prepare(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """REFace's view of an FFHQ-aligned crop: pool to 256, rows 35:223 and columns 32:220, pool to 112."""
        pooled = F.adaptive_avg_pool2d(pixel_values, 256)
        return F.adaptive_avg_pool2d(pooled[..., 35:223, 32:220], 112)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Embeds faces: (B, 3, 112, 112), RGB in [-1, 1], to (B, 512) of unit length."""
        hidden = self.input_layer(pixel_values.to(next(self.input_layer.parameters()).dtype))
        return F.normalize(self.output_layer(self.body(hidden)))


IDENTITY_NETWORKS = {"sface": SFace, "ir_se50": IRSE50}
"""Identity networks by name. If `same_person` is `None`, no threshold is known: then the most similar face is always
accepted as the person searched for, and there are no warnings about different people."""
