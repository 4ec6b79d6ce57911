"""The components of our own; they need `pip install faceswap-diffusion`."""

from faceswap_diffusion import FaceConditioner, SafetyChecker  # noqa: F401
