"""Region masks of an aligned crop, from landmarks, parsing labels, or both. 1 = repaint."""

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import BROWS_478, EYES_478, FACE_OVAL_478, MOUTH_478, NOSE_478
from faceswap_diffusion.faces.surface import NOTHING, face_surface, rasterize
from faceswap_diffusion.masks.parsing import LABELS

REGIONS: dict[str, frozenset[str]] = {
    "face": frozenset({"skin", "brows", "eyes", "nose", "lips", "mouth", "ears"}),
    "head": frozenset({"skin", "brows", "eyes", "nose", "lips", "mouth", "ears", "hair", "glasses", "earrings"}),
    "hair": frozenset({"hair"}),
    "skin": frozenset({"skin", "nose"}),
    "brows": frozenset({"brows"}),
    "eyes": frozenset({"eyes"}),
    "nose": frozenset({"nose"}),
    "mouth": frozenset({"lips", "mouth"}),
    "features": frozenset({"brows", "eyes", "nose", "lips", "mouth"}),
    "accessories": frozenset({"glasses", "earrings"}),
}
"""Named regions and their labels. A parser need not have all labels: ours has none for ears and accessories.

Face and head are REFace's sets for face swap and head swap; a head swap includes accessories.
"""

POLYGONS = {
    478: {"brows": BROWS_478, "eyes": EYES_478, "nose": NOSE_478, "mouth": MOUTH_478},
    68: {
        "brows": (range(17, 22), range(22, 27)),
        "eyes": (range(36, 42), range(42, 48)),
        "nose": ((27, *range(31, 36)),),
        "mouth": (range(48, 60),),
    },
}
"""Landmark indices of the outlines of each part; a part is the union of their convex hulls."""

FOREHEAD_68 = 0.35
"""Height of the forehead relative to the distance from brows to chin: dlib's 68 points end at the brows."""

BELOW_EYES = 0.42
"""Texture coordinate v of the lower edge of the lower lids, see [`faces.surface.FaceSurface`]."""

FAR_TURNED = 0.22
"""Offset of the nose, see `_turned`, of a head that is turned by about 16 degrees."""

IN_FRONT = 0.05
"""An unknown piece that covers more than this share of the hull of nose and mouth is in front of them."""

MINIMAL_COVERAGE = 0.35
"""If the parser labels less than this share of the landmark hull as face, it has failed and the hull is used."""


def region_mask(labels: np.ndarray, region: str, label_names: Sequence[str] = LABELS) -> np.ndarray:
    """The mask of a region, from parsing labels.

    Args:
        labels (`np.ndarray`): (H, W) uint8, indices into `label_names`.
        region (`str`): A key of `REGIONS`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.

    Returns:
        `np.ndarray`: (H, W) float32, 1 inside.

    Raises:
        ValueError: If the region is unknown.
    """
    if region not in REGIONS:
        raise ValueError(f"got region {region!r}; choose one of {', '.join(REGIONS)}")
    return _labelled(labels, REGIONS[region], label_names)


def worn_mask(labels: np.ndarray, region: str, label_names: Sequence[str] = LABELS) -> np.ndarray:
    """The parts of a region that can be in front of the face: hair, glasses and earrings, if the region has them.

    Args:
        labels (`np.ndarray`): (H, W) uint8, indices into `label_names`.
        region (`str`): A key of `REGIONS`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.

    Returns:
        `np.ndarray`: (H, W) float32, 1 inside.
    """
    return _labelled(labels, (REGIONS["hair"] | REGIONS["accessories"]) & REGIONS[region], label_names)


def _labelled(labels: np.ndarray, wanted: Collection[str], label_names: Sequence[str]) -> np.ndarray:
    """Mask (H, W) float32 of the pixels whose label has one of the wanted names."""
    return np.isin(labels, [index for index, name in enumerate(label_names) if name in wanted]).astype(np.float32)


def region_mask_from_landmarks(landmarks: np.ndarray, size: int, region: str = "face") -> np.ndarray:
    """Draws a region from landmarks alone.

    Args:
        landmarks (`np.ndarray`): (478, 2) of the face mesh or (68, 2) in dlib's order, x, y in crop pixels.
        size (`int`): Side of the square crop in pixels.
        region (`str`): "face" (chin to forehead), "brows", "eyes", "nose" or "mouth".

    Returns:
        `np.ndarray`: (size, size) float32, 1 inside.

    Raises:
        ValueError: If the region cannot be drawn from landmarks (such as hair), or their number is unknown.
    """
    if len(landmarks) not in POLYGONS:
        raise ValueError(f"got {len(landmarks)} landmarks; the mesh's 478 or dlib's 68 are needed")
    if region == "face":
        return _filled_hull(face_outline(landmarks), size)
    polygons = POLYGONS[len(landmarks)]
    if region not in polygons:
        raise ValueError(f"landmarks cannot show region {region!r}; choose one of face, {', '.join(polygons)}")
    masks = [_filled_hull(landmarks[list(outline)], size) for outline in polygons[region]]
    return np.maximum.reduce(masks)


def around_eyes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Eyes, brows and the skin between them, separately for each side, as (size, size) float32 in {0, 1}."""
    parts = POLYGONS[len(landmarks)]
    sides = [
        _filled_hull(landmarks[[*brow, *eye]], size) for brow, eye in zip(parts["brows"], parts["eyes"], strict=True)
    ]
    mask = np.maximum(*sides)
    return _dilate(mask, 0.15 * np.sqrt(mask.sum() / 2))


def beard_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Where a beard may be: mouth, chin and the jaw below the mouth, as (size, size) float32 in {0, 1}."""
    return _filled_hull(_beard_outline(landmarks), size)


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
    parsed = region_mask(labels, "face") * _dilate(hull, 0.06 * np.sqrt(hull.sum()))
    if (parsed * hull).sum() < MINIMAL_COVERAGE * hull.sum():
        return hull
    mistaken = _filled_hull(_core_outline(landmarks), size) * (labels == LABELS.index("background"))
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
    core = _filled_hull(landmarks[[*NOSE_478[0], *MOUTH_478[0]]], size)
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
    lab = cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
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
    closed = _erode(_dilate(_padded(both, gap), gap), gap)
    inset = int(np.ceil(gap))
    closed = closed[inset : inset + both.shape[0], inset : inset + both.shape[1]]
    occluded = region_mask_from_landmarks(landmarks, labels.shape[0]) * (1 - both)
    below_brows = _filled_hull(_core_outline(landmarks), labels.shape[0])
    mask = np.maximum(both, closed * (1 - occluded * below_brows))
    return _without_specks(mask, smallest=0.012 * face.sum())


def repaint_mask(
    labels: np.ndarray,
    landmarks: np.ndarray,
    region: str = "face",
    label_names: Sequence[str] = LABELS,
    pixels: np.ndarray | None = None,
) -> np.ndarray:
    """The mask of a region: from landmarks and labels for face and head, from labels for other regions.

    The labels of other parsers are used as they are. With REFace's parser, a mask equals REFace's mask.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `label_names`.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.
        region (`str`): A key of `REGIONS`.
        label_names (`Sequence[str]`): Names of the labels; those of our parser if left out.
        pixels (`np.ndarray`, *optional*): (S, S, 3) uint8 RGB, the crop. With it and a mesh, face and head
            include `lower_face`, so that a target's beard is repainted, however it was labelled.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.

    Raises:
        ValueError: If the region is unknown.
    """
    combined = {"face": face_mask, "head": head_mask}
    if tuple(label_names) == LABELS and region in combined:
        mask = combined[region](labels, landmarks)
        if pixels is None or len(landmarks) != 478:
            return mask
        return np.maximum(mask, lower_face(mask, labels, landmarks, pixels))
    return region_mask(labels, region, label_names)


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


def _filled_hull(points: np.ndarray, size: int) -> np.ndarray:
    """The convex hull of points (N, 2), filled, as (size, size) float32."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(np.round(points).astype(np.int32)), 1)
    return canvas.astype(np.float32)


def face_outline(landmarks: np.ndarray) -> np.ndarray:
    """The outline (N, 2) of a face, from chin to forehead, of (478, 2) or (68, 2) landmarks."""
    if len(landmarks) == 478:
        return landmarks[list(FACE_OVAL_478)]
    jaw, brows = landmarks[:17], landmarks[17:27]
    return np.concatenate([jaw, brows, brows + FOREHEAD_68 * (brows.mean(0) - landmarks[8])])


def _core_outline(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth."""
    parts = POLYGONS[len(landmarks)]
    return landmarks[[index for part in ("eyes", "nose", "mouth") for outline in parts[part] for index in outline]]


def _beard_outline(landmarks: np.ndarray) -> np.ndarray:
    """Mouth, chin and the part of the jaw below the mouth."""
    mouth, *_ = POLYGONS[len(landmarks)]["mouth"]
    jaw = FACE_OVAL_478[13:24] if len(landmarks) == 478 else range(5, 12)
    return landmarks[[*mouth, *jaw]]


def _disc(radius: float) -> np.ndarray:
    side = 2 * int(np.ceil(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def _dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    return cv2.dilate(mask, _disc(radius))


def _erode(mask: np.ndarray, radius: float) -> np.ndarray:
    return cv2.erode(mask, _disc(radius))


def _padded(mask: np.ndarray, width: float) -> np.ndarray:
    return np.pad(mask, int(np.ceil(width)))


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
