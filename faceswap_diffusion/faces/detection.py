"""Face detection with YuNet, in all four orientations of a photo and for photos of any size.

YuNet: W. Wu, H. Peng, S. Yu, "YuNet: A Tiny Millisecond-level Face Detector", Machine Intelligence Research, 2023.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np

from faceswap_diffusion.faces.native_output import silenced_stderr
from faceswap_diffusion.weights.registry import model_path

# YuNet also finds faces that are upside down or on their side, with lower confidence. So the orientation of the most
# confident face is taken as the photo's orientation, and faces in other orientations must exceed this threshold.
ODD_ORIENTATION_THRESHOLD = 0.8
# All four orientations are searched at the coarse size; at the fine size only those in which a face was found.
COARSE_PIXELS = 512 * 400
FINE_PIXELS = 1600 * 1200
# Smaller faces are not found anyway, and OpenCV 4 returns nonsense for pictures that are a line of pixels.
MIN_SIDE = 10


@dataclass(frozen=True, eq=False)
class Detection:
    """One detected face.

    Args:
        bbox (`np.ndarray` of shape `(4,)`): x0, y0, x1, y1 in pixels; may reach beyond the photo.
        score (`float`): Confidence, 0 to 1.
        keypoints (`np.ndarray` of shape `(5, 2)`): x, y in pixels of left eye, right eye, nose, left and right mouth
            corner, where left is the viewer's left when the face is seen upright.
    """

    bbox: np.ndarray
    score: float
    keypoints: np.ndarray


class FaceDetector:
    """Finds faces with YuNet.

    Args:
        score_threshold (`float`, defaults to 0.6): Minimal confidence of a face, 0 to 1.

    Raises:
        ModelFileError: If the detector's file is missing or altered.
    """

    def __init__(self, score_threshold: float = 0.6):
        with silenced_stderr():
            self._net = cv2.FaceDetectorYN.create(str(model_path("yunet")), "", (320, 320), score_threshold, 0.3, 5000)

    def detect(self, image: np.ndarray) -> list[Detection]:
        """Finds the faces of a photo at 0, 90, 180 and 270 degrees.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo, of any size.

        Returns:
            `list[Detection]`: The faces from left to right (by the centre of `bbox`, then from top to bottom).
        """
        rows = self._search(image, COARSE_PIXELS, range(4))
        if image.shape[0] * image.shape[1] > COARSE_PIXELS:
            found = {int(row[15]) for row in rows}
            rows = _suppress(np.concatenate([rows, self._search(image, FINE_PIXELS, found or range(4))]))
        detections = [Detection(row[:4], float(row[14]), row[4:14].reshape(5, 2)) for row in rows]
        return sorted(detections, key=lambda d: (d.bbox[0] + d.bbox[2], d.bbox[1] + d.bbox[3]))

    def _search(self, image: np.ndarray, max_pixels: int, orientations: Iterable[int]) -> np.ndarray:
        """Detects in the photo shrunk to `max_pixels`, at the given numbers of quarter turns.

        Returns:
            `np.ndarray` of shape `(N, 16)`: bbox xyxy, 5 keypoints, score, quarter turns, in pixels of the photo.
        """
        height, width = image.shape[:2]
        scale = min(1.0, (max_pixels / (height * width)) ** 0.5)
        size = (round(width * scale), round(height * scale))
        if min(size) < MIN_SIDE:
            return np.zeros((0, 16))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA) if scale < 1 else image
        rows = np.concatenate([self._detect_turned(small, turns) for turns in orientations])
        if not len(rows):
            return rows
        pixels = np.divide((width, height), size)  # of the photo, in one of the shrunk photo
        rows[:, :14] = ((rows[:, :14].reshape(-1, 7, 2) + 0.5) * pixels - 0.5).reshape(-1, 14)
        photo_orientation = rows[np.argmax(rows[:, 14]), 15]
        return _suppress(rows[(rows[:, 15] == photo_orientation) | (rows[:, 14] >= ODD_ORIENTATION_THRESHOLD)])

    def _detect_turned(self, image: np.ndarray, turns: int) -> np.ndarray:
        """Detects in the picture turned by `turns` x 90 degrees counter-clockwise; returns rows as `_search` does."""
        turned = np.ascontiguousarray(np.rot90(image, turns)[:, :, ::-1])  # BGR for OpenCV
        self._net.setInputSize((turned.shape[1], turned.shape[0]))
        found = self._net.detect(turned)[1]
        if found is None:
            return np.zeros((0, 16))
        corners = np.stack([found[:, :2], found[:, :2] + found[:, 2:4]], axis=1)  # (N, 2, 2)
        points = np.concatenate([corners, found[:, 4:14].reshape(-1, 5, 2)], axis=1)  # (N, 7, 2)
        points = _turn_back(points, turns, image.shape[1], image.shape[0])
        bbox = np.concatenate([points[:, :2].min(axis=1), points[:, :2].max(axis=1)], axis=1)
        turns_column = np.full((len(found), 1), turns)
        return np.concatenate([bbox, points[:, 2:].reshape(-1, 10), found[:, 14:15], turns_column], axis=1)


def _turn_back(points: np.ndarray, turns: int, width: int, height: int) -> np.ndarray:
    """Maps points (..., 2) in `np.rot90(picture, turns)` back to the picture, whose size is given."""
    x, y = points[..., 0], points[..., 1]
    turned = [(x, y), (width - 1 - y, x), (width - 1 - x, height - 1 - y), (y, height - 1 - x)][turns]
    return np.stack(turned, axis=-1).astype(np.float64)


def _suppress(rows: np.ndarray, max_overlap: float = 0.4) -> np.ndarray:
    """Keeps the best of every group of overlapping boxes.

    Overlap is the intersection over the SMALLER box, because detections of the same face in other orientations and
    scales often cover only a part of it.
    """
    kept: list[np.ndarray] = []
    for row in rows[np.argsort(-rows[:, 14], kind="stable")]:
        if all(_overlap(row, other) <= max_overlap for other in kept):
            kept.append(row)
    return np.array(kept).reshape(-1, 16)


def _overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection of two xyxy boxes over the area of the smaller one."""
    sides = np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2])
    smaller = min(np.prod(a[2:4] - a[:2]), np.prod(b[2:4] - b[:2]))
    return float(np.prod(np.maximum(sides, 0)) / max(smaller, 1e-9))
