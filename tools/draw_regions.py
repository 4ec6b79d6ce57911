"""Draws the pictures of docs/guides/regions.md: every region, and what a swap makes of it.

python tools/draw_regions.py --output_dir docs/images/regions
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from faceswap_diffusion import FaceSwapper, save_image
from faceswap_diffusion.faces.alignment import crop, resized_matrix
from faceswap_diffusion.masks.regions import REGIONS, feather, repaint_mask
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.pasting import FEATHER
from faceswap_diffusion.swapping.source_identity import SourceIdentity

IMAGES = Path(__file__).parents[1] / "examples" / "images"
SOURCE, TARGET = IMAGES / "p010_portrait.jpg", IMAGES / "p005_portrait.jpg"
PICTURES: dict[str, dict[str, Any]] = {
    **{name: {"region": name} for name in REGIONS if name != "accessories"},
    "eyes+brows": {"region": "eyes+brows"},
    "keep-mouth": {"keep": "mouth"},
}
"""Settings of the swap for each picture; our parser knows no accessories."""

SIDE, QUALITY = 144, 85
TINT = (255, 0, 90)


def tinted(face: AlignedFace, region: str, keep: str | None = None) -> np.ndarray:
    """The crop of a face (S, S, 3) uint8 RGB in which what a swap repaints has another colour, softly as in a swap."""
    wanted, kept = (
        repaint_mask(face.labels, face.landmarks, name, face.label_names, face.pixels) if name else np.float32(0)
        for name in (region, keep)
    )
    share = 0.6 * feather(wanted * (1 - kept), FEATHER * len(face.labels))[..., None]
    return np.round(face.pixels + share * (np.array(TINT) - face.pixels)).astype(np.uint8)


def draw(swapper: FaceSwapper, source: SourceIdentity, settings: dict[str, Any]) -> tuple[Image.Image, dict]:
    """A region and its swap side by side, and the swap's provenance."""
    photo = load_photo(TARGET)
    (face,) = swapper.survey(photo.rgb).aligned
    result = swapper.swap(source, photo, **settings)
    size = len(face.pixels)
    left = tinted(face, settings.get("region", "face"), settings.get("keep"))
    right = crop(np.asarray(result.image.convert("RGB")), resized_matrix(face.matrix, size, SIDE), SIDE)
    picture = Image.new("RGB", (2 * SIDE, SIDE))
    picture.paste(Image.fromarray(left).resize((SIDE, SIDE), Image.Resampling.LANCZOS))
    picture.paste(Image.fromarray(right), (SIDE, 0))
    return picture, result.provenance


def main(argv: list[str] | None = None, swapper: FaceSwapper | None = None) -> None:
    """Draws all pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, required=True, help="folder of the pictures")
    parser.add_argument("--only", nargs="+", default=list(PICTURES), choices=list(PICTURES), help="draw only these")
    args = parser.parse_args(argv)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    swapper = swapper or FaceSwapper.from_pretrained()
    for name in args.only:
        settings = PICTURES[name]
        source = swapper.encode_source([SOURCE], region=settings.get("region", "face"))
        picture, provenance = draw(swapper, source, settings)
        save_image(picture, args.output_dir / f"{name}.jpg", provenance=provenance, quality=QUALITY)


if __name__ == "__main__":
    main()
