"""From a photo to its faces: the description of a face that all other packages use, and the default analyzer."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, runtime_checkable

import cv2
import numpy as np

from faceswap_diffusion.faces.alignment import keypoints_from_landmarks
from faceswap_diffusion.faces.detection import Detection, FaceDetector
from faceswap_diffusion.faces.landmarks import FaceMesh, MeshResult
from faceswap_diffusion.faces.mesh_topology import dlib68

# Confidence of the mesh: almost all upright faces are above it, and almost all rotated ones below.
CERTAIN = 0.999
# The detector's orientation is mostly right. Another one is used only if it reduces 1 - confidence to this share.
LESS_DOUBT = 0.1
# Intersection over union of a detection and a mesh from which on they are one face.
SAME_FACE = 0.3
# A followed mesh that ends up further from where it was expected, as a share of its height, is fitted once more.
FAR_OFF = 0.08


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo. Left and right are the viewer's when the face is seen upright.

    Args:
        bbox (`np.ndarray` of shape `(4,)`): x0, y0, x1, y1 in pixels; may reach beyond the photo.
        score (`float`): The detector's confidence, 0 to 1.
        keypoints (`np.ndarray` of shape `(5, 2)`): Left eye, right eye, nose, left and right mouth corner in pixels.
        landmarks (`np.ndarray` of shape `(N, 2)`): The analyzer's own landmarks in pixels: 478 mesh points by default.
        landmarks68 (`np.ndarray` of shape `(68, 2)`): Landmarks in dlib's order in pixels.
        blendshapes (`np.ndarray` of shape `(52,)`, *optional*): Expression coefficients, 0 to 1, in the order of
            `BLENDSHAPE_NAMES`.
        head_pose (`np.ndarray` of shape `(3,)`, *optional*): Yaw (to the picture's right), pitch (up) and roll
            (clockwise) in degrees.
        embedding (`np.ndarray` of shape `(D,)`, *optional*): Identity embedding of unit length, if the analyzer has a
            recogniser.
        depth (`np.ndarray` of shape `(N,)`, *optional*): Depth of `landmarks` in pixels, smaller is nearer.
    """

    bbox: np.ndarray
    score: float
    keypoints: np.ndarray
    landmarks: np.ndarray
    landmarks68: np.ndarray
    blendshapes: np.ndarray | None = None
    head_pose: np.ndarray | None = None
    embedding: np.ndarray | None = None
    depth: np.ndarray | None = None


class FaceAnalyzer(Protocol):
    """Finds and describes the faces of a photo."""

    def analyze(self, image: np.ndarray) -> list[Face]:
        """Analyzes a photo.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo.

        Returns:
            `list[Face]`: Its faces from left to right.
        """
        ...


@runtime_checkable
class FollowingAnalyzer(FaceAnalyzer, Protocol):
    """An analyzer that follows a face from frame to frame for less than it takes to find it anew."""

    def follow(self, image: np.ndarray, face: Face, landmarks: np.ndarray) -> Face | None:
        """Finds a face of the frame before again.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The frame.
            face ([`Face`]): As it was.
            landmarks (`np.ndarray` of shape `(N, 2)`): Where its landmarks are expected, in pixels.

        Returns:
            [`Face`], *optional*: As it is; `None` if it is not there.
        """
        ...

    def find_others(self, image: np.ndarray, known: Sequence[Face]) -> list[Face]:
        """Finds and describes the faces that are not among those already known.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The frame.
            known (`Sequence[Face]`): Its known faces.

        Returns:
            `list[Face]`: From left to right.
        """
        ...


class MeshFaceAnalyzer:
    """The default analyzer: YuNet finds the faces and MediaPipe's mesh describes them. It has no recogniser.

    An instance serves one thread at a time.

    Args:
        score_threshold (`float`, defaults to 0.6): Minimal confidence of the detector, 0 to 1.
        mesh_threshold (`float`, defaults to 0.5): Minimal confidence of the mesh, 0 to 1. Detections below it are
            dropped.
    """

    def __init__(self, score_threshold: float = 0.6, mesh_threshold: float = 0.5):
        self.score_threshold = score_threshold
        self.mesh_threshold = mesh_threshold

    @cached_property
    def detector(self) -> FaceDetector:
        """`FaceDetector`: Loaded when it is first needed."""
        return FaceDetector(self.score_threshold)

    @cached_property
    def mesh(self) -> FaceMesh:
        """`FaceMesh`: Loaded when it is first needed."""
        return FaceMesh()

    def analyze(self, image: np.ndarray) -> list[Face]:
        """Analyzes a photo. One that shows no face is looked at again with stretched levels and without grain.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo, of any size.

        Returns:
            `list[Face]`: Its faces from left to right.

        Raises:
            ModelFileError: When a network's file is missing or altered.
        """
        return self.find_others(image, []) or self.find_others(_clearer(image), [])

    def find_others(self, image: np.ndarray, known: Sequence[Face]) -> list[Face]:
        """Finds and describes the faces that are not among those already known.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo.
            known (`Sequence[Face]`): Its known faces.

        Returns:
            `list[Face]`: From left to right.
        """
        detections = [
            detection
            for detection in self.detector.detect(image)
            if all(overlap(detection.bbox, mesh_box(face.landmarks)) < SAME_FACE for face in known)
        ]
        faces = [self._describe(image, detection) for detection in detections]
        return [face for face in faces if face is not None]

    def follow(self, image: np.ndarray, face: Face, landmarks: np.ndarray) -> Face | None:
        """Fits the mesh around where it is expected, without the detector.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The frame.
            face ([`Face`]): As it was in the frame before. Its score is kept.
            landmarks (`np.ndarray` of shape `(478, 2)`): Where its mesh is expected, in pixels.

        Returns:
            [`Face`], *optional*: As it is; `None` if the mesh is not confident of a face there.
        """
        mesh = self.mesh.follow(image, landmarks)
        if np.abs(mesh_box(mesh.landmarks) - mesh_box(landmarks)).max() > FAR_OFF * np.ptp(landmarks[:, 1]):
            mesh = self.mesh.follow(image, mesh.landmarks)
        if mesh.confidence < self.mesh_threshold:
            return None
        before, after = mesh_box(face.landmarks), mesh_box(mesh.landmarks)
        scale = np.tile((after[2:] - after[:2]) / (before[2:] - before[:2]), 2)
        bbox = (face.bbox - np.tile(before[:2], 2)) * scale + np.tile(after[:2], 2)
        return _described(mesh, bbox, face.score)

    def _describe(self, image: np.ndarray, detection: Detection) -> Face | None:
        mesh = self.mesh(image, detection.keypoints)
        if mesh.confidence < CERTAIN:
            # The detector may have got the orientation wrong. The mesh is most confident when the face is upright.
            attempts = [self.mesh(image, _turn(detection.keypoints, turns)) for turns in (1, 2, 3)]
            mesh = _most_confident(mesh, attempts)
        if mesh.confidence < self.mesh_threshold:
            return None
        return _described(mesh, detection.bbox, detection.score)


def mesh_box(landmarks: np.ndarray) -> np.ndarray:
    """Bounding box (4,), x0, y0, x1, y1, of landmarks (N, 2)."""
    return np.concatenate([landmarks.min(axis=0), landmarks.max(axis=0)])


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes x0, y0, x1, y1."""
    sides = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    shared = np.prod(sides)
    return float(shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared))


def _described(mesh: MeshResult, bbox: np.ndarray, score: float) -> Face:
    return Face(
        bbox=bbox,
        score=score,
        keypoints=keypoints_from_landmarks(mesh.landmarks),
        landmarks=mesh.landmarks,
        landmarks68=dlib68(mesh.landmarks),
        blendshapes=mesh.blendshapes,
        head_pose=mesh.head_pose,
        depth=mesh.depth,
    )


def _most_confident(detected: MeshResult, others: list[MeshResult]) -> MeshResult:
    """The mesh at the detector's orientation, unless another orientation is much more confident."""
    best = max(others, key=lambda other: other.confidence)
    return best if 1 - best.confidence < LESS_DOUBT * (1 - detected.confidence) else detected


def _clearer(image: np.ndarray) -> np.ndarray:
    """A photo (H, W, 3) uint8 RGB from black to white, however dark or faded it is, without single odd pixels."""
    black, white = np.percentile(image[::4, ::4], (1, 99))
    table = np.clip((np.arange(256) - black) * (255 / max(white - black, 1)), 0, 255).round().astype(np.uint8)
    return cv2.medianBlur(table[image], 3)


def _turn(points: np.ndarray, turns: int) -> np.ndarray:
    """Rotates points `(N, 2)` by quarter turns around the middle of their bounding box."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return (points - middle) @ np.linalg.matrix_power(quarter_turn, turns) + middle
