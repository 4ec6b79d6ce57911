"""What of a face is repainted: regions by name, and masks that users paint."""

from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import crop
from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.options import SwapOptions


@dataclass(frozen=True, eq=False)
class PaintedMasks:
    """Masks that a user painted for a photo; `None` where there is none.

    Args:
        instead (`np.ndarray`, *optional*): (H, W) float32 in [0, 1], 1 = repaint, in place of a region.
        added (`np.ndarray`, *optional*): (H, W) float32 in [0, 1], 1 = repaint as well.
        kept (`np.ndarray`, *optional*): (H, W) float32 in [0, 1], 1 = leave as it is, whatever the others say.
    """

    instead: np.ndarray | None = None
    added: np.ndarray | None = None
    kept: np.ndarray | None = None

    def wanted(self, face: AlignedFace, options: SwapOptions, bearded: bool = False) -> np.ndarray:
        """What to repaint of a face, as far as nothing is in front of it, (S, S) float32 in [0, 1].

        Args:
            face ([`AlignedFace`]): Of the target.
            options ([`SwapOptions`]): Which region.
            bearded (`bool`): Whether the source has a beard, see `masks.regions.repaint_mask`.
        """
        mask = _named(face, options.region, bearded) if self.instead is None else _seen(self.instead, face)
        if self.added is not None:
            mask = np.maximum(mask, _seen(self.added, face))
        if options.keep is not None:
            mask = mask * (1 - _named(face, options.keep))
        return mask if self.kept is None else mask * (1 - _seen(self.kept, face))

    def free(self, face: AlignedFace, options: SwapOptions) -> np.ndarray:
        """Where nothing keeps a face from being repainted, (S, S) float32 in [0, 1]: what users painted is obeyed."""
        if self.instead is not None or options.occlusion == "off":
            return face.apart()
        free = face.free(options.region)
        return free if self.added is None else np.maximum(free, _seen(self.added, face)) * face.apart()

    @property
    def bounds_photo(self) -> bool:
        """Whether there are pixels of the photo that may not change, see `allowed`."""
        return self.instead is not None or self.kept is not None

    def allowed(self, shape: tuple[int, ...]) -> np.ndarray:
        """Where a photo of a shape may change, (H, W) bool: masks are meant to its pixels, not a crop's."""
        allowed = np.ones(shape[:2], bool)
        if self.instead is not None:
            allowed = self.instead > 0
            allowed = allowed if self.added is None else allowed | (self.added > 0)
        return allowed if self.kept is None else allowed & (self.kept < 1)

    def describe(self, options: SwapOptions) -> dict[str, str | None]:
        """What was repainted and what was kept, for the metadata of a picture."""
        repainted = [options.region if self.instead is None else "mask", *(["mask"] if self.added is not None else [])]
        kept = [*([options.keep] if options.keep else []), *(["mask"] if self.kept is not None else [])]
        return {"region": "+".join(repainted), "keep": "+".join(kept) or None}


def _named(face: AlignedFace, region: str, bearded: bool = False) -> np.ndarray:
    return repaint_mask(face.labels, face.landmarks, region, face.label_names, face.pixels, bearded)


def _seen(mask: np.ndarray, face: AlignedFace) -> np.ndarray:
    """A photo's mask, seen in the crop of a face."""
    return np.clip(crop(mask, face.matrix, len(face.labels), cv2.BORDER_CONSTANT), 0, 1)
