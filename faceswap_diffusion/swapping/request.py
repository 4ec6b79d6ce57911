"""What users ask of a swap, read and checked before the work."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.masks.inpaint import MaskLike, prepare_mask
from faceswap_diffusion.photos.loading import Photo, PhotoLike, load_photo
from faceswap_diffusion.swapping.identity_files import is_identity_file
from faceswap_diffusion.swapping.source_identity import SourceIdentity

SourceLike = PhotoLike | SourceIdentity | Sequence[PhotoLike]
TargetFace = str | int | np.integer | PhotoLike


class NothingToRepaintError(ValueError):
    """A face shows nothing of the region that is to be repainted."""


def check_choice(target_face: TargetFace, mapping: Mapping[int, int] | None) -> None:
    """Finds out early what cannot be meant.

    Args:
        target_face (`str | int` or photo): As for [`FaceSwapper.swap`].
        mapping (`Mapping[int, int]`, *optional*): Likewise.

    Raises:
        ValueError: If both say which face, or `target_face` is an unknown word.
    """
    if mapping is not None and not (isinstance(target_face, str) and target_face == "largest"):
        raise ValueError("target_face and mapping both say which face to swap: give one of them")
    if isinstance(target_face, str) and target_face not in ("largest", "all") and not os.path.exists(target_face):
        wanted = "'largest', 'all', an index counted from 0 at the left, or a photo of the person"
        raise ValueError(f"target_face is {target_face!r}: give {wanted}")


def load_sources(source: Any, several: bool) -> list[list[Photo] | SourceIdentity]:
    """Loads the sources: for each person a list of photos, or the identity that a file keeps.

    Args:
        source: As for [`FaceSwapper.swap`].
        several (`bool`): Whether a list holds several people, and not several photos of one.

    Raises:
        ValueError: If there is none, one cannot be read, or an identity is among the photos of a person.
    """
    listed = list(source) if isinstance(source, list | tuple) else [source]
    if not listed:
        raise ValueError("no source given: pass at least one photo of who to become")
    return [_load_person(person) for person in (listed if several else [listed])]


def _load_person(source: Any) -> list[Photo] | SourceIdentity:
    listed = list(source) if isinstance(source, list | tuple) else [source]
    known = [item for item in listed if isinstance(item, SourceIdentity) or is_identity_file(item)]
    if not known:
        return [load_photo(photo, "source") for photo in listed]
    if len(listed) > 1:
        raise ValueError(f"got {len(listed)} sources for one person, an identity among them: pass that, or photos")
    return known[0] if isinstance(known[0], SourceIdentity) else SourceIdentity.load(known[0])


def load_mask(mask_image: MaskLike | PhotoLike, photo: Photo) -> np.ndarray:
    """Reads a user's mask for a photo, (H, W) float32 in [0, 1]: the brightness of a picture times its alpha.

    Args:
        mask_image (`PIL.Image.Image | np.ndarray | torch.Tensor` or file): White = repaint.
        photo ([`Photo`]): Whose size it has to have.

    Raises:
        ValueError: If it cannot be read, or has another size.
    """
    if not isinstance(mask_image, Image.Image | np.ndarray | torch.Tensor):
        drawn = load_photo(mask_image, "mask")
        mask_image = drawn.with_pixels(drawn.rgb)
    return prepare_mask(mask_image, photo.size)[0].numpy()


def check_mapping(mapping: Mapping[int, int], num_faces: int, num_sources: int, where: str) -> None:
    """Checks a mapping from faces of a photo, called `where`, to sources.

    Raises:
        ValueError: If it is empty or names a source that is not given.
        NoFaceFoundError: If it names a face that is not there.
    """
    if not mapping:
        raise ValueError("mapping is empty: give at least one face of the target and its source")
    for face, source in mapping.items():
        if not 0 <= face < num_faces:
            raise NoFaceFoundError(f"mapping names face {face}, but {where} has {num_faces} face(s), counted from 0")
        if not 0 <= source < num_sources:
            raise ValueError(f"mapping names source {source}, but {num_sources} source(s) are given, counted from 0")
