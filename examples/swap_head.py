"""Repaints the head (face and hair), and saves the mask of repainted pixels."""

from pathlib import Path

from faceswap_diffusion import FaceSwapper

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

swapper = FaceSwapper.from_pretrained()
result = swapper.swap(source=IMAGES / "p001_portrait.jpg", target=IMAGES / "p010_portrait.jpg", region="head")
result.save(OUTPUTS / "swap_head.png")
result.mask.save(OUTPUTS / "swap_head_mask.png")  # white = repainted, black = unchanged

print(f"{OUTPUTS / 'swap_head.png'} and its mask {OUTPUTS / 'swap_head_mask.png'}")
