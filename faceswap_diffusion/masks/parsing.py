"""A small face parser: labels each pixel of an aligned crop as skin, hair, brow, eye and so on."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config

from faceswap_diffusion.devices import network_layout
from faceswap_diffusion.masks.labels import LABELS
from faceswap_diffusion.masks.segmentation import SegmentationUNet

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "face_parser"


class FaceParser(SegmentationUNet, ConfigMixin):
    """U-Net that labels every pixel of an FFHQ-aligned crop.

    Args:
        sample_size (`int`): Side in pixels to which a crop is resized for the network; a multiple of 16.
        block_out_channels (`tuple[int, ...]`): Channels at 1/2, 1/4, ... of `sample_size`.
        layers_per_block (`int`): Residual blocks in each level of the encoder but the first.
        num_labels (`int`): Number of labels, see `LABELS`.
    """

    label_names = LABELS
    """Names of the labels that `parse` returns."""

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        block_out_channels: tuple[int, ...] = (24, 48, 96, 160),
        layers_per_block: int = 2,
        num_labels: int = len(LABELS),
    ):
        super().__init__(3, block_out_channels, layers_per_block, num_labels)

    @torch.no_grad()
    def parse(self, crop: np.ndarray) -> np.ndarray:
        """Labels an aligned crop.

        Args:
            crop (`np.ndarray`): (S, S, 3) uint8 RGB of any size, FFHQ-aligned.

        Returns:
            `np.ndarray`: (S, S) uint8, indices into `LABELS`.

        Raises:
            ValueError: If `crop` is not a square uint8 RGB picture.
        """
        if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[0] != crop.shape[1] or crop.shape[2] != 3:
            raise ValueError(f"got a crop of shape {crop.shape}, {crop.dtype}; a square RGB crop in uint8 is needed")
        size, side = crop.shape[0], self.config["sample_size"]
        resampling = cv2.INTER_AREA if size > side else cv2.INTER_CUBIC
        pixels = torch.from_numpy(cv2.resize(crop, (side, side), interpolation=resampling))
        pixel_values = pixels.permute(2, 0, 1)[None].to(self.device, self.dtype) / 127.5 - 1
        logits = F.interpolate(self(pixel_values).float(), size=(size, size), mode="bilinear", antialias=size < side)
        return logits[0].max(0).indices.to(torch.uint8).cpu().numpy()  # argmax takes three times as long on a CPU


@lru_cache(maxsize=1)
def load_face_parser() -> FaceParser:
    """Loads the parser in the package, in float32 on the CPU, once per process."""
    network = FaceParser.from_pretrained(CHECKPOINT).eval()
    return network.to(memory_format=network_layout("cpu"))  # pyright: ignore[reportCallIssue]
