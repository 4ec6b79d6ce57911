"""Recognisers for measuring identity: SFace, which also conditions the small model, and others, which are held out."""

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import torch

from faceswap_diffusion.conditioning.identity import IRSE50, SFace
from faceswap_diffusion.faces.alignment import arcface_matrix, crop, ffhq_matrix
from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.metrics.onnx_networks import open_session
from faceswap_diffusion.weights.registry import ModelFileError, fetched_path

# Maps a photo (H, W, 3) uint8 RGB and one of its faces to an embedding (D,).
Recognizer = Callable[[np.ndarray, Face], np.ndarray]

CHIP_SIZE, CHIP_PADDING = 150, 0.25  # of dlib's network
# Mesh points of dlib's five: outer and inner corner of the eye at the viewer's right, of the other eye, nose base.
DLIB5_FROM_MESH = [263, 362, 33, 133, 2]


class SFaceRecognizer:
    """SFace, from the package."""

    def __init__(self):
        self.network = SFace().eval()

    @torch.no_grad()
    def __call__(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Embeds a face to (128,)."""
        return self.network(torch.from_numpy(to_batch(align_to_template(image, face))))[0].numpy()


class ArcFaceRecognizer:
    """InsightFace's w600k_mbf, run with onnxruntime."""

    def __init__(self):
        self.session = open_session(fetched_path("w600k_mbf"))

    def __call__(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Embeds a face to (512,)."""
        pixels = to_batch(align_to_template(image, face))
        return np.asarray(self.session.run(None, {self.session.get_inputs()[0].name: pixels})[0])[0]


class DlibRecognizer:
    """dlib's ResNet, on a chip that dlib cuts out by five points of the mesh."""

    def __init__(self):
        path = fetched_path("dlib_resnet")
        try:
            self.dlib: Any = import_module("dlib")  # in no extra: most people build it from source
        except ImportError:
            raise ModelFileError("not available: it needs dlib (pip install dlib-bin)") from None
        self.network = self.dlib.face_recognition_model_v1(str(path))

    def __call__(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Embeds a face to (128,)."""
        box = self.dlib.rectangle(*(round(float(edge)) for edge in face.bbox))
        points = [self.dlib.point(round(x), round(y)) for x, y in face.landmarks[DLIB5_FROM_MESH].tolist()]
        shape = self.dlib.full_object_detection(box, points)
        chip = self.dlib.get_face_chip(np.ascontiguousarray(image), shape, CHIP_SIZE, CHIP_PADDING)
        return np.array(self.network.compute_face_descriptor(chip))


class IRSE50Recognizer:
    """ArcFace IR-SE50, which REFace is conditioned by, trained with and scored by, through REFace's crop."""

    def __init__(self):
        self.network = IRSE50()
        self.network.load_state_dict(torch.load(fetched_path("ir_se50"), map_location="cpu", weights_only=True))
        self.network.eval()

    @torch.no_grad()
    def __call__(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Embeds a face to (512,)."""
        aligned = crop(image, ffhq_matrix(face.landmarks68, 256), 256)
        return self.network(self.network.prepare(torch.from_numpy(to_batch(aligned))))[0].numpy()


RECOGNIZERS: dict[str, Callable[[], Recognizer]] = {
    "sface": SFaceRecognizer,
    "w600k": ArcFaceRecognizer,
    "dlib": DlibRecognizer,
    "ir_se50": IRSE50Recognizer,
}


def to_batch(pixels: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 to (1, 3, S, S) float32 in [-1, 1]."""
    return pixels.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1


def align_to_template(image: np.ndarray, face: Face) -> np.ndarray:
    """Crops a face of a photo (H, W, 3) to ArcFace's template, (112, 112, 3)."""
    return crop(image, arcface_matrix(face.keypoints), 112)
