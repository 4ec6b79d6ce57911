"""Textures of plain skin that is seen through tinted lenses."""

from dataclasses import replace

import numpy as np
import pytest

from faceswap_diffusion.faces.mesh_topology import EYES_478
from faceswap_diffusion.faces.texture import FaceTexture, to_lab, to_rgb
from faceswap_diffusion.faces.texture_lenses import DARKER_RANGE, TINT_RANGE, clear_lenses, lens_area
from faceswap_diffusion.faces.texture_regions import filled
from tests.plain_skin import HAIR, SIDE, skin_texture

LENSES = lens_area(SIDE)
EYES = np.maximum.reduce([filled(outline, SIDE) for outline in EYES_478]) > 0


def tinted(scale: float = 1.0, hue: tuple[float, float] = (0, 0)) -> FaceTexture:
    """Skin and dark eyes, of which lenses let a share of the cube root of light through, and change the hue."""
    texture = skin_texture()
    texture.pixels[EYES] = HAIR
    lab = to_lab(texture.pixels)
    lab[LENSES] = (lab[LENSES] + [16, 0, 0]) * [scale, 1, 1] - [16, 0, 0] + [0, *hue]
    return replace(texture, pixels=to_rgb(lab))


def around_eyes(texture: FaceTexture) -> np.ndarray:
    """CIELAB (N, 3) of the skin in the middle of the lenses."""
    return to_lab(texture.pixels)[LENSES & ~EYES & _middle()]


def _middle() -> np.ndarray:
    """Close to the eyes, away from the lenses' edges."""
    points = np.argwhere(EYES)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    nearest = np.min([np.hypot(rows - y, columns - x) for y, x in points[::8]], axis=0)
    return nearest < 0.05 * SIDE


def test_what_clear_lenses_show_is_left():
    texture = tinted()
    np.testing.assert_allclose(clear_lenses(texture).pixels, texture.pixels, atol=1)


def test_behind_dark_lenses_skin_is_nearly_as_light_as_elsewhere():
    bare, dark = (np.median(around_eyes(texture)[:, 0]) for texture in (tinted(), tinted(0.8)))
    cleared = clear_lenses(tinted(0.8))
    assert bare - dark > 15
    assert 0 < bare - np.median(around_eyes(cleared)[:, 0]) < DARKER_RANGE[1] + 0.5
    after = to_lab(cleared.pixels)[..., 0]
    before = to_lab(tinted(0.8).pixels)[..., 0]
    gain = (after + 16) / (before + 16)
    assert gain[EYES].mean() == pytest.approx(np.median(gain[LENSES & ~EYES & _middle()]), rel=0.03)


@pytest.mark.parametrize("hue", [(0.0, -12.0), (9.0, 0.0)])
def test_a_tint_is_nearly_removed(hue: tuple[float, float]):
    difference = np.median(around_eyes(clear_lenses(tinted(hue=hue))) - around_eyes(tinted()), axis=0)
    assert np.abs(difference[1:]).max() < TINT_RANGE[1] + 0.5


def test_far_from_the_eyes_nothing_changes():
    texture = tinted(0.8, (0, -12))
    cleared = clear_lenses(texture)
    below = np.s_[int(0.7 * SIDE) :]
    np.testing.assert_allclose(cleared.pixels[below], texture.pixels[below], atol=0.5)
    np.testing.assert_array_equal(cleared.confidence, texture.confidence)


def test_without_bare_skin_there_is_nothing_to_compare_with():
    texture = tinted(0.8)
    texture.confidence[~LENSES] = 0
    assert clear_lenses(texture) is texture
