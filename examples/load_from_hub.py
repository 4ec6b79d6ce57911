"""Loads a checkpoint from a folder or by its Hub id, in the same way.

    python examples/load_from_hub.py OWNER/NAME

Without a name, nothing is downloaded: the checkpoint in the package is saved to a folder, as `push_to_hub` would
upload it, and loaded from there.
"""

import sys
from pathlib import Path

import torch

from faceswap_diffusion import FaceSwapInpaintPipeline, FaceSwapper

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

checkpoint = sys.argv[1] if len(sys.argv) > 1 else None
if checkpoint is None:
    checkpoint = str(OUTPUTS / "checkpoint")
    pipe = FaceSwapInpaintPipeline.from_pretrained(dtype=torch.float16)
    pipe.save_pretrained(checkpoint)  # pipe.push_to_hub("OWNER/NAME") uploads the same files

swapper = FaceSwapper.from_pretrained(checkpoint)
result = swapper.swap(source=IMAGES / "p001_portrait.jpg", target=IMAGES / "p010_selfie.jpg")
result.save(OUTPUTS / "load_from_hub.png")

print(f"checkpoint {checkpoint}: {OUTPUTS / 'load_from_hub.png'}")
