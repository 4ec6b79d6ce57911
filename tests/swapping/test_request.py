"""What users ask for, as it is read."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.request import load_mask


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("as_file", [True, False])
def test_the_alpha_of_a_brush_layer_counts(tmp_path: Path, mode: str, as_file: bool):
    layer = Image.new(mode, (4, 1), (255,) * len(mode[:-1]) + (0,))
    layer.putalpha(Image.fromarray(np.array([[0, 51, 255, 0]], np.uint8)))
    layer.putpixel((3, 0), (102,) * len(mode[:-1]) + (255,))
    layer.save(tmp_path / "layer.png")
    photo = load_photo(np.zeros((1, 4, 3), np.uint8))
    mask = load_mask(tmp_path / "layer.png" if as_file else layer, photo)
    np.testing.assert_allclose(mask, [[0, 0.2, 1, 0.4]], atol=1e-6)
