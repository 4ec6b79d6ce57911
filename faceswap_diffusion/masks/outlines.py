"""Parts of a face, drawn from its landmarks alone."""

import cv2
import numpy as np

from faceswap_diffusion.faces.mesh_topology import BROWS_478, EYES_478, FACE_OVAL_478, MOUTH_478, NOSE_478

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

NOSE_AND_EYES = {478: (168, 2, 33, 263), 68: (27, 33, 36, 45)}
"""Landmark indices of the root and the base of the nose, and of the outer corners of the eyes."""

FOREHEAD_68 = 0.35
"""Height of the forehead relative to the distance from brows to chin: dlib's 68 points end at the brows."""


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
        return filled_hull(face_outline(landmarks), size)
    polygons = POLYGONS[len(landmarks)]
    if region not in polygons:
        raise ValueError(f"landmarks cannot show region {region!r}; choose one of face, {', '.join(polygons)}")
    masks = [filled_hull(landmarks[list(outline)], size) for outline in polygons[region]]
    return np.maximum.reduce(masks)


def around_eyes(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Eyes, brows and the skin between them, separately for each side, as (size, size) float32 in {0, 1}."""
    parts = POLYGONS[len(landmarks)]
    sides = [
        filled_hull(landmarks[[*brow, *eye]], size) for brow, eye in zip(parts["brows"], parts["eyes"], strict=True)
    ]
    mask = np.maximum(*sides)
    return dilate(mask, 0.15 * np.sqrt(mask.sum() / 2))


def brow_masks(landmarks: np.ndarray, size: int) -> list[np.ndarray]:
    """Both brows, each as (size, size) float32 in {0, 1}."""
    return [filled_hull(landmarks[list(brow)], size) for brow in POLYGONS[len(landmarks)]["brows"]]


def eye_masks(landmarks: np.ndarray, size: int, margin: float = 0.0) -> list[np.ndarray]:
    """Both eyes, each as (size, size) float32 in {0, 1}, with a margin in pixels."""
    eyes = [filled_hull(landmarks[list(eye)], size) for eye in POLYGONS[len(landmarks)]["eyes"]]
    return [dilate(eye, margin) for eye in eyes]


def beard_mask(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Where a beard may be: mouth, chin and the jaw below the mouth, as (size, size) float32 in {0, 1}."""
    return filled_hull(_beard_outline(landmarks), size)


def upper_lip(landmarks: np.ndarray, size: int) -> np.ndarray:
    """Where a moustache may be: from the mouth up to the base of the nose, as (size, size) float32 in {0, 1}."""
    mouth, *_ = POLYGONS[len(landmarks)]["mouth"]
    return filled_hull(landmarks[[*mouth, NOSE_AND_EYES[len(landmarks)][1]]], size)


def below_chin(landmarks: np.ndarray, size: int, reach: float) -> np.ndarray:
    """What is under the chin of a mesh (478, 2), as wide as half of the mouth on both sides, (size, size) float32.

    It begins an eighth of `reach`, in pixels, below the chin, and ends at `reach`.
    """
    chin, root, *corners = landmarks[[152, 168, 61, 291]]
    down = (chin - root) / np.linalg.norm(chin - root)
    rows, columns = np.mgrid[:size, :size]
    from_chin = np.stack([columns, rows], axis=-1) - chin
    along, across = from_chin @ down, from_chin @ np.array([-down[1], down[0]])
    inside = (along > reach / 8) & (along < reach) & (np.abs(across) < np.linalg.norm(np.subtract(*corners)) / 2)
    return inside.astype(np.float32)


def upper_half(landmarks: np.ndarray, size: int) -> np.ndarray:
    """What is above the middle of the nose, on a line parallel to that of the eyes, as (size, size) float32."""
    root, base, *_ = landmarks[list(NOSE_AND_EYES[len(landmarks)])]
    return (_height_above((root + base) / 2, landmarks, size) > 0).astype(np.float32)


def above_brows(landmarks: np.ndarray, size: int) -> np.ndarray:
    """What is above the brows, on a line parallel to that of the eyes, as (size, size) float32."""
    brows = landmarks[[index for outline in POLYGONS[len(landmarks)]["brows"] for index in outline]]
    highest = brows[np.argmax(brows @ _upwards(landmarks))]
    return (_height_above(highest, landmarks, size) > 0).astype(np.float32)


def _height_above(point: np.ndarray, landmarks: np.ndarray, size: int) -> np.ndarray:
    """How far each pixel, (size, size), is above a line through a point that is parallel to that of the eyes."""
    x, y = _upwards(landmarks)
    rows, columns = np.ogrid[:size, :size]
    return (columns - point[0]) * x + (rows - point[1]) * y


def _upwards(landmarks: np.ndarray) -> np.ndarray:
    """Unit vector (2,), x and y, across the line of the eyes."""
    *_, left, right = landmarks[list(NOSE_AND_EYES[len(landmarks)])]
    across, down = (right - left) / np.linalg.norm(right - left)
    return np.array([down, -across])


def face_outline(landmarks: np.ndarray) -> np.ndarray:
    """The outline (N, 2) of a face, from chin to forehead, of (478, 2) or (68, 2) landmarks."""
    if len(landmarks) == 478:
        return landmarks[list(FACE_OVAL_478)]
    jaw, brows = landmarks[:17], landmarks[17:27]
    return np.concatenate([jaw, brows, brows + FOREHEAD_68 * (brows.mean(0) - landmarks[8])])


def core_outline(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth."""
    parts = POLYGONS[len(landmarks)]
    return landmarks[[index for part in ("eyes", "nose", "mouth") for outline in parts[part] for index in outline]]


def _beard_outline(landmarks: np.ndarray) -> np.ndarray:
    """Mouth, chin and the part of the jaw below the mouth."""
    mouth, *_ = POLYGONS[len(landmarks)]["mouth"]
    jaw = FACE_OVAL_478[13:24] if len(landmarks) == 478 else range(5, 12)
    return landmarks[[*mouth, *jaw]]


def filled_hull(points: np.ndarray, size: int) -> np.ndarray:
    """The convex hull of points (N, 2), filled, as (size, size) float32."""
    canvas = np.zeros((size, size), np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(np.round(points).astype(np.int32)), 1)
    return canvas.astype(np.float32)


def _disc(radius: float) -> np.ndarray:
    side = 2 * int(np.ceil(radius)) + 1
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side))


def dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    """Grows a mask (H, W), float32 or uint8, by a radius in pixels."""
    return cv2.dilate(mask, _disc(radius))


def erode(mask: np.ndarray, radius: float) -> np.ndarray:
    """Shrinks a mask (H, W) float32 by a radius in pixels."""
    return cv2.erode(mask, _disc(radius))
