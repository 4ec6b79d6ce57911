"""Things in front of a face: a small network that finds glasses, hands, hair and held things."""

from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config

from faceswap_diffusion.devices import network_layout
from faceswap_diffusion.faces.alignment import crop as cut_out
from faceswap_diffusion.faces.alignment import invert, transform_points
from faceswap_diffusion.masks.outlines import dilate, region_mask_from_landmarks
from faceswap_diffusion.masks.segmentation import SegmentationUNet

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "occlusion"

PLANES = (("face",), ("eyes", "mouth"), ("brows", "nose"))
"""Regions, drawn from landmarks, that the network gets as additional input planes."""

CERTAINTY = (0.15, 0.3)
"""A pixel counts as face up to the first probability, and as covered from the second."""

GROWTH = 0.004
"""Dilation of what is found, as a share of the crop's side, so that thin frames stay whole."""

WINDOW = 1.3
"""Side of the network's window, relative to the larger side of the face's bounding box."""

THIN = 0.032
"""Half the width of what a face is continued over, as a share of the crop's side."""

AROUND_THIN = 0.004
"""Share of the crop's side around thin things that is filled in as well: it has some of their colour and shadow."""

REACH = 0.06
"""Extension of the searched area above the mesh, relative to the square root of the mesh's area."""


class OcclusionNetwork(SegmentationUNet, ConfigMixin):
    """U-Net that gives, for every pixel of a face, the probability that something is in front of it.

    Args:
        sample_size (`int`): Side in pixels of the window around the face; a multiple of 16.
        block_out_channels (`tuple[int, ...]`): Channels at 1/2, 1/4, ... of `sample_size`.
        layers_per_block (`int`): Residual blocks in each level of the encoder but the first.
    """

    @register_to_config
    def __init__(
        self,
        sample_size: int = 96,
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
            `np.ndarray`: (S, S) float32 in [0, 1], probability of being covered; 0 outside the face.

        Raises:
            ValueError: If `crop` is not a square uint8 RGB picture.
        """
        if crop.dtype != np.uint8 or crop.ndim != 3 or crop.shape[0] != crop.shape[1] or crop.shape[2] != 3:
            raise ValueError(f"got a crop of shape {crop.shape}, {crop.dtype}; a square RGB crop in uint8 is needed")
        size = crop.shape[0]
        matrix = window_matrix(landmarks, size, self.config["sample_size"])
        pixels = cut_out(crop, matrix, self.config["sample_size"])
        planes = face_planes(transform_points(landmarks, matrix), len(pixels))
        inputs = network_input(pixels[None], planes[None]).to(self.device, self.dtype)
        found = self(inputs)[0, 0].float().sigmoid().cpu().numpy() * near_face(planes[0])
        return np.clip(cv2.warpAffine(found, invert(matrix), (size, size), flags=cv2.INTER_CUBIC), 0, 1)


def cover_mask(probability: np.ndarray) -> np.ndarray:
    """Converts probabilities to a soft mask of what stays unchanged.

    Args:
        probability (`np.ndarray`): (S, S) float32 in [0, 1], from [`OcclusionNetwork.find`].

    Returns:
        `np.ndarray`: (S, S) float32 in [0, 1].
    """
    low, high = CERTAINTY
    covered = np.clip((probability - low) / (high - low), 0, 1)
    radius = max(1, round(GROWTH * len(covered)))
    return cv2.GaussianBlur(dilate(covered, radius), (0, 0), 0.5 * radius)


def mend_thin(pixels: np.ndarray, covered: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Fills in a face behind thin things in front of it, such as frames and single hairs (Telea 2004).

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB.
        covered (`np.ndarray`): (S, S) float32 in [0, 1], from `cover_mask`.

    Returns:
        `tuple[np.ndarray, np.ndarray, np.ndarray]`: The mended crop, where it was mended, (S, S) float32 in [0, 1],
        and what is still covered, because too much of the face is hidden there, (S, S) float32 in [0, 1].
    """
    radius = max(1, round(THIN * len(covered)))
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    hidden, core = ((covered > share).astype(np.uint8) for share in (0.4, 0.95))
    broad = dilate(cv2.morphologyEx(core, cv2.MORPH_OPEN, disc), radius)
    thin = dilate(hidden * (1 - broad), round(AROUND_THIN * len(covered))) * (1 - broad)
    mended = cv2.inpaint(pixels, thin, radius, cv2.INPAINT_TELEA)
    return mended, np.clip(cv2.GaussianBlur(thin.astype(np.float32), (0, 0), 1.0) * 2, 0, 1), covered * broad


def window_matrix(landmarks: np.ndarray, size: int, side: int) -> np.ndarray:
    """The window of the network: a square around the face's outline.

    Args:
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in pixels of a crop.
        size (`int`): Side of the crop in pixels.
        side (`int`): Side of the window in pixels of the window.

    Returns:
        `np.ndarray`: (2, 3), crop pixels to window pixels.
    """
    left, top, width, height = cv2.boundingRect(region_mask_from_landmarks(landmarks, size).astype(np.uint8))
    scale = side / (WINDOW * max(width, height, 1))
    middle = np.array([left + (width - 1) / 2, top + (height - 1) / 2])
    return np.column_stack([np.eye(2) * scale, (side - 1) / 2 - scale * middle])


def face_planes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Draws the parts of a face.

    Args:
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in pixels of a crop.
        size (`int`): Side of the crop in pixels.

    Returns:
        `np.ndarray`: (3, size, size) float32, 0 or 1, in the order of `PLANES`.
    """
    regions = [[region_mask_from_landmarks(landmarks, size, name) for name in names] for names in PLANES]
    return np.stack([np.maximum.reduce(masks) for masks in regions])


def near_face(face: np.ndarray) -> np.ndarray:
    """Extends a face's mask (S, S) float32 upwards only: beside and below it are hair, beard and background."""
    reach = max(1, round(REACH * np.sqrt(face.sum())))
    looking_down = np.concatenate([np.zeros((reach, 1)), np.ones((reach + 1, 1))]).astype(np.uint8)
    return cv2.dilate(face, looking_down)


def network_input(pixels: np.ndarray, planes: np.ndarray) -> torch.Tensor:
    """Joins crops (B, S, S, 3) uint8 RGB and their planes (B, 3, S, S) to (B, 6, S, S) float32 in [-1, 1]."""
    pixel_values = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    return torch.cat([pixel_values, torch.from_numpy(planes) * 2 - 1], 1)


@lru_cache(maxsize=1)
def load_occlusion_network() -> OcclusionNetwork:
    """Loads the network in the package, in float32 on the CPU, once per process."""
    network = OcclusionNetwork.from_pretrained(CHECKPOINT).eval()
    return network.to(memory_format=network_layout("cpu"))  # pyright: ignore[reportCallIssue]
