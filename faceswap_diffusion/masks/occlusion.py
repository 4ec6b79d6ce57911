"""What stands in front of a face: a small network of our own that finds glasses, hands, hair and held things."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config

from faceswap_diffusion.masks.regions import region_mask_from_landmarks
from faceswap_diffusion.masks.segmentation import SegmentationUNet

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "occlusion"

PLANES = (("face",), ("eyes", "mouth"), ("brows", "nose"))
"""Regions, drawn from landmarks, that the network is shown beside the picture."""

REACH = 0.06
"""How far around the mesh the network is asked, as a share of the root of the mesh's area."""


class OcclusionNetwork(SegmentationUNet, ConfigMixin):
    """U-Net that says of every pixel in a face's outline how probable it is that something is in front of the face.

    Args:
        sample_size (`int`): Side in pixels at which the network looks at a crop; a multiple of 16.
        block_out_channels (`tuple[int, ...]`): Channels at 1/2, 1/4, ... of `sample_size`.
        layers_per_block (`int`): Residual blocks a level below the first, on the way down.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 128,
        block_out_channels: tuple[int, ...] = (24, 48, 96, 160),
        layers_per_block: int = 2,
    ):
        super().__init__(3 + len(PLANES), block_out_channels, layers_per_block, 1)

    @torch.no_grad()
    def find(self, crop: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Finds what covers the face of an aligned crop.

        Args:
            crop (`np.ndarray`): (S, S, 3) uint8 RGB of any size, FFHQ-aligned.
            landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.

        Returns:
            `np.ndarray`: (S, S) float32 in [0, 1], the probability of being covered; 0 away from the face.

        Raises:
            ValueError: If `crop` is no square uint8 RGB picture.
        """
        if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[0] != crop.shape[1] or crop.shape[2] != 3:
            raise ValueError(f"got a crop of shape {crop.shape}, {crop.dtype}; a square RGB crop in uint8 is needed")
        size, side = crop.shape[0], self.config["sample_size"]
        resampling = cv2.INTER_AREA if size > side else cv2.INTER_CUBIC
        pixels = cv2.resize(crop, (side, side), interpolation=resampling)
        planes = face_planes((landmarks + 0.5) * (side / size) - 0.5, side)
        inputs = network_input(pixels[None], planes[None]).to(self.device, self.dtype)
        logits = F.interpolate(self(inputs).float(), size=(size, size), mode="bilinear", antialias=size < side)
        near = cv2.resize(near_face(planes[0]), (size, size), interpolation=cv2.INTER_LINEAR)
        return logits[0, 0].sigmoid().cpu().numpy() * near


def face_planes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Draws where the parts of a face are.

    Args:
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in pixels of a crop.
        size (`int`): Its side in pixels.

    Returns:
        `np.ndarray`: (3, size, size) float32, 0 or 1, as `PLANES` says.
    """
    regions = [[region_mask_from_landmarks(landmarks, size, name) for name in names] for names in PLANES]
    return np.stack([np.maximum.reduce(masks) for masks in regions])


def near_face(face: np.ndarray) -> np.ndarray:
    """Widens a face's outline (S, S) float32 by `REACH`, as far as the network was trained."""
    radius = max(1, round(REACH * np.sqrt(face.sum())))
    return cv2.dilate(face, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2))


def network_input(pixels: np.ndarray, planes: np.ndarray) -> torch.Tensor:
    """Joins crops (B, S, S, 3) uint8 RGB and their planes (B, 3, S, S) to (B, 6, S, S) float32 in [-1, 1]."""
    pixel_values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.cat([pixel_values, torch.from_numpy(planes) * 2 - 1], 1)


@lru_cache(maxsize=1)
def load_occlusion_network() -> OcclusionNetwork:
    """Loads the network that ships with the package, in float32 on the CPU, once a process."""
    return OcclusionNetwork.from_pretrained(CHECKPOINT).eval()
