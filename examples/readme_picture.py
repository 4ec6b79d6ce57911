"""Shows source, target and result side by side: this makes the picture in the README (docs/images/example.png)."""

from pathlib import Path

from PIL import Image

from faceswap_diffusion import FaceSwapper
from faceswap_diffusion.provenance import save_image

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)
PAIRS = [("p001_portrait.jpg", "p010_selfie.jpg"), ("p005_portrait.jpg", "p008_selfie.jpg")]
WIDTH, HEIGHT = 280, 336

swapper = FaceSwapper.from_pretrained()
strip = Image.new("RGB", (3 * WIDTH, len(PAIRS) * HEIGHT), "white")
facts = {}
for row, (source, target) in enumerate(PAIRS):
    result = swapper.swap(source=IMAGES / source, target=IMAGES / target)
    facts[f"row {row}"] = result.provenance
    for column, image in enumerate((Image.open(IMAGES / source), Image.open(IMAGES / target), result.image)):
        image.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
        strip.paste(image, (column * WIDTH, row * HEIGHT + (HEIGHT - image.height) // 2))
save_image(strip, OUTPUTS / "readme_picture.png", provenance=facts)

print(OUTPUTS / "readme_picture.png")
