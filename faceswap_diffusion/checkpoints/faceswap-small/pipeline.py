"""The pipeline, for `custom_pipeline`; it needs `pip install faceswap-diffusion`."""

from faceswap_diffusion import FaceSwapInpaintPipeline  # noqa: F401
