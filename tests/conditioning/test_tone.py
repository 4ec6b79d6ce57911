"""Tones by hand: skin, shadows, lips, hair and eyes of a painted face in another photo."""

import cv2
import numpy as np
import pytest

from faceswap_diffusion.conditioning.tone import beardless_skin, relight, skin_of_mesh
from faceswap_diffusion.faces.surface import NOTHING, face_surface, rasterize
from tests.canonical_face import SIDE, canonical_face, paint, plain

SIZE = (SIDE, SIDE)
EVERYWHERE = np.ones(SIZE, np.float32)


def mean_lab(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(pixels.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)[mask > 0].mean(axis=0)


class TestRelight:
    @staticmethod
    def drawn(seed: int = 0) -> np.ndarray:
        pixels = np.random.default_rng(seed).normal((120, 80, 60), 8, (*SIZE, 3))
        return np.clip(pixels, 0, 255).astype(np.float32)

    @pytest.mark.parametrize("colour", [(200, 165, 150), (150, 120, 110), (60, 45, 40)])
    def test_skin_gets_the_mean_tone_of_the_targets(self, colour: tuple):
        face = canonical_face()
        noise = np.random.default_rng(1).normal(0, 5, (*SIZE, 3))
        target = np.clip(paint(face, plain(*colour)) + noise, 0, 255).astype(np.uint8)
        skin = beardless_skin(face.landmarks, SIZE)
        drawn = self.drawn()
        relit = relight(drawn, EVERYWHERE, target, face.landmarks, skin)
        assert np.abs(mean_lab(drawn, skin) - mean_lab(target, skin)).max() > 10
        np.testing.assert_allclose(mean_lab(relit, skin), mean_lab(target, skin), atol=1)

    def test_a_shadow_of_the_targets_is_followed(self):
        face = canonical_face()
        target = paint(face, plain(180, 150, 135)).astype(np.float32)
        target *= 1 - 0.15 * np.clip((np.arange(SIDE) - 90) / 80, 0, 1)[None, :, None]
        target = target.astype(np.uint8)
        skin = beardless_skin(face.landmarks, SIZE)
        left, right = skin.copy(), skin.copy()
        left[:, 100:], right[:, :156] = 0, 0
        relit = relight(self.drawn(), EVERYWHERE, target, face.landmarks, skin)
        for side in (left, right):
            assert mean_lab(relit, side)[0] == pytest.approx(mean_lab(target, side)[0], abs=1.5)

    def test_a_beard_of_the_sources_says_nothing_of_the_targets_light(self):
        face = canonical_face()
        target = paint(face, plain(180, 150, 135))
        drawn = self.drawn()
        bearded = drawn.copy()
        beard = np.zeros(SIZE, np.float32)
        beard[170:] = 1
        bearded[beard > 0] = 15
        above = skin_of_mesh(face.landmarks, SIZE)
        above[:145], above[166:] = 0, 0
        assert above.sum() > 1000
        everywhere = np.ones(SIZE, np.float32)
        with_it, without = (relight(p, EVERYWHERE, target, face.landmarks, everywhere) for p in (bearded, drawn))
        np.testing.assert_allclose(mean_lab(with_it, above), mean_lab(without, above), atol=1.5)

    def test_lips_get_as_much_darker_as_the_skin_does(self):
        face = canonical_face()
        skin = beardless_skin(face.landmarks, SIZE)
        lips = np.zeros(SIZE, np.float32)
        lips[170:180, 120:136] = 1
        pixels = np.full((*SIZE, 3), (220, 180, 165), np.float32)
        pixels[lips > 0] = (190, 90, 95)
        dark = paint(face, plain(95, 62, 48))
        relit = relight(pixels, EVERYWHERE, dark, face.landmarks, skin)
        shown, source_lips, source_skin = (mean_lab(relit, lips), *(mean_lab(pixels, m) for m in (lips, skin)))
        darker = (mean_lab(dark, skin)[0] + 16) / (source_skin[0] + 16)
        assert darker < 0.6
        # The lips' lightness goes by the same factor; their redness over the skin's no further.
        assert (shown[0] + 16) / (source_lips[0] + 16) == pytest.approx(darker, rel=0.03)
        redder = shown[1] - mean_lab(relit, skin)[1]
        assert 0 < redder < 1.05 * darker * (source_lips[1] - source_skin[1])

    def test_hair_and_pupils_are_as_dark_on_lighter_skin(self):
        face = canonical_face()
        skin = beardless_skin(face.landmarks, SIZE)
        drawn = paint(face, plain(150, 95, 60)).astype(np.float32)
        pale = paint(face, plain(215, 190, 180))
        drawn[170:180, 60:196] = (12, 11, 11)
        drawn[180:190, 60:196] = 0
        relit = relight(drawn, EVERYWHERE, pale, face.landmarks, skin)
        assert mean_lab(relit, skin)[0] - mean_lab(drawn, skin)[0] > 25
        hair = np.zeros(SIZE, np.float32)
        hair[172:178, 60:196] = 1
        before, after, drawn_skin = mean_lab(drawn, hair), mean_lab(relit, hair), mean_lab(drawn, skin)
        # Lighter by the same factor as the skin, which has at most 14 more from its shadows; and without its hue.
        assert after[0] < before[0] * (mean_lab(pale, skin)[0] + 14) / drawn_skin[0]
        np.testing.assert_allclose(after[1:], before[1:], atol=2)
        np.testing.assert_allclose(relit[183:187, 60:196], 0, atol=1)

    @pytest.mark.parametrize(("target_white", "shown"), [((205, 205, 205), 205), ((60, 60, 60), None)])
    def test_the_white_of_the_eyes_is_the_targets_if_darker_skin_would_dull_it(self, target_white: tuple, shown: int):
        face, surface = canonical_face(), face_surface()
        eyes = rasterize(face.landmarks, surface.triangles[surface.eyes], SIZE) != NOTHING
        irises = cv2.dilate(self.at(face.landmarks[[468, 473]]), np.ones((5, 5))) > 0
        whites = cv2.erode((eyes & ~irises).astype(np.uint8), np.ones((3, 3))) > 0
        drawn, target = paint(face, plain(225, 190, 175)), paint(face, plain(95, 62, 48))
        for picture, white in ((drawn, (225, 225, 225)), (target, target_white)):
            picture[cv2.dilate(eyes.astype(np.uint8), np.ones((5, 5))) > 0] = white
            picture[irises] = (40, 25, 20)
        skin = beardless_skin(face.landmarks, SIZE)
        relit = relight(drawn.astype(np.float32), EVERYWHERE, target, face.landmarks, skin)
        if shown is None:  # an eye in shadow, or almost closed, does not tell
            as_skin = (mean_lab(target, skin)[0] + 16) / (mean_lab(drawn, skin)[0] + 16)
            assert (mean_lab(relit, whites)[0] + 16) / (mean_lab(drawn, whites)[0] + 16) == pytest.approx(
                as_skin, rel=0.05
            )
        else:
            np.testing.assert_allclose(relit[whites].mean(axis=0), shown, atol=6)
        assert mean_lab(relit, irises)[0] < mean_lab(drawn, irises)[0] + 2

    @pytest.mark.parametrize("skin", [(225, 190, 175), (190, 110, 70)])
    def test_eyes_change_with_their_white_and_not_with_the_skin(self, skin: tuple):
        """Eyes in the light of the source, on skin that is lighter, or redder: they stay as they are."""
        face, surface = canonical_face(), face_surface()
        eyes = rasterize(face.landmarks, surface.triangles[surface.eyes], SIZE) != NOTHING
        irises = cv2.dilate(self.at(face.landmarks[[468, 473]]), np.ones((7, 7))) > 0
        drawn, target = paint(face, plain(140, 95, 75)), paint(face, plain(*skin))
        for picture, iris in ((drawn, (50, 35, 30)), (target, (70, 90, 120))):
            picture[cv2.dilate(eyes.astype(np.uint8), np.ones((5, 5))) > 0] = (190, 185, 182)
            picture[irises] = iris
        relit = relight(
            drawn.astype(np.float32), EVERYWHERE, target, face.landmarks, beardless_skin(face.landmarks, SIZE)
        )
        inside = cv2.erode(eyes.astype(np.uint8), np.ones((3, 3))) > 0
        np.testing.assert_allclose(mean_lab(relit, inside & irises), mean_lab(drawn, inside & irises), atol=1)
        np.testing.assert_allclose(mean_lab(relit, inside & ~irises), mean_lab(drawn, inside & ~irises), atol=1)

    def test_lids_seen_between_narrow_eyes_do_not_tint_them(self):
        """A source's eyes that show skin, and no white, change as the skin does; the target's white is neutral."""
        face, surface = canonical_face(), face_surface()
        eyes = rasterize(face.landmarks, surface.triangles[surface.eyes], SIZE) != NOTHING
        skin = (190, 140, 110)
        drawn, target = paint(face, plain(*skin)), paint(face, plain(*skin))
        irises = cv2.dilate(self.at(face.landmarks[[468, 473]]), np.ones((7, 7))) > 0
        target[cv2.dilate(eyes.astype(np.uint8), np.ones((5, 5))) > 0] = (200, 200, 200)
        drawn[irises] = (95, 80, 70)
        relit = relight(
            drawn.astype(np.float32), EVERYWHERE, target, face.landmarks, beardless_skin(face.landmarks, SIZE)
        )
        np.testing.assert_allclose(mean_lab(relit, irises), mean_lab(drawn, irises), atol=1)

    def test_highlights_do_not_get_the_skins_hue(self):
        face = canonical_face()
        skin = beardless_skin(face.landmarks, SIZE)
        pixels = paint(face, plain(170, 145, 135)).astype(np.float32)
        shine = np.zeros(SIZE, np.float32)
        shine[60:64, 120:136] = 1
        pixels[shine > 0] = (245, 243, 242)
        golden = paint(face, plain(190, 140, 90))
        relit = relight(pixels, EVERYWHERE, golden, face.landmarks, skin)
        # What the smooth shading of the skin has in a* and b* is added to all alike: at most 6.
        yellower = (mean_lab(golden, skin) - mean_lab(pixels, skin))[2]
        assert yellower > 20
        assert mean_lab(relit, skin)[2] - mean_lab(pixels, skin)[2] > 20
        assert mean_lab(relit, shine)[2] - mean_lab(pixels, shine)[2] < 7

    @staticmethod
    def at(points: np.ndarray) -> np.ndarray:
        picture = np.zeros(SIZE, np.uint8)
        x, y = np.round(points).astype(int).T
        picture[y, x] = 1
        return picture

    def test_without_common_skin_nothing_changes(self):
        drawn, black, none = self.drawn(), np.zeros((*SIZE, 3), np.uint8), np.zeros(SIZE, np.float32)
        assert relight(drawn, EVERYWHERE, black, canonical_face().landmarks, none) is drawn
        assert relight(drawn, none, black, canonical_face().landmarks, EVERYWHERE) is drawn

    def test_brows_eyes_lips_and_the_lower_face_are_not_its_skin(self):
        face = canonical_face()
        skin = beardless_skin(face.landmarks, SIZE)
        x, y = np.round(face.landmarks).astype(int).T
        assert skin[y[[4, 50, 280, 151]], x[[4, 50, 280, 151]]].tolist() == [1, 1, 1, 1]  # nose, cheeks, forehead
        assert skin[y[[468, 473, 13, 152]], x[[468, 473, 13, 152]]].tolist() == [0, 0, 0, 0]  # eyes, lip, chin
