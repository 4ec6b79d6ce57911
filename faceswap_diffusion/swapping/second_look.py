"""A second opinion on what the detector takes for a face: a hand or an ear has no eyes and mouth in their places."""

from dataclasses import dataclass

import numpy as np

from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.faces.selection import NoFaceFoundError, select_face
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.swapping.aligned_face import AlignedFace

PARTS = {
    "eyes": ("eyes",),
    "brows": ("brows",),
    "nose": ("nose",),
    "mouth": ("lips", "mouth"),
}
"""Parts of a face as landmarks outline them, and the parser's labels that are right there."""

LEAST_AGREEMENT = 0.25
"""Mean over `PARTS` of the share of a part that the parser confirms, from which on a detection is a face."""

LEAST_PARTS, PRESENT = 3, 0.3
"""How many of `PARTS` it takes otherwise, and how large they have to be, as a share of their outlines.

Faces have an agreement of 0.57 to 0.88, 0.47 with a hand before the mouth. One that is hidden by another face, whose
mesh then lies in wrong places, has 0.11 and all four parts. Ears and bits of faces on which the mesh was fitted, sure
to 0.97 and 1.00 that it was one, have up to 0.18 and two parts.
"""


@dataclass(frozen=True, eq=False)
class DroppedFace:
    """What the detector took for a face, and a second look did not.

    Args:
        face ([`Face`]): As it was found.
        reason (`str`): Why it does not count.
    """

    face: Face
    reason: str


@dataclass(frozen=True, eq=False)
class PhotoFaces:
    """The faces of a photo, with all that is known of them.

    Args:
        faces (`list[Face]`): From left to right.
        aligned (`list[AlignedFace]`): The same, cut out.
        dropped (`list[DroppedFace]`): What does not count.
    """

    faces: list[Face]
    aligned: list[AlignedFace]
    dropped: list[DroppedFace]


def agreement(face: AlignedFace) -> float:
    """How far the parser sees eyes, brows, nose and mouth where the landmarks are, in [0, 1]."""
    return float(np.mean([_labelled(face, names)[_outlined(face, part)].mean() for part, names in PARTS.items()]))


def parts_seen(face: AlignedFace) -> int:
    """How many of the parts the parser sees anywhere within the landmarks' outline."""
    inside = _outlined(face, "face")
    sizes = [(_labelled(face, names) & inside).sum() / _outlined(face, part).sum() for part, names in PARTS.items()]
    return sum(size >= PRESENT for size in sizes)


def doubt(face: AlignedFace) -> str | None:
    """Why a detection is no face; `None` if it is one, or the parser is not ours and has other labels."""
    if face.label_names != LABELS:
        return None
    agreed, seen = agreement(face), parts_seen(face)
    if agreed >= LEAST_AGREEMENT or seen >= LEAST_PARTS:
        return None
    return f"no eyes, nose and mouth in their places (agreement {agreed:.2f} of 1, {seen} of 4 parts)"


def check_any(found: PhotoFaces, where: str) -> None:
    """Says of a photo without a face what was taken for one, and why it does not count.

    Args:
        found ([`PhotoFaces`]): Of the photo.
        where (`str`): What to call it.

    Raises:
        NoFaceFoundError: If there was something like a face, and no face.
    """
    if found.faces or not found.dropped:
        return
    likeliest = max(found.dropped, key=lambda dropped: dropped.face.score)
    pose = likeliest.face.head_pose
    seen_from = "" if pose is None else f", seen from a yaw of {pose[0]:+.0f} degrees"
    raise NoFaceFoundError(
        f"no face found in {where}: what looks like one (score {likeliest.face.score:.2f}{seen_from}) has "
        f"{likeliest.reason}; use a photo in which a face is visible"
    )


def _outlined(face: AlignedFace, part: str) -> np.ndarray:
    """Where landmarks say that a part is, (S, S) bool; never nowhere."""
    mask = region_mask_from_landmarks(face.landmarks, len(face.labels), part) > 0
    return mask if mask.any() else np.ones_like(mask)


def _labelled(face: AlignedFace, names: tuple[str, ...]) -> np.ndarray:
    return np.isin(face.labels, [index for index, name in enumerate(face.label_names) if name in names])


def select_aligned(found: PhotoFaces, which: str | int | np.integer, where: str) -> AlignedFace:
    """Chooses one face as `faces.selection.select_face` does, and returns it cut out.

    Raises:
        NoFaceFoundError: If there is none such.
    """
    check_any(found, where)
    return found.aligned[found.faces.index(select_face(found.faces, which, where=where))]
