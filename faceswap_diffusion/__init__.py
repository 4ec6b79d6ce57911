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
    from .masks.parsing import FaceParser as FaceParser
    from .model_files import ModelFileError as ModelFileError
    from .pipeline_faceswap_inpaint import FaceSwapInpaintPipeline as FaceSwapInpaintPipeline
    from .pipeline_output import FaceSwapPipelineOutput as FaceSwapPipelineOutput
    from .swapper import FaceSwapper as FaceSwapper
    from .swapper import SwapResult as SwapResult

__version__ = "0.1.0"

_HOMES = {
    "Face": "faceswap_diffusion.faces.analyzer",
    "FaceAnalyzer": "faceswap_diffusion.faces.analyzer",
    "FaceConditioner": "faceswap_diffusion.conditioning.conditioner",
    "FaceParser": "faceswap_diffusion.masks.parsing",
    "FaceSwapInpaintPipeline": "faceswap_diffusion.pipeline_faceswap_inpaint",
    "FaceSwapPipelineOutput": "faceswap_diffusion.pipeline_output",
    "FaceSwapper": "faceswap_diffusion.swapper",
    "InsightFaceAnalyzer": "faceswap_diffusion.faces.insightface_analyzer",
    "MeshFaceAnalyzer": "faceswap_diffusion.faces.analyzer",
    "ModelFileError": "faceswap_diffusion.model_files",
    # diffusers looks up the base classes of a component on the module that the component names as its own.
    "ModelMixin": "diffusers.models.modeling_utils",
    "NoFaceFoundError": "faceswap_diffusion.faces.selection",
    "SwapResult": "faceswap_diffusion.swapper",
}

__all__ = [*_HOMES, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
