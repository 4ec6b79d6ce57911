"""BiSeNet, the face parser that REFace was trained with: 19 labels, reduced to REFace's 12.

The weights (`79999_iter.pth`) were trained on CelebAMask-HQ, which is for non-commercial research only. The user
provides them, and `faceswap-diffusion convert reface --parser` puts them into a checkpoint.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

CELEBAMASK_LABELS = (
    "background", "skin", "left brow", "right brow", "left eye", "right eye", "glasses", "left ear", "right ear",
    "earring", "nose", "mouth", "upper lip", "lower lip", "neck", "necklace", "cloth", "hair", "hat",
)  # fmt: skip
"""Labels of the network, by index."""

REFACE_LABELS = (
    "background", "lips", "brows", "eyes", "hair", "nose", "skin", "ears", "neck", "mouth", "glasses", "earrings",
)  # fmt: skip
"""REFace's labels, by index; "mouth" is the inside of the mouth."""

REFACE_FROM_CELEBAMASK = {
    "skin": "skin", "left brow": "brows", "right brow": "brows", "left eye": "eyes", "right eye": "eyes",
    "glasses": "glasses", "left ear": "ears", "right ear": "ears", "earring": "earrings", "nose": "nose",
    "mouth": "mouth", "upper lip": "lips", "lower lip": "lips", "neck": "neck", "hair": "hair",
}  # fmt: skip
"""REFace's label for each label of the network; the rest (necklace, cloth, hat) becomes background."""

REDUCTION = np.array(
    [REFACE_LABELS.index(REFACE_FROM_CELEBAMASK.get(label, "background")) for label in CELEBAMASK_LABELS], np.uint8
)

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W)."""
        return F.relu(self.bn(self.conv(hidden)))


class ResidualBlock(nn.Module):
    """ResNet's basic block (arXiv 1512.03385)."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = nn.Sequential()
        if in_channels != channels:
            self.downsample.append(nn.Conv2d(in_channels, channels, 1, stride, bias=False))
            self.downsample.append(nn.BatchNorm2d(channels))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W) to (B, channels, H / stride, W / stride)."""
        residual = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(hidden)))))
        return F.relu(self.downsample(hidden) + residual)


class ResNet18(nn.Module):
    """ResNet-18 without its classifier."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = nn.Sequential(ResidualBlock(64, 64, 1), ResidualBlock(64, 64, 1))
        self.layer2 = nn.Sequential(ResidualBlock(64, 128, 2), ResidualBlock(128, 128, 1))
        self.layer3 = nn.Sequential(ResidualBlock(128, 256, 2), ResidualBlock(256, 256, 1))
        self.layer4 = nn.Sequential(ResidualBlock(256, 512, 2), ResidualBlock(512, 512, 1))

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Maps (B, 3, H, W) to features of 128, 256 and 512 channels at 1/8, 1/16 and 1/32 of the size."""
        hidden = F.max_pool2d(F.relu(self.bn1(self.conv1(pixel_values))), 3, 2, padding=1)
        eighth = self.layer2(self.layer1(hidden))
        sixteenth = self.layer3(eighth)
        return eighth, sixteenth, self.layer4(sixteenth)


class AttentionRefinement(nn.Module):
    """Convolution with channel attention."""

    def __init__(self, in_channels: int, out_channels: int):
        super().__init__()
        self.conv = ConvBlock(in_channels, out_channels)
        self.conv_atten = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        self.bn_atten = nn.BatchNorm2d(out_channels)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W)."""
        hidden = self.conv(hidden)
        gates = self.bn_atten(self.conv_atten(hidden.mean((2, 3), keepdim=True)))
        return hidden * gates.sigmoid()


class ContextPath(nn.Module):
    """Features with a large receptive field, upsampled to an eighth of the picture's size."""

    def __init__(self):
        super().__init__()
        self.resnet = ResNet18()
        self.arm16 = AttentionRefinement(256, 128)
        self.arm32 = AttentionRefinement(512, 128)
        self.conv_head32 = ConvBlock(128, 128)
        self.conv_head16 = ConvBlock(128, 128)
        self.conv_avg = ConvBlock(512, 128, kernel_size=1)

    def forward(self, pixel_values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Maps (B, 3, H, W) to two features (B, 128, H / 8, W / 8): spatial and context."""
        eighth, sixteenth, last = self.resnet(pixel_values)
        context = self.arm32(last) + self.conv_avg(last.mean((2, 3), keepdim=True))
        context = self.conv_head32(F.interpolate(context, sixteenth.shape[-2:]))
        context = self.arm16(sixteenth) + context
        return eighth, self.conv_head16(F.interpolate(context, eighth.shape[-2:]))


class FeatureFusion(nn.Module):
    """Joins both features, with channel attention."""

    def __init__(self, channels: int):
        super().__init__()
        self.convblk = ConvBlock(channels, channels, kernel_size=1)
        self.conv1 = nn.Conv2d(channels, channels // 4, 1, bias=False)
        self.conv2 = nn.Conv2d(channels // 4, channels, 1, bias=False)

    def forward(self, spatial: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        """Maps features (B, C1, H, W) and (B, C2, H, W) to (B, C1 + C2, H, W)."""
        hidden = self.convblk(torch.cat([spatial, context], dim=1))
        gates = self.conv2(F.relu(self.conv1(hidden.mean((2, 3), keepdim=True)))).sigmoid()
        return hidden * gates + hidden


class LabelHead(nn.Module):
    """Maps features to label logits."""

    def __init__(self, channels: int, num_labels: int):
        super().__init__()
        self.conv = ConvBlock(channels, channels)
        self.conv_out = nn.Conv2d(channels, num_labels, 1, bias=False)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Maps (B, C, H, W) to (B, num_labels, H, W)."""
        return self.conv_out(self.conv(hidden))


class BiSeNet(ModelMixin, ConfigMixin):
    """Face parser (arXiv 1808.00897, with the backbone's features as the spatial path), weights named as published.

    Args:
        sample_size (`int`): Side in pixels to which a crop is resized for the network.
        num_labels (`int`): Number of labels, see `CELEBAMASK_LABELS`.
    """

    label_names = REFACE_LABELS
    """Names of the labels that `parse` returns."""

    @register_to_config
    def __init__(self, sample_size: int = 512, num_labels: int = len(CELEBAMASK_LABELS)):
        super().__init__()
        self.cp = ContextPath()
        self.ffm = FeatureFusion(256)
        self.conv_out = LabelHead(256, num_labels)

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Computes label logits.

        Args:
            pixel_values (`torch.Tensor`): (B, 3, H, W), RGB, normalised by ImageNet's mean and deviation.

        Returns:
            `torch.Tensor`: Logits (B, num_labels, H, W).
        """
        logits = self.conv_out(self.ffm(*self.cp(pixel_values)))
        return F.interpolate(logits, pixel_values.shape[-2:], mode="bilinear", align_corners=True)

    @torch.no_grad()
    def parse_celebamask(self, crop: np.ndarray) -> np.ndarray:
        """Labels an aligned crop as CelebAMask-HQ does.

        Args:
            crop (`np.ndarray`): (S, S, 3) uint8 RGB of any size, FFHQ-aligned.

        Returns:
            `np.ndarray`: (S, S) uint8, indices into `CELEBAMASK_LABELS`.
        """
        size, side = crop.shape[0], self.config["sample_size"]
        pixels = crop if size == side else cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
        view = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        logits = self(((view - mean) / std).to(self.device, self.dtype)).float()
        if size != side:
            logits = F.interpolate(logits, (size, size), mode="bilinear")
        return logits[0].argmax(0).to(torch.uint8).cpu().numpy()

    def parse(self, crop: np.ndarray) -> np.ndarray:
        """Labels an aligned crop as REFace does.

        Args:
            crop (`np.ndarray`): (S, S, 3) uint8 RGB of any size, FFHQ-aligned.

        Returns:
            `np.ndarray`: (S, S) uint8, indices into `REFACE_LABELS`.
        """
        return REDUCTION[self.parse_celebamask(crop)]
