"""A face cut out of its photo, with all that is known of it there."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch

from faceswap_diffusion.faces.alignment import crop
from faceswap_diffusion.masks.regions import worn_mask
from faceswap_diffusion.swapping.exposure import AS_IT_IS, Exposure

FINEST_CROP = 1024  # side in pixels: what a photo has beyond it is lost


@dataclass(frozen=True)
class AlignedFace:
    """A face cut out as the pipeline wants it.

    Args:
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB, FFHQ-aligned, in the light that `exposure` says.
        matrix (`np.ndarray`): (2, 3), photo pixels to crop pixels.
        labels (`np.ndarray`): (S, S) uint8, what the face parser sees.
        label_names (`tuple[str, ...]`): What the labels mean.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.
        landmarks68 (`np.ndarray`): (68, 2) in dlib's order, x, y in crop pixels.
        geometry (`torch.Tensor`, *optional*): (1, 68, 2), the part of `landmarks68` that is the person's own; `None`
            if the checkpoint has no use for it, or the analyzer tells no pose and expression.
        depth (`np.ndarray`, *optional*): (478,), of `landmarks`, in crop pixels, smaller is nearer; `None` if the
            analyzer fits no mesh.
        covered (`np.ndarray`, *optional*): (S, S) float32 in [0, 1], where something is in front of the face; `None`
            if nobody looked.
        own (`np.ndarray`, *optional*): (S, S) float32 in [0, 1], 0 where the crop shows another face; `None` if
            none is near.
        score (`float`): How sure the detector is of it; of two faces that overlap, the surer one is in front.
        exposure ([`Exposure`]): How `pixels` are shown: brighter than the photo, in white light, unfaded.
    """

    pixels: np.ndarray
    matrix: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    landmarks: np.ndarray
    landmarks68: np.ndarray
    geometry: torch.Tensor | None = None
    depth: np.ndarray | None = None
    covered: np.ndarray | None = None
    own: np.ndarray | None = None
    score: float = 1.0
    exposure: Exposure = AS_IT_IS

    def apart(self) -> np.ndarray:
        """Where the crop shows no other face, (S, S) float32 in [0, 1]."""
        return np.ones(self.labels.shape, np.float32) if self.own is None else self.own

    def hidden(self, region: str = "face") -> np.ndarray:
        """Where something is in front of the face that is not itself part of a region, (S, S) float32 in [0, 1]."""
        if self.covered is None:
            return np.zeros(self.labels.shape, np.float32)
        return self.covered * (1 - worn_mask(self.labels, region, self.label_names))

    def free(self, region: str = "face") -> np.ndarray:
        """Where the crop shows the face's own pixels, see `apart` and `hidden`, (S, S) float32 in [0, 1]."""
        return self.apart() * (1 - self.hidden(region))


def native_size(rgb_matrix: np.ndarray, size: int) -> int:
    """Side of the aligned square of a face in pixels of its photo, from the crop's up to `FINEST_CROP`.

    Args:
        rgb_matrix (`np.ndarray`): (2, 3), photo pixels to pixels of a crop of `size`.
        size (`int`): In pixels.
    """
    side = size / np.sqrt(abs(np.linalg.det(rgb_matrix[:, :2])))
    return int(np.clip(np.ceil(side), size, max(size, FINEST_CROP)))


def within_photo(rgb: np.ndarray, matrix: np.ndarray, size: int) -> np.ndarray:
    """Where a crop shows its photo, (size, size) float32 in [0, 1]: beyond the edge it shows the mirror image."""
    inside = crop(np.ones(rgb.shape[:2], np.float32), matrix, size, cv2.BORDER_CONSTANT)
    return np.clip(inside, 0, 1)
