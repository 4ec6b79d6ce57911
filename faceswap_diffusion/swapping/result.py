"""What a swap gives."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from faceswap_diffusion.faces.alignment import uncrop
from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.swapping.second_look import DroppedFace


@dataclass(frozen=True, eq=False)
class InFront:
    """What was found in front of faces, before it is warped to their photo, which takes long for large ones.

    Args:
        seen (`list[tuple[np.ndarray, np.ndarray]]`): For each face (S, S) float32 in [0, 1], and (2, 3), photo pixels
            to crop pixels.
        size (`tuple[int, int]`): Width and height of the photo.
    """

    seen: list[tuple[np.ndarray, np.ndarray]]
    size: tuple[int, int]

    def on_photo(self) -> np.ndarray:
        """The same on the photo, (H, W) float32 in [0, 1]."""
        return np.clip(np.maximum.reduce([uncrop(mask, matrix, self.size) for mask, matrix in self.seen]), 0, 1)


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
        in_front ([`InFront`], *optional*): What was found in front of the faces; `None` if nobody looked.
    """

    rgb: np.ndarray
    mask: np.ndarray
    covered: list[float]
    source_shown: list[float] | None
    settings: dict[str, Any]
    seconds: dict[str, float]
    in_front: InFront | None = None


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
        in_front ([`InFront`], *optional*): What was found in front of the swapped faces, which `occlusion` shows.
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
    in_front: InFront | None = None
    parent: str | None = None

    @cached_property
    def occlusion(self) -> Image.Image | None:
        """Mode L, of the target's size, white where something is in front of a face; `None` if nobody looked."""
        if self.in_front is None:
            return None
        return Image.fromarray(np.round(self.in_front.on_photo() * 255).astype(np.uint8))

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
