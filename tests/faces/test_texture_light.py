"""Textures of plain skin in uneven and coloured light: what is evened out, and what is the person's own."""

from dataclasses import replace

import numpy as np
import pytest

from faceswap_diffusion.faces.mesh_topology import MOUTH_478
from faceswap_diffusion.faces.texture import fill_by_mirror, texture_raster, to_lab, to_rgb
from faceswap_diffusion.faces.texture_light import balance_halves, limit_stains
from tests.plain_skin import HAIR, SIDE, SKIN, skin_texture


class TestBalanceHalves:
    def test_a_shadow_on_one_half_is_lifted(self):
        texture = skin_texture()
        texture.pixels[:, :128] *= 0.75
        before, after = (to_lab(pixels)[..., 0] for pixels in (texture.pixels, balance_halves(texture).pixels))
        lit, dark = np.s_[130:150, 190:210], np.s_[130:150, 46:66]
        assert before[lit].mean() - before[dark].mean() > 15
        assert abs(after[lit].mean() - after[dark].mean()) < 3
        np.testing.assert_allclose(after[lit], before[lit], atol=0.1)

    def test_light_that_passes_the_nose_onto_a_dark_half_is_not_brightened(self):
        """A lit patch of a cheek in shadow, as wide as what the halves are compared by."""
        texture = skin_texture()
        texture.pixels[:, :128] *= 0.7
        texture.pixels[120:160, 60:80] /= 0.7
        patch, around = np.s_[130:150, 66:74], np.s_[130:150, 36:46]
        before, after = (to_lab(pixels) for pixels in (texture.pixels, balance_halves(texture).pixels))
        np.testing.assert_allclose(after[patch][..., 0], before[patch][..., 0], atol=3.5)
        assert after[around][..., 0].mean() - before[around][..., 0].mean() > 10
        np.testing.assert_allclose(after[around][..., 1:], before[around][..., 1:], atol=0.5)

    def test_small_differences_and_symmetric_beards_stay(self):
        texture = skin_texture()
        texture.pixels[:, :128] *= 0.98
        texture.pixels[190:230, 90:166] = HAIR
        np.testing.assert_allclose(balance_halves(texture).pixels, texture.pixels, atol=0.6)

    def test_a_dark_half_is_given_up_where_the_other_is_seen_better(self):
        texture = skin_texture()
        texture.pixels[:, :128] = [60, 50, 90]  # L* 23, and blue
        texture.confidence[:, :128] *= 0.5
        confidence = balance_halves(texture).confidence
        assert (confidence[130:150, 46:66] == 0).all()
        np.testing.assert_array_equal(confidence[:, 128:], texture.confidence[:, 128:])

    def test_a_dark_half_stays_where_the_other_is_seen_no_better(self):
        texture = skin_texture()
        texture.pixels[:, :128] = [60, 50, 90]
        np.testing.assert_array_equal(balance_halves(texture).confidence, texture.confidence)

    def test_a_shadow_beside_the_mouth_is_given_up_for_the_lit_side(self):
        texture = skin_texture()
        texture.pixels[165:195, 70:95] *= 0.6  # L* 70 to 43
        texture.confidence[:, :128] *= 0.8
        balanced = balance_halves(texture)
        shadow = np.s_[174:186, 78:87]
        lightness = [to_lab(pixels)[shadow][..., 0] for pixels in (texture.pixels, fill_by_mirror(balanced).pixels)]
        assert lightness[0].max() < 45
        assert lightness[1].min() > 61  # two thirds of the way to skin at least
        np.testing.assert_array_equal(balanced.confidence[:, 128:], texture.confidence[:, 128:])

    def test_moles_and_creases_of_both_halves_stay(self):
        texture = skin_texture()
        texture.pixels[120:126, 60:66] = HAIR
        texture.pixels[150:180, 80:84] *= 0.6
        texture.pixels[150:180, 172:176] *= 0.6
        texture.confidence[:, :128] *= 0.8
        balanced = balance_halves(texture)
        np.testing.assert_array_equal(balanced.confidence, texture.confidence)
        np.testing.assert_allclose(balanced.pixels, texture.pixels, atol=0.6)


CHEEK = np.s_[105:165, 40:100]


class TestLimitStains:
    """Skin of L* 70, a* 12 and b* 19, and patches that differ from it."""

    @staticmethod
    def limited(difference: tuple[float, float, float], where: tuple[slice, slice]) -> tuple[np.ndarray, np.ndarray]:
        """CIELAB of a patch before and after."""
        texture = skin_texture()
        lab = to_lab(texture.pixels)
        lab[where] += np.array(difference, np.float32)
        pixels = to_rgb(lab)
        after = limit_stains(replace(texture, pixels=pixels)).pixels
        middle = tuple((part.start + part.stop) // 2 for part in where)
        return to_lab(pixels)[middle], to_lab(after)[middle]

    def test_cheeks_may_be_a_little_redder(self):
        before, after = self.limited((0, 4, 3), CHEEK)
        np.testing.assert_allclose(after, before, atol=0.05)

    def test_light_of_another_colour_is_limited(self):
        before, after = self.limited((-5, 16, -16), CHEEK)
        a, b = skin_chroma()
        assert after[0] == pytest.approx(before[0], abs=0.1)
        # OpenCV's conversion errs by up to 0.3.
        assert after[1] - a == pytest.approx(4 + 3 * np.tanh(12 / 3), abs=0.4)
        assert after[2] - b == pytest.approx(-4 - 3 * np.tanh(12 / 3), abs=0.4)

    def test_a_mole_keeps_its_colour(self):
        before, after = self.limited((-5, 12, 8), np.s_[130:133, 70:73])
        np.testing.assert_allclose(after, before, atol=0.5)

    def test_what_shines_is_limited(self):
        before, after = self.limited((15, 0, 0), CHEEK)
        assert after[0] - (before[0] - 15) == pytest.approx(8 + 6 * np.tanh(7 / 6), abs=0.4)
        before, after = self.limited((-12, 0, 0), CHEEK)
        np.testing.assert_allclose(after, before, atol=0.1)

    def test_a_red_beard_stays_red(self):
        before, after = self.limited((-38, 14, 12), np.s_[190:230, 100:150])
        np.testing.assert_allclose(after, before, atol=0.1)

    def test_lips_keep_their_colour(self):
        row, column = np.round(texture_raster(SIDE).points[list(MOUTH_478[0])].mean(axis=0)[::-1]).astype(int)
        before, after = self.limited((-10, 25, 5), np.s_[row - 4 : row + 4, column - 4 : column + 4])
        np.testing.assert_allclose(after, before, atol=0.3)

    def test_without_skin_nothing_changes(self):
        texture = skin_texture()
        bare = replace(texture, confidence=np.zeros_like(texture.confidence))
        assert limit_stains(bare) is bare


def skin_chroma() -> np.ndarray:
    """a* and b* of `SKIN`."""
    return to_lab(SKIN[None, None])[0, 0, 1:]
