"""Takes the identity from several photos of one person, which tells a person better than a single photo."""

from pathlib import Path

from faceswap_diffusion import FaceSwapper

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)

swapper = FaceSwapper.from_pretrained()
photos_of_one_person = [IMAGES / "p010_portrait.jpg", IMAGES / "p010_selfie.jpg"]
result = swapper.swap(source=photos_of_one_person, target=IMAGES / "p006_portrait.jpg")
result.save(OUTPUTS / "average_sources.png")

print(f"averaged {len(photos_of_one_person)} photos: {OUTPUTS / 'average_sources.png'}")
