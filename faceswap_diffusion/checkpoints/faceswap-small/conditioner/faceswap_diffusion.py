"""The conditioner; it needs `pip install faceswap-diffusion`."""

from faceswap_diffusion import FaceConditioner  # noqa: F401
