"""Face mesh: 478 landmarks with depth, 52 expression coefficients and the head pose, with MediaPipe's networks.

`face_landmarker.task` is a zip archive that contains the networks as TFLite files, and the canonical face to which the
head pose is fitted. The networks run in LiteRT on the CPU.
"""

import zipfile
from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np
from ai_edge_litert.interpreter import Interpreter

from faceswap_diffusion.faces.alignment import crop, invert, transform_points
from faceswap_diffusion.faces.head_pose import HeadPoseFit, read_triangles
from faceswap_diffusion.faces.mesh_topology import (
    BLENDSHAPE_NAMES,
    BLENDSHAPE_POINTS,
    DLIB68_FROM_MESH,
    EYES_478,
    IRISES_478,
    dlib68,
)
from faceswap_diffusion.faces.native_output import silenced_stderr
from faceswap_diffusion.weights.registry import model_path

__all__ = ["BLENDSHAPE_NAMES", "DLIB68_FROM_MESH", "FaceMesh", "MeshResult", "dlib68", "mesh_triangles"]

GEOMETRY = "geometry_pipeline_metadata_landmarks.binarypb"
NET_SIZE = 256  # side of the landmark network's input in pixels
ROI_MARGIN = 1.5  # the network was trained on squares that are this much larger than the face's box
LOST = 0.5  # distance of an iris from the middle of its eye, in widths of an eye: those that look aside reach 0.3
# Outer eye corners, viewer's left and right. They give the orientation of the second region of interest.
_LEFT_EYE_CORNER, _RIGHT_EYE_CORNER = 33, 263


@dataclass(frozen=True, eq=False)
class MeshResult:
    """Mesh, expression and pose of one face.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): x, y in photo pixels.
        depth (`np.ndarray` of shape `(478,)`): Depth in photo pixels, smaller is nearer to the camera.
        blendshapes (`np.ndarray` of shape `(52,)`): Expression coefficients, 0 to 1, in the order of
            `BLENDSHAPE_NAMES`.
        head_pose (`np.ndarray` of shape `(3,)`): Yaw (to the picture's right), pitch (up), roll (clockwise), degrees.
        confidence (`float`): Confidence that there is a face, 0 to 1.
    """

    landmarks: np.ndarray
    depth: np.ndarray
    blendshapes: np.ndarray
    head_pose: np.ndarray
    confidence: float


class FaceMesh:
    """Fits the face mesh to a detected face.

    Raises:
        ModelFileError: If the networks' file is missing or altered.
    """

    def __init__(self):
        with zipfile.ZipFile(model_path("face_landmarker")) as task:
            self._landmark_net = _interpreter(task.read("face_landmarks_detector.tflite"))
            self._blendshape_net = _interpreter(task.read("face_blendshapes.tflite"))
            self._pose_fit = HeadPoseFit.from_metadata(task.read(GEOMETRY))

    def __call__(self, image: np.ndarray, keypoints: np.ndarray) -> MeshResult:
        """Runs the landmark network twice, the second time on the square around the first result.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo.
            keypoints (`np.ndarray` of shape `(5, 2)`): Eyes, nose, mouth corners in photo pixels, viewer's left first.

        Returns:
            `MeshResult`: Mesh, expression and pose.
        """
        matrix = _roi_from_keypoints(keypoints)
        points, _ = self._run(image, matrix)
        return self.follow(image, transform_points(points[:, :2], invert(matrix)))

    def follow(self, image: np.ndarray, landmarks: np.ndarray) -> MeshResult:
        """Runs the landmark network once, on the square around landmarks that are roughly known.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo.
            landmarks (`np.ndarray` of shape `(478, 2)`): x, y in photo pixels, such as those of the frame before.

        Returns:
            `MeshResult`: Mesh, expression and pose.
        """
        matrix = _roi_from_landmarks(landmarks)
        points, confidence = self._run(image, matrix)
        pixel = abs(np.linalg.det(matrix[:, :2])) ** -0.5  # photo pixels per network pixel
        landmarks = with_irises_in_eyes(transform_points(points[:, :2], invert(matrix)))
        depth = points[:, 2] * pixel
        pose = self._pose_fit(np.column_stack([landmarks, depth]))
        return MeshResult(landmarks, depth, self._blendshapes(points[:, :2]), pose, confidence)

    def _run(self, image: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, float]:
        """Returns the mesh `(478, 3)` in pixels of the network's input, and the confidence."""
        # Mirroring would show a second face next to a face that is cut by the photo's edge.
        pixels = crop(image, matrix, NET_SIZE, cv2.BORDER_REPLICATE)[None].astype(np.float32) / 255
        mesh, presence = _invoke(self._landmark_net, pixels)[:2]
        return mesh.reshape(478, 3).astype(np.float64), float(1 / (1 + np.exp(-presence.item())))

    def _blendshapes(self, points: np.ndarray) -> np.ndarray:
        """Computes the expression from upright mesh points `(478, 2)`."""
        return _invoke(self._blendshape_net, points[None, BLENDSHAPE_POINTS].astype(np.float32))[0]


def with_irises_in_eyes(landmarks: np.ndarray) -> np.ndarray:
    """Puts irises that are far outside their eyes into the middle of these: the network loses them behind sunglasses.

    Args:
        landmarks (`np.ndarray` of shape `(478, 2)`): A mesh in pixels.

    Returns:
        `np.ndarray` of shape `(478, 2)`: A copy, if one is moved.
    """
    eyes = [landmarks[list(outline)] for outline in EYES_478]
    width = max(np.linalg.norm(np.ptp(eye, axis=0)) for eye in eyes)
    for eye, (_, centre, _) in zip(eyes, IRISES_478, strict=True):
        shift = eye.mean(axis=0) - landmarks[centre]
        if np.linalg.norm(shift) > LOST * width:
            landmarks = landmarks.copy()
            landmarks[centre : centre + 5] += shift  # the mesh's points of an iris follow its centre
    return landmarks


@cache
def mesh_triangles() -> np.ndarray:
    """The triangles over the first 468 mesh points, (898, 3), counter-clockwise as seen from outside the head."""
    with zipfile.ZipFile(model_path("face_landmarker")) as task:
        return read_triangles(task.read(GEOMETRY))


def _interpreter(model: bytes) -> Interpreter:
    with silenced_stderr():
        interpreter = Interpreter(model_content=model, num_threads=1)
        interpreter.allocate_tensors()
    return interpreter


def _invoke(interpreter: Interpreter, value: np.ndarray) -> list[np.ndarray]:
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], value)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


def _roi_from_keypoints(keypoints: np.ndarray) -> np.ndarray:
    """Computes the network's first region of interest, as the map from photo to network pixels.

    On the canonical face, the square that the network expects is 4.1 times the distance from the eyes to the mouth,
    and 4.1 times the distance between the eyes. A turned or tilted head shortens one of them, so the longer is used.
    """
    eyes, mouth = keypoints[:2].mean(axis=0), keypoints[3:].mean(axis=0)
    eye_to_eye, eye_to_mouth = keypoints[1] - keypoints[0], mouth - eyes
    side = 4.1 * max(np.hypot(*eye_to_eye), np.hypot(*eye_to_mouth))
    direction = eye_to_eye + np.array([eye_to_mouth[1], -eye_to_mouth[0]])
    return _roi((eyes + mouth) / 2, direction, side)


def _roi_from_landmarks(landmarks: np.ndarray) -> np.ndarray:
    """Computes the region of interest from the mesh: its bounding box, aligned with the line of the eyes."""
    direction = landmarks[_RIGHT_EYE_CORNER] - landmarks[_LEFT_EYE_CORNER]
    along = direction / np.hypot(*direction)
    axes = np.array([along, [-along[1], along[0]]])
    upright = landmarks @ axes.T
    low, high = upright.min(axis=0), upright.max(axis=0)
    return _roi((low + high) / 2 @ axes, direction, ROI_MARGIN * (high - low).max())


def _roi(centre: np.ndarray, direction: np.ndarray, side: float) -> np.ndarray:
    """Maps the square around `centre`, upright along `direction`, to the network's input."""
    x, y = direction / np.hypot(*direction) * (NET_SIZE / side)
    linear = np.array([[x, y], [-y, x]])
    return np.column_stack([linear, (NET_SIZE - 1) / 2 - linear @ centre])
