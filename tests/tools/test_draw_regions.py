"""The pictures of regions in the documentation: how they are drawn, and that they are marked as made with AI."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

from faceswap_diffusion.masks.regions import REGIONS
from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "docs" / "images" / "regions"
sys.path.insert(0, str(ROOT / "tools"))
import draw_regions  # noqa: E402  # pyright: ignore[reportMissingImports]


def test_a_region_is_tinted_beside_its_swap(tmp_path: Path):
    swapper = FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference"), name="tiny")
    draw_regions.main(["--output_dir", str(tmp_path), "--only", "lower-face"], swapper)
    path = tmp_path / "lower-face.jpg"
    provenance = read_provenance(path)
    assert provenance is not None
    assert provenance["region"] == "lower-face"
    pixels = np.asarray(Image.open(path)).astype(int)
    assert pixels.shape == (draw_regions.SIDE, 2 * draw_regions.SIDE, 3)
    left, right = pixels[:, : draw_regions.SIDE], pixels[:, draw_regions.SIDE :]
    chin, forehead = left[112:120, 66:78].mean((0, 1)), left[40:48, 66:78].mean((0, 1))
    assert chin[0] - chin[1] > 90  # red
    assert forehead[0] - forehead[1] < 80
    assert np.abs(left - right)[:30].mean() < 8  # the hair is the same


def test_every_region_has_a_picture_that_says_how_it_was_made():
    names = {*REGIONS, "eyes+brows", "keep-mouth"} - {"accessories"}
    assert {path.stem for path in SHIPPED.iterdir()} == names == set(draw_regions.PICTURES)
    assert sum(path.stat().st_size for path in SHIPPED.iterdir()) < 300_000
    for name in names:
        provenance = read_provenance(SHIPPED / f"{name}.jpg")
        assert provenance is not None
        assert provenance["region"] == ("face" if name == "keep-mouth" else name)
    guide = (ROOT / "docs" / "guides" / "regions.md").read_text(encoding="utf-8")
    assert all(f"images/regions/{name}.jpg" in guide for name in names)
    assert all(f"| `{name}`" in guide for name in REGIONS)
