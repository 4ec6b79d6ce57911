"""Chooses a face of a photo, deterministically: by size, by position, or by likeness."""

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np


class NoFaceFoundError(ValueError):
    """The photo has no face, or not the face that was asked for."""


class HasBox(Protocol):
    """Anything with a bounding box: `Face` or `Detection`."""

    @property
    def bbox(self) -> np.ndarray:
        """`np.ndarray` of shape `(4,)`: x0, y0, x1, y1 in pixels."""
        ...


FaceT = TypeVar("FaceT", bound=HasBox)


def select_face(faces: Sequence[FaceT], which: str | int | np.integer = "largest", *, where: str = "photo") -> FaceT:
    """Chooses one face.

    Args:
        faces (`Sequence[Face]`): The faces of a photo from left to right, as an analyzer returns them.
        which (`str` or `int`, defaults to `"largest"`): `"largest"`, by the area of `bbox` (the leftmost of equals),
            or an index, counted from 0 at the left.
        where (`str`, defaults to `"photo"`): What to call the photo in an error, such as its file name.

    Returns:
        `Face`: The chosen face.

    Raises:
        NoFaceFoundError: If there is no face, or none with that index.
        ValueError: If `which` is neither `"largest"` nor an index.
    """
    if which != "largest" and (not isinstance(which, int | np.integer) or isinstance(which, bool)):
        raise ValueError(f"got face {which!r}: give 'largest' or an index counted from 0 at the left")
    if not faces:
        raise NoFaceFoundError(f"no face found in {where}: use a photo in which a face is visible")
    if isinstance(which, str):
        return max(faces, key=lambda face: _area(face.bbox))
    if not 0 <= which < len(faces):
        valid = "the only one is 0" if len(faces) == 1 else f"they are numbered 0 to {len(faces) - 1} from the left"
        raise NoFaceFoundError(f"face {which} was asked for, but {where} has {len(faces)} face(s): {valid}")
    return faces[int(which)]


def nearest_face(embeddings: np.ndarray, reference: np.ndarray, threshold: float) -> int:
    """Finds the face that is most similar to a reference face.

    Args:
        embeddings (`np.ndarray` of shape `(N, D)`): Identity embeddings of the photo's faces.
        reference (`np.ndarray` of shape `(D,)`): Identity embedding of the reference face.
        threshold (`float`): Minimal cosine similarity, -1 to 1, of two faces of one person.

    Returns:
        `int`: Index of the nearest face.

    Raises:
        NoFaceFoundError: If there is no face, or none reaches `threshold`.
    """
    if not len(embeddings):
        raise NoFaceFoundError("no face to compare with the reference face: use a photo in which a face is visible")
    norms = np.linalg.norm(embeddings, axis=1) * np.linalg.norm(reference)
    cosines = embeddings @ reference / norms
    nearest = int(np.argmax(cosines))
    if cosines[nearest] < threshold:
        raise NoFaceFoundError(
            f"no face matches the reference face: the most similar, face {nearest}, has a similarity of"
            f" {cosines[nearest]:.2f}, and at least {threshold:.2f} is needed; give the index of the face instead"
        )
    return nearest


def _area(bbox: np.ndarray) -> float:
    return float((bbox[2] - bbox[0]) * (bbox[3] - bbox[1]))
