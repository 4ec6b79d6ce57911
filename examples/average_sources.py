"""Takes the identity from several photos of one person, which describe the person better than one photo."""

from pathlib import Path

from faceswap_diffusion import FaceSwapper

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

swapper = FaceSwapper.from_pretrained()
result = swapper.swap(
    source=[IMAGES / "p010_portrait.jpg", IMAGES / "p010_selfie.jpg"], target=IMAGES / "p001_portrait.jpg"
)
result.save(OUTPUTS / "average_sources.png")

print(OUTPUTS / "average_sources.png")
