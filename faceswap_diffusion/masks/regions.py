"""Region masks of an aligned crop, from landmarks, parsing labels, or both. 1 = repaint."""

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import MOUTH_478, NOSE_478
from faceswap_diffusion.faces.surface import NOTHING, face_surface, rasterize
from faceswap_diffusion.faces.texture import to_lab
from faceswap_diffusion.masks.beards import beyond_jaw, find_beard, long_beard
from faceswap_diffusion.masks.labels import LABELS
from faceswap_diffusion.masks.outlines import (
    beard_mask,
    core_outline,
    dilate,
    erode,
    filled_hull,
    region_mask_from_landmarks,
    upper_half,
)

REGIONS: dict[str, frozenset[str]] = {
    "face": frozenset({"skin", "brows", "eyes", "nose", "lips", "mouth", "ears"}),
    "head": frozenset({"skin", "brows", "eyes", "nose", "lips", "mouth", "ears", "hair", "glasses", "earrings"}),
    "hair": frozenset({"hair"}),
    "skin": frozenset({"skin", "nose"}),
    "brows": frozenset({"brows"}),
    "eyes": frozenset({"eyes"}),
    "nose": frozenset({"nose"}),
    "mouth": frozenset({"lips", "mouth"}),
    "upper-face": frozenset({"skin", "brows", "eyes", "nose", "lips", "mouth", "ears"}),
    "lower-face": frozenset({"skin", "brows", "eyes", "nose", "lips", "mouth", "ears"}),
    "features": frozenset({"brows", "eyes", "nose", "lips", "mouth"}),
    "accessories": frozenset({"glasses", "earrings"}),
}
"""Named regions and their labels. A parser need not have all labels: ours has none for ears and accessories.

Face and head are REFace's sets for face swap and head swap; a head swap includes accessories. The halves of the face
have the labels of the whole: which pixels are theirs, only landmarks can tell.
"""

ROOM = {"brows": 0.035, "eyes": 0.085, "nose": 0.035, "mouth": 0.04}
"""Skin around a part that belongs to it, relative to the square root of the face's area.

It holds the lids, and the soft edge of the mask, which would otherwise leave little of a brow.
"""

NEARBY = 0.04
"""How far from its outline the parser may see a part, in the same unit: frames of glasses look like brows."""

BELOW_EYES = 0.42
"""Texture coordinate v of the lower edge of the lower lids, see [`faces.surface.FaceSurface`]."""

FAR_TURNED = 0.22
"""Offset of the nose, see `_turned`, of a head that is turned by about 16 degrees."""

IN_FRONT = 0.05
"""An unknown piece that covers more than this share of the hull of nose and mouth is in front of them."""

MINIMAL_COVERAGE = 0.35
"""If the parser labels less than this share of the landmark hull as face, it has failed and the hull is used."""


def region_names(region: str) -> tuple[str, ...]:
    """Reads a region as users write it: a name, or several that are joined by "+".

    Args:
        region (`str`): Such as "mouth" or "eyes+brows". Names of two words are written with a hyphen, an underscore
            or a blank: "lower-face", "lower_face", "lower face".

    Returns:
        `tuple[str, ...]`: Keys of `REGIONS`, in their order, each once.

    Raises:
        ValueError: If a name is unknown.
    """
    names = ["-".join(name.replace("_", " ").replace("-", " ").split()).lower() for name in region.split("+")]
    unknown = [name for name in names if name not in REGIONS]
    if unknown:
        raise ValueError(f"got region {unknown[0]!r}; choose one of {', '.join(REGIONS)}, or join several by '+'")
    return tuple(name for name in REGIONS if name in names)


def region_labels(region: str) -> frozenset[str]:
    """The labels of a region, see `region_names`."""
    return frozenset().union(*(REGIONS[name] for name in region_names(region)))


def region_mask(labels: np.ndarray, region: str, label_names: Sequence[str] = LABELS) -> np.ndarray:
    """The mask of a region, from parsing labels.

    Args:
        labels (`np.ndarray`): (H, W) uint8, indices into `label_names`.
        region (`str`): See `region_names`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.

    Returns:
        `np.ndarray`: (H, W) float32, 1 inside.

    Raises:
        ValueError: If the region is unknown.
    """
    return _labelled(labels, region_labels(region), label_names)


def worn_mask(labels: np.ndarray, region: str, label_names: Sequence[str] = LABELS) -> np.ndarray:
    """The parts of a region that can be in front of the face: hair, glasses and earrings, if the region has them.

    Args:
        labels (`np.ndarray`): (H, W) uint8, indices into `label_names`.
        region (`str`): See `region_names`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.

    Returns:
        `np.ndarray`: (H, W) float32, 1 inside.
    """
    return _labelled(labels, region_labels("hair+accessories") & region_labels(region), label_names)


def _labelled(labels: np.ndarray, wanted: Collection[str], label_names: Sequence[str]) -> np.ndarray:
    """Mask (H, W) float32 of the pixels whose label has one of the wanted names."""
    return np.isin(labels, [index for index, name in enumerate(label_names) if name in wanted]).astype(np.float32)


def face_mask(labels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face with the skin of the forehead, without things in front of it.

    The parser's face is limited to the neighbourhood of the landmark hull, which excludes other faces and bare
    shoulders. Hair around mouth and chin is a beard and belongs to the face. Holes are closed if they are specks, or
    if they are labelled background between eyes and mouth. Larger pieces of hair or of other things, such as a hand or
    a microphone, are not part of the mask. If the parser finds almost no face, the landmark hull is the mask.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `LABELS`.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.
    """
    size = labels.shape[0]
    hull = region_mask_from_landmarks(landmarks, size)
    parsed = region_mask(labels, "face") * dilate(hull, 0.06 * np.sqrt(hull.sum()))
    if (parsed * hull).sum() < MINIMAL_COVERAGE * hull.sum():
        return hull
    mistaken = filled_hull(core_outline(landmarks), size) * (labels == LABELS.index("background"))
    beard = beard_mask(landmarks, size) * region_mask(labels, "hair")
    mask = np.maximum.reduce([parsed, mistaken, beard])
    return _without_specks(mask, smallest=0.012 * hull.sum())


def lower_face(known: np.ndarray, labels: np.ndarray, landmarks: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """The mesh below the eyes, including beards and turned jaws, which parsers often mislabel.

    Things in front of nose or mouth are left out, unless they have the colour of the person's hair, or the head is
    turned so far that the parser is unreliable.

    Args:
        known (`np.ndarray`): (S, S) float32, 1 where the parser finds the face.
        labels (`np.ndarray`): (S, S) uint8, indices into `LABELS`.
        landmarks (`np.ndarray`): (478, 2), x, y in crop pixels.
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB, the crop.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.
    """
    size, surface = labels.shape[0], face_surface()
    below = surface.uv[surface.triangles][..., 1].min(axis=1) > BELOW_EYES
    covered = (rasterize(landmarks, surface.triangles[below], (size, size)) != NOTHING).astype(np.float32)
    if _turned(landmarks) > FAR_TURNED:
        return covered
    core = filled_hull(landmarks[[*NOSE_478[0], *MOUTH_478[0]]], size)
    pieces, _ = _components((covered > 0) & (known == 0))
    for piece in np.unique(pieces[(core > 0) & (known == 0) & (covered > 0)]):
        inside = pieces == piece
        if (inside * core).sum() > IN_FRONT * core.sum() and not _is_hair(inside, labels, pixels):
            covered[inside] = 0
    return covered


def _turned(landmarks: np.ndarray) -> float:
    """Distance of the nose from the middle of the mesh's outline, relative to its width: 0 for a frontal face."""
    nose, across = landmarks[4], landmarks[454] - landmarks[234]
    position = (nose - landmarks[234]) @ across / max(across @ across, 1e-6)
    return float(abs(position - 0.5))


def _is_hair(inside: np.ndarray, labels: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether the colour of a piece (S, S) bool is closer to brows and hair than to skin."""
    hair, skin = (np.isin(labels, [LABELS.index(name) for name in names]) for names in (("brows", "hair"), ("skin",)))
    if not hair.any() or not skin.any():
        return False
    lab = to_lab(pixels)
    colour, of_hair, of_skin = (np.median(lab[where], axis=0) for where in (inside, hair, skin))
    return bool(np.linalg.norm(colour - of_hair) < np.linalg.norm(colour - of_skin))


def head_mask(labels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Face and hair, including the strip of forehead between them.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `LABELS`.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.
    """
    face = face_mask(labels, landmarks)
    both = np.maximum(face, region_mask(labels, "hair"))
    gap = 0.12 * np.sqrt(face.sum())
    inset = int(np.ceil(gap))
    closed = erode(dilate(np.pad(both, inset), gap), gap)
    closed = closed[inset : inset + both.shape[0], inset : inset + both.shape[1]]
    occluded = region_mask_from_landmarks(landmarks, labels.shape[0]) * (1 - both)
    below_brows = filled_hull(core_outline(landmarks), labels.shape[0])
    mask = np.maximum(both, closed * (1 - occluded * below_brows))
    return _without_specks(mask, smallest=0.012 * face.sum())


def part_mask(
    labels: np.ndarray, landmarks: np.ndarray, part: str, label_names: Sequence[str] = LABELS, room: float = 0.0
) -> np.ndarray:
    """Brows, eyes, nose or mouth, as far as landmarks outline them or the parser sees them close by.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `label_names`.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.
        part (`str`): A key of `ROOM`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.
        room (`float`): Width of the skin around it that counts as well, in the unit of `ROOM`.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.
    """
    size = len(labels)
    unit = np.sqrt(region_mask_from_landmarks(landmarks, size).sum())
    outline = region_mask_from_landmarks(landmarks, size, part)
    seen = dilate(outline, NEARBY * unit) * region_mask(labels, part, label_names)
    return dilate(np.maximum(outline, seen), room * unit)


def repaint_mask(
    labels: np.ndarray,
    landmarks: np.ndarray,
    region: str = "face",
    label_names: Sequence[str] = LABELS,
    pixels: np.ndarray | None = None,
    bearded: bool = False,
) -> np.ndarray:
    """The mask of a region, from landmarks and labels.

    The parts of a face are within the mask of the face. The labels of other parsers are used as they are: with
    REFace's parser, a mask equals REFace's mask.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `label_names`.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.
        region (`str`): See `region_names`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.
        pixels (`np.ndarray`, *optional*): (S, S, 3) uint8 RGB, the crop. With it and a mesh, face and head
            include `lower_face`, so that a target's beard is repainted, however it was labelled. A long beard is left
            out of the face: see `masks.beards`.
        bearded (`bool`): Whether the source has a beard, which a target's beard below the jaw continues: it is left
            out of the face then.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.

    Raises:
        ValueError: If the region is unknown.
    """
    names = region_names(region)
    if tuple(label_names) != LABELS:
        return np.maximum.reduce([_as_labelled(labels, landmarks, name, label_names) for name in names])
    face = face_mask(labels, landmarks)
    if pixels is not None and len(landmarks) == 478:
        face = np.maximum(face, lower_face(face, labels, landmarks, pixels))
        beard = find_beard(face, region_mask(labels, "skin"), landmarks, pixels)
        if beard is not None:
            alone = names == ("face",)
            kept = long_beard(beard, landmarks) if alone else np.zeros_like(face)
            background = (labels == LABELS.index("background")).astype(np.float32)
            if kept.any():
                face = face * (1 - kept)
            elif not (alone and bearded):
                face = np.maximum(face, beyond_jaw(beard, face, background))
    return np.maximum.reduce([_of_head(labels, landmarks, name, face) for name in names])


def has_beard(labels: np.ndarray, landmarks: np.ndarray, pixels: np.ndarray) -> bool:
    """Whether a face with a mesh has a beard on chin and jaw, see `masks.beards.find_beard`.

    Args:
        labels (`np.ndarray`): (S, S) uint8, of our parser.
        landmarks (`np.ndarray`): (478, 2), x, y in crop pixels.
        pixels (`np.ndarray`): (S, S, 3) uint8 RGB, the crop.
    """
    return find_beard(face_mask(labels, landmarks), region_mask(labels, "skin"), landmarks, pixels) is not None


def _of_head(labels: np.ndarray, landmarks: np.ndarray, name: str, face: np.ndarray) -> np.ndarray:
    """A region of a head whose face is known."""
    if name == "head":
        return np.maximum(head_mask(labels, landmarks), face)
    if name == "hair":
        unit = np.sqrt(region_mask_from_landmarks(landmarks, len(labels)).sum())
        return region_mask(labels, name) * (1 - dilate(beard_mask(landmarks, len(labels)), NEARBY * unit))
    if name == "accessories":
        return region_mask(labels, name)
    if name == "skin":
        return _without_specks(face * _bare(labels, landmarks), smallest=0.004 * face.sum())
    parts = tuple(ROOM) if name == "features" else (name,) if name in ROOM else ()
    if parts:
        return face * np.maximum.reduce([part_mask(labels, landmarks, part, room=ROOM[part]) for part in parts])
    return face * _half(landmarks, len(labels), name)


def _as_labelled(labels: np.ndarray, landmarks: np.ndarray, name: str, label_names: Sequence[str]) -> np.ndarray:
    """A region of which labels are to be believed, whatever landmarks say."""
    return region_mask(labels, name, label_names) * _half(landmarks, len(labels), name)


def _half(landmarks: np.ndarray, size: int, name: str) -> np.ndarray:
    """Where the half of a face may be, (size, size) float32; everywhere for other regions."""
    if name not in ("upper-face", "lower-face"):
        return np.ones((size, size), np.float32)
    upper = upper_half(landmarks, size)
    return upper if name == "upper-face" else 1 - upper


def _bare(labels: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """Where a face shows neither brows, eyes and mouth nor a beard, (S, S) float32."""
    parts = [part_mask(labels, landmarks, part) for part in ("brows", "eyes", "mouth")]
    return 1 - np.maximum.reduce([*parts, region_mask(labels, "hair")])


def feather(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Softens a mask inwards: 0 at its border and at the crop's border, 1 about two `sigma` inside, at most `mask`.

    The ramp is inside because only pixels inside the mask were repainted; outside there is nothing to blend in.

    Args:
        mask (`np.ndarray`): (H, W) float32 in [0, 1].
        sigma (`float`): Standard deviation of the Gaussian in pixels; 0 returns a copy.

    Returns:
        `np.ndarray`: (H, W) float32 in [0, 1].
    """
    if sigma == 0:
        return mask.astype(np.float32)
    blurred = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), sigma, borderType=cv2.BORDER_CONSTANT)
    return np.minimum(mask, np.clip(2 * blurred - 1, 0, 1)).astype(np.float32)


def _components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels the connected pieces of a mask (0 = outside) and returns the labels and the areas."""
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    return pieces, stats[:, cv2.CC_STAT_AREA]


def _without_specks(mask: np.ndarray, smallest: float) -> np.ndarray:
    """Closes holes and removes islands of fewer than `smallest` pixels."""
    holes, areas = _components(mask == 0)
    filled = np.where((mask == 0) & (areas[holes] < smallest), 1, mask)
    islands, areas = _components(filled > 0)
    return (filled * (areas[islands] >= smallest)).astype(np.float32)
