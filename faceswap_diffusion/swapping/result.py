"""What a swap gives."""

import time
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.swapping.second_look import DroppedFace


@dataclass(frozen=True, eq=False)
class SwappedFaces:
    """A picture whose faces were swapped, as pixels.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) float32 in [0, 1]; where it is 0, `rgb` is the picture's to the byte.
        covered (`list[float]`): See [`SwapResult`].
        source_shown (`list[float]`, *optional*): See [`SwapResult`].
        settings (`dict[str, Any]`): What the options came to with this checkpoint: steps, guidance, strength.
        seconds (`dict[str, float]`): Time taken by the stages reference, diffuse and paste.
        occlusion (`np.ndarray`, *optional*): (H, W) float32 in [0, 1], see [`SwapResult`].
    """

    rgb: np.ndarray
    mask: np.ndarray
    covered: list[float]
    source_shown: list[float] | None
    settings: dict[str, Any]
    seconds: dict[str, float]
    occlusion: np.ndarray | None = None


@dataclass(frozen=True)
class SwapResult:
    """What a swap gave.

    Args:
        image (`PIL.Image.Image`): The target with swapped faces, of its size, with its alpha and colour profile.
        faces (`list[Face]`): The faces found in the target, left to right, as they were.
        swapped (`list[int]`): Indices into `faces`.
        mask (`PIL.Image.Image`): Mode L, of the target's size; where it is 0 the photo is unchanged to the byte.
        seconds (`dict[str, float]`): Time taken by each stage: load, detect, check, encode, reference, diffuse, paste.
        provenance (`dict[str, Any]`): How the picture was made; `save` writes it into the file.
        source_shown (`list[float]`, *optional*): For each of `swapped` the share of the face that its source's photos
            show; `None` if the checkpoint is shown no references.
        covered (`list[float]`): For each of `swapped` the share of what was to be repainted that was left as it is,
            because something is in front of it.
        dropped (`list[DroppedFace]`): What the detector took for faces of the target, and why it does not count.
        occlusion (`PIL.Image.Image`, *optional*): Mode L, of the target's size, white where something was found in
            front of the swapped faces; `None` if nobody looked.
        parent (`str`, *optional*): The target's file, which Content Credentials name, if it was read from one.
    """

    image: Image.Image
    faces: list[Face]
    swapped: list[int]
    mask: Image.Image
    seconds: dict[str, float]
    provenance: dict[str, Any]
    source_shown: list[float] | None = None
    covered: list[float] = field(default_factory=list)
    dropped: list[DroppedFace] = field(default_factory=list)
    occlusion: Image.Image | None = None
    parent: str | None = None

    def save(self, path: str | PathLike | BinaryIO, file_format: str | None = None) -> None:
        """Saves `image`, marked in its metadata as made with AI.

        Args:
            path (`str | PathLike | BinaryIO`): Where to, a file or an open one; a path's suffix tells the format.
            file_format (`str`, *optional*): What is written into an open file, see [`provenance.save_image`].

        Raises:
            ValueError: If it cannot be saved there, see [`provenance.save_image`].
        """
        save_image(self.image, path, provenance=self.provenance, file_format=file_format, parent=self.parent)


class Stopwatch:
    """Seconds per stage: each lap ends one."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._since = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Books the time since the last lap on a stage."""
        now = time.perf_counter()
        self.seconds[stage] = now - self._since
        self._since = now
