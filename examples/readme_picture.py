"""Shows source, target and result side by side: a face, one with glasses, a turned one, a head, everybody in a photo.

This makes the picture in the README (docs/images/example.png).
"""

from pathlib import Path

from PIL import Image

from faceswap_diffusion import FaceSwapper, save_image

IMAGES = Path(__file__).parent / "images"
OUTPUTS = Path("outputs")
OUTPUTS.mkdir(exist_ok=True)
ROWS = [
    ("p001_portrait.jpg", "p010_selfie.jpg", {}),
    ("p005_portrait.jpg", "../drawn_glasses/p008_selfie.jpg", {}),
    ("p006_portrait.jpg", "p001_park.jpg", {}),
    ("p001_portrait.jpg", "p010_portrait.jpg", {"region": "head"}),
    ("p010_portrait.jpg", "group.jpg", {"target_face": "all"}),
]
WIDTH = 800


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Joins pictures in a row of the wanted width, at equal heights."""
    shapes = [image.width / image.height for image in images]
    row, left = Image.new("RGB", (WIDTH, round(WIDTH / sum(shapes))), "white"), 0.0
    for image, shape in zip(images, shapes, strict=True):
        width = shape * WIDTH / sum(shapes)
        row.paste(image.resize((round(width), row.height), Image.Resampling.LANCZOS), (round(left), 0))
        left += width
    return row


swapper = FaceSwapper.from_pretrained()
rows, facts = [], {}
for source, target, settings in ROWS:
    result = swapper.swap(source=IMAGES / source, target=IMAGES / target, **settings)
    images = [Image.open(IMAGES / source), Image.open(IMAGES / target), result.image]
    is_wide = result.image.width > 2 * result.image.height
    rows += [side_by_side(images[:2]), side_by_side(images[2:])] if is_wide else [side_by_side(images)]
    facts[target] = result.provenance

picture, top = Image.new("RGB", (WIDTH, sum(row.height for row in rows))), 0
for row in rows:
    picture.paste(row, (0, top))
    top += row.height
save_image(picture, OUTPUTS / "readme_picture.png", provenance=facts)

print(OUTPUTS / "readme_picture.png")
