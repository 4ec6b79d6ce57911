"""Face swapping as masked inpainting with diffusion, as a Diffusers pipeline.

Public names are imported on first use: `import faceswap_diffusion` and `faceswap-diffusion --help` wait for no torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from diffusers.models.modeling_utils import ModelMixin as ModelMixin

    from .conditioning.conditioner import FaceConditioner as FaceConditioner
    from .faces.analyzer import Face as Face
    from .faces.analyzer import FaceAnalyzer as FaceAnalyzer
    from .faces.analyzer import MeshFaceAnalyzer as MeshFaceAnalyzer
    from .faces.insightface_analyzer import InsightFaceAnalyzer as InsightFaceAnalyzer
    from .faces.selection import NoFaceFoundError as NoFaceFoundError
    from .faces.selection import select_face as select_face
    from .masks.parsing import FaceParser as FaceParser
    from .masks.regions import feather as feather
    from .masks.regions import repaint_mask as repaint_mask
    from .photos.loading import load_photo as load_photo
    from .pipelines.faceswap_inpaint import FaceSwapInpaintPipeline as FaceSwapInpaintPipeline
    from .pipelines.output import FaceSwapPipelineOutput as FaceSwapPipelineOutput
    from .provenance.save import read_provenance as read_provenance
    from .provenance.save import save_image as save_image
    from .provenance.verify import verify as verify
    from .safety.checker import SafetyChecker as SafetyChecker
    from .safety.refusal import RefusedError as RefusedError
    from .swapping.compositing import paste_back as paste_back
    from .swapping.options import SwapOptions as SwapOptions
    from .swapping.result import SwapResult as SwapResult
    from .swapping.source_identity import SourceIdentity as SourceIdentity
    from .swapping.swapper import FaceSwapper as FaceSwapper
    from .swapping.video import VideoResult as VideoResult
    from .swapping.video import VideoSwapper as VideoSwapper
    from .swapping.video import swap_video as swap_video
    from .weights.registry import ModelFileError as ModelFileError

__version__ = "0.1.0"

_HOMES = {
    "Face": "faceswap_diffusion.faces.analyzer",
    "FaceAnalyzer": "faceswap_diffusion.faces.analyzer",
    "FaceConditioner": "faceswap_diffusion.conditioning.conditioner",
    "FaceParser": "faceswap_diffusion.masks.parsing",
    "FaceSwapInpaintPipeline": "faceswap_diffusion.pipelines.faceswap_inpaint",
    "FaceSwapPipelineOutput": "faceswap_diffusion.pipelines.output",
    "FaceSwapper": "faceswap_diffusion.swapping.swapper",
    "InsightFaceAnalyzer": "faceswap_diffusion.faces.insightface_analyzer",
    "MeshFaceAnalyzer": "faceswap_diffusion.faces.analyzer",
    "ModelFileError": "faceswap_diffusion.weights.registry",
    # diffusers looks up the base classes of a component on the module that the component names as its own.
    "ModelMixin": "diffusers.models.modeling_utils",
    "NoFaceFoundError": "faceswap_diffusion.faces.selection",
    "RefusedError": "faceswap_diffusion.safety.refusal",
    "SafetyChecker": "faceswap_diffusion.safety.checker",
    "SourceIdentity": "faceswap_diffusion.swapping.source_identity",
    "SwapOptions": "faceswap_diffusion.swapping.options",
    "SwapResult": "faceswap_diffusion.swapping.result",
    "VideoResult": "faceswap_diffusion.swapping.video",
    "VideoSwapper": "faceswap_diffusion.swapping.video",
    "feather": "faceswap_diffusion.masks.regions",
    "load_photo": "faceswap_diffusion.photos.loading",
    "paste_back": "faceswap_diffusion.swapping.compositing",
    "read_provenance": "faceswap_diffusion.provenance.save",
    "repaint_mask": "faceswap_diffusion.masks.regions",
    "save_image": "faceswap_diffusion.provenance.save",
    "select_face": "faceswap_diffusion.faces.selection",
    "swap_video": "faceswap_diffusion.swapping.video",
    "verify": "faceswap_diffusion.provenance.verify",
}

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
