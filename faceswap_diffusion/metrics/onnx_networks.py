"""Third-party networks in ONNX files, run with onnxruntime on the CPU."""

from pathlib import Path
from typing import Any

import numpy as np

from faceswap_diffusion.faces.alignment import crop
from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.weights.registry import ModelFileError, fetched_path

IMAGENET_MEAN, IMAGENET_STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
BOX_MARGIN = 1.4  # 6DRepNet expects squares that are this much larger than the face's box


def open_session(path: Path) -> Any:
    """Opens an ONNX file with a single thread.

    Raises:
        ModelFileError: If onnxruntime is not installed.
    """
    try:
        import onnxruntime  # of the extra `eval`
    except ImportError:
        raise ModelFileError("not available: it needs onnxruntime (pip install 'faceswap-diffusion[eval]')") from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class SixDRepNet:
    """6DRepNet360, a head pose network that is independent of the mesh (Hempel and others 2024)."""

    def __init__(self):
        self.session = open_session(fetched_path("6drepnet360"))

    def __call__(self, image: np.ndarray, face: Face) -> np.ndarray:
        """Rotation (3, 3) of a head in the network's axes, from a photo (H, W, 3) uint8 RGB."""
        middle, side = (face.bbox[:2] + face.bbox[2:]) / 2, np.ptp(face.bbox.reshape(2, 2), axis=0).max() * BOX_MARGIN
        scale = 224 / side
        matrix = np.column_stack([np.eye(2) * scale, 223 / 2 - middle * scale])
        pixels = (crop(image, matrix, 224) / 255 - IMAGENET_MEAN) / IMAGENET_STD
        return self.session.run(None, {"face": pixels.transpose(2, 0, 1)[None].astype(np.float32)})[0][0]
