"""Puts the face of one photo onto the face of another."""

from pathlib import Path

from faceswap_diffusion import FaceSwapper

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

swapper = FaceSwapper.from_pretrained()
result = swapper.swap(source=IMAGES / "p001_portrait.jpg", target=IMAGES / "p010_selfie.jpg")
result.save(OUTPUTS / "swap_faces.png")

print(f"swapped face {result.swapped} of {len(result.faces)}: {OUTPUTS / 'swap_faces.png'}")
for stage, seconds in result.seconds.items():
    print(f"  {stage}: {seconds:.2f} s")
