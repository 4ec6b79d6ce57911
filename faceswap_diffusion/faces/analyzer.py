"""From a photo to its faces: what the rest of the project wants to know of a face, and the default way to learn it."""

from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np

from faceswap_diffusion.faces.alignment import keypoints_from_landmarks
from faceswap_diffusion.faces.detection import Detection, FaceDetector
from faceswap_diffusion.faces.landmarks import FaceMesh, MeshResult
from faceswap_diffusion.faces.mesh_topology import dlib68

# Almost every upright face is above, almost every turned one below.
CERTAIN = 0.999
# The detector is mostly right: how much less doubt of the mesh there has to be for another turn than its own.
LESS_DOUBT = 0.1


@dataclass(frozen=True, eq=False)
class Face:
    """One face of a photo. Left and right are the viewer's when the face is seen upright.

    Args:
        bbox (`np.ndarray` of shape `(4,)`): x0, y0, x1, y1 in pixels; may reach beyond the photo.
        score (`float`): The detector's confidence, 0 to 1.
        keypoints (`np.ndarray` of shape `(5, 2)`): Left eye, right eye, nose, left and right mouth corner in pixels.
        landmarks (`np.ndarray` of shape `(N, 2)`): The analyzer's own landmarks in pixels: 478 mesh points by default.
        landmarks68 (`np.ndarray` of shape `(68, 2)`): Landmarks in dlib's order in pixels.
        blendshapes (`np.ndarray` of shape `(52,)`, *optional*): Expression, 0 to 1, as `BLENDSHAPE_NAMES` says.
        head_pose (`np.ndarray` of shape `(3,)`, *optional*): Yaw (to the picture's right), pitch (up) and roll
            (clockwise) in degrees.
        embedding (`np.ndarray` of shape `(D,)`, *optional*): Identity, of length 1, if the analyzer has a recogniser.
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


class MeshFaceAnalyzer:
    """The default analyzer: YuNet finds the faces, MediaPipe's mesh describes them. It has no recogniser.

    An instance serves one thread at a time.

    Args:
        score_threshold (`float`, defaults to 0.6): Least confidence of the detector, 0 to 1.
        mesh_threshold (`float`, defaults to 0.5): Least confidence of the mesh, 0 to 1. What the detector takes for a
            face and the mesh does not is dropped.
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
        """Analyzes a photo.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo, of any size.

        Returns:
            `list[Face]`: Its faces from left to right.

        Raises:
            ModelFileError: When a network's file is missing or altered.
        """
        faces = [self._describe(image, detection) for detection in self.detector.detect(image)]
        return [face for face in faces if face is not None]

    def _describe(self, image: np.ndarray, detection: Detection) -> Face | None:
        mesh = self.mesh(image, detection.keypoints)
        if mesh.confidence < CERTAIN:
            # The detector may have taken the face for a turned one. The mesh is surest of a face when it is upright.
            attempts = [self.mesh(image, _turn(detection.keypoints, turns)) for turns in (1, 2, 3)]
            mesh = _surest(mesh, attempts)
        if mesh.confidence < self.mesh_threshold:
            return None
        return Face(
            bbox=detection.bbox,
            score=detection.score,
            keypoints=keypoints_from_landmarks(mesh.landmarks),
            landmarks=mesh.landmarks,
            landmarks68=dlib68(mesh.landmarks),
            blendshapes=mesh.blendshapes,
            head_pose=mesh.head_pose,
            depth=mesh.depth,
        )


def _surest(detected: MeshResult, others: list[MeshResult]) -> MeshResult:
    """The mesh at the detector's orientation, unless that at another one is much surer."""
    surest = max(others, key=lambda other: other.confidence)
    return surest if 1 - surest.confidence < LESS_DOUBT * (1 - detected.confidence) else detected


def _turn(points: np.ndarray, turns: int) -> np.ndarray:
    """Turns points `(N, 2)` by quarter turns around the middle of their box."""
    middle = (points.min(axis=0) + points.max(axis=0)) / 2
    quarter_turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    return (points - middle) @ np.linalg.matrix_power(quarter_turn, turns) + middle
