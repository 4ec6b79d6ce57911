"""Reads and writes videos, by PyAV: frames with their times and colours, and all that goes with them."""

from importlib.util import find_spec

if find_spec("av") is None:
    raise ValueError("videos need PyAV, which is not installed: pip install 'faceswap-diffusion[video]'")
