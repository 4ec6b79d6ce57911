"""Textures of plain skin with things on it that are no skin: what is left out, and what is put there instead."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from faceswap_diffusion.faces.mesh_topology import BROWS_478, EYES_478
from faceswap_diffusion.faces.texture import texture_raster
from faceswap_diffusion.faces.texture_cleaning import (
    add_skin,
    drop_foreign,
    find_fringe,
    find_strands,
    push_pull,
    soften_edges,
    unlike_skin,
)
from faceswap_diffusion.faces.texture_regions import filled
from tests.plain_skin import HAIR, SIDE, SKIN, skin_texture


class TestDropForeign:
    def test_plain_skin_is_left(self):
        texture = skin_texture()
        np.testing.assert_array_equal(drop_foreign(texture).confidence, texture.confidence)

    def test_a_strand_on_the_forehead_becomes_a_hole(self):
        texture = skin_texture()
        texture.pixels[35:60, 120:123] = HAIR
        confidence = drop_foreign(texture).confidence
        assert (confidence[36:59, 120:123] == 0).all()
        assert confidence[70:, :].sum() == texture.confidence[70:, :].sum()
        assert (confidence[35:60, :100] == texture.confidence[35:60, :100]).all()

    def test_a_stain_of_the_same_lightness_becomes_a_hole(self):
        texture = skin_texture()
        texture.pixels[110:130, 30:50] = [100, 185, 140]  # green, L* 69
        assert (drop_foreign(texture).confidence[112:128, 32:48] == 0).all()

    def test_moles_brows_and_beards_are_the_persons_own(self):
        texture = skin_texture()
        texture.pixels[45:48, 128:131] = HAIR  # on the forehead
        brow = np.round(texture_raster(SIDE).points[list(BROWS_478[0])]).astype(int)
        cv2.fillPoly(texture.pixels, [brow], HAIR.tolist())
        texture.pixels[190:230, 90:166] = HAIR  # a chin
        np.testing.assert_array_equal(drop_foreign(texture).confidence, texture.confidence)

    def test_brows_and_lashes_may_be_wider_than_the_mesh_says(self):
        texture = skin_texture()
        for outline in (BROWS_478[0], EYES_478[0]):
            drawn = filled(outline, SIDE)
            drawn[:, :110] = np.maximum(drawn, cv2.dilate(drawn, np.ones((5, 31))))[:, :110]  # towards the temple
            texture.pixels[drawn > 0] = HAIR
        np.testing.assert_array_equal(drop_foreign(texture).confidence, texture.confidence)

    def test_a_strand_that_hangs_over_a_brow_becomes_a_hole(self):
        texture = skin_texture()
        texture.pixels[30:85, 84:88] = HAIR
        confidence = drop_foreign(texture).confidence
        assert (confidence[32:60, 84:88] == 0).all()

    def test_brows_that_a_fringe_covers_become_holes(self):
        texture = skin_texture()
        points = texture_raster(SIDE).points
        left, right = (np.round(points[list(outline)]).astype(int) for outline in BROWS_478)
        on_left, on_right = (cv2.fillPoly(np.zeros((SIDE, SIDE), np.uint8), [brow], 1) > 0 for brow in (left, right))
        texture.confidence[: left[:, 1].max() + 10, : SIDE // 2] = 0  # strands all around the left brow
        texture.confidence[: left[:, 1].min() - 3, SIDE // 2 :] = 0  # the fringe ends above the right one
        texture.confidence[on_left | on_right] = 1
        confidence = drop_foreign(texture).confidence
        assert (confidence[on_left] == 0).all()
        assert (confidence[on_right] == 1).all()

    def test_light_from_above_is_no_stain(self):
        texture = skin_texture()
        texture.pixels[:] *= np.linspace(1.15, 0.7, SIDE)[:, None, None]
        np.testing.assert_array_equal(drop_foreign(texture).confidence, texture.confidence)

    def test_a_wide_brim_is_no_slope_of_the_skin(self):
        texture = skin_texture()
        texture.confidence[:, 150:] = 0  # a turned face: half of its even skin is under the brim
        texture.pixels[:62] *= np.linspace(0.15, 0.55, 62)[:, None, None]
        confidence = drop_foreign(texture).confidence
        assert (confidence[:55, 60:140] == 0).all()
        np.testing.assert_array_equal(confidence[100:], texture.confidence[100:])

    def test_narrow_gaps_between_strands_are_covered_too(self):
        texture = skin_texture()
        texture.pixels[35:60, [90, 91, 110, 111, 150, 151]] = HAIR  # gaps of 18 and 38 texels
        confidence = drop_foreign(texture).confidence
        assert (confidence[38:57, 90:112] == 0).all()
        assert (confidence[38:57, 130:132] == 1).all()


class TestFindStrands:
    """L* of a forehead at row 40, where the texture coordinate is 0.16."""

    @staticmethod
    def found(darker: float, rows: slice = np.s_[40:43], columns: slice = np.s_[100:150]) -> np.ndarray:
        skin = np.full((SIDE, SIDE), 70, np.float32)
        skin[rows, columns] -= darker
        return find_strands(skin)

    def test_a_dark_line_is_one(self):
        found = self.found(20)
        assert found[40:43, 100:150].min() == 1
        assert found.sum() == 3 * 50

    def test_its_pale_ends_belong_to_it(self):
        skin = np.full((SIDE, SIDE), 70, np.float32)
        skin[40:43, 90:160] -= 6
        skin[40:43, 100:150] -= 14
        assert find_strands(skin)[40:43, 90:160].min() == 1

    def test_wrinkles_crows_feet_and_brims_are_none(self):
        assert self.found(12).max() == 0
        assert self.found(20, rows=np.s_[120:123], columns=np.s_[60:80]).max() == 0  # beside an eye
        assert self.found(20, rows=np.s_[20:50])[25:45, 105:145].max() == 0


class TestFindFringe:
    """Stripes of 2 texels on a forehead, which differ by 5 in L*."""

    @staticmethod
    def found(along_u: bool, where: tuple[slice, slice]) -> np.ndarray:
        stripes = (np.arange(SIDE) // 2 % 2 * 5.0)[None, :]
        plane = np.full((SIDE, SIDE), 70, np.float32)
        plane[where] += (np.broadcast_to(stripes if along_u else stripes.T, (SIDE, SIDE)))[where]
        return find_fringe(plane, np.ones((SIDE, SIDE), bool))

    def test_lines_that_run_upwards_are_hair(self):
        fringe = self.found(True, np.s_[20:50, 80:120])
        assert fringe[30:42, 90:110].all()
        assert not fringe[:, 130:].any()

    def test_wrinkles_and_a_frown_are_none(self):
        assert not self.found(False, np.s_[20:50, 80:120]).any()
        assert not self.found(True, np.s_[52:68, 112:144]).any()

    def test_what_is_not_known_is_none(self):
        assert not find_fringe(np.full((SIDE, SIDE), 70, np.float32), np.zeros((SIDE, SIDE), bool)).any()


class TestSoftenEdges:
    """Textures of skin, whose smooth skin is black."""

    def softened(self, hole: tuple[slice, slice]) -> np.ndarray:
        """The red channel, as a share of the skin's."""
        texture = skin_texture()
        texture.confidence[hole] = 0
        black = np.zeros((64, 64, 4), np.float32)
        return soften_edges(replace(texture, skin=black)).pixels[..., 0] / SKIN[0]

    def test_skin_fades_into_smooth_skin_towards_a_hole(self):
        row = self.softened(np.s_[:, :60])[128, 60:80]
        assert row[0] < 0.1
        assert (np.diff(row) >= 0).all()
        assert row[6] == pytest.approx(0.5, abs=0.1)  # in the middle of 0.05 sides
        assert (row[14:] == 1).all()

    def test_cracks_are_no_holes(self):
        assert (self.softened(np.s_[100:160, 60:63]) == 1)[100:160, 63:120].all()

    def test_mouth_and_chin_stay_sharp(self):
        assert (self.softened(np.s_[200:230, 118:138]) == 1).all()

    def test_without_smooth_skin_nothing_changes(self):
        texture = skin_texture()
        texture.confidence[:, :60] = 0
        assert soften_edges(texture) is texture


class TestAddSkin:
    def test_a_hole_gets_the_colour_around_it(self):
        texture = skin_texture()
        texture.pixels[30:60, 80:180] = HAIR
        texture.confidence[30:60, 80:180] = 0
        skin = add_skin(texture).skin
        assert skin is not None
        hole = skin[8:15, 21:44]  # of 64 texels
        np.testing.assert_allclose(hole[..., :3], np.broadcast_to(SKIN, hole[..., :3].shape), atol=0.5)
        assert (hole[:4, 10:13, 3] == 1).all()  # between the brows and above

    def test_what_is_left_at_the_edge_of_a_hole_is_no_skin(self):
        texture = skin_texture()
        texture.pixels[26:64, 76:184] = HAIR
        texture.confidence[30:60, 80:180] = 0
        skin = add_skin(texture).skin
        assert skin is not None
        assert np.abs(skin[8:15, 21:44, :3] - SKIN).max() < 12  # hair is 145 away

    def test_shade_beside_a_hole_does_not_count(self):
        texture = skin_texture()
        texture.confidence[:, 190:] = 0
        texture.pixels[:, 180:190] *= 0.6  # the shadow of what covers the cheek
        skin = add_skin(texture).skin
        assert skin is not None
        np.testing.assert_allclose(skin[32, 50:58, :3], np.broadcast_to(SKIN, (8, 3)), atol=8)  # of 82

    def test_eyes_nose_and_mouth_are_not_filled(self):
        skin = add_skin(skin_texture()).skin
        assert skin is not None
        points = texture_raster(64).points
        for point in (159, 386, 4, 13):  # lids, tip of the nose, lips
            column, row = np.round(points[point]).astype(int)
            assert skin[row, column, 3] == 0
        for point in (151, 50, 280):  # forehead and cheeks
            column, row = np.round(points[point]).astype(int)
            assert skin[row, column, 3] == 1

    def test_without_any_skin_there_is_none(self):
        texture = skin_texture()
        texture.confidence[:] = 0
        assert add_skin(texture).skin is None


def test_push_pull_keeps_what_is_known_and_fills_a_ramp():
    ramp = np.repeat(np.linspace(0, 100, 64, dtype=np.float32)[None, :, None], 64, axis=0)
    weights = np.ones((64, 64), np.float32)
    weights[24:40, 24:40] = 0
    filled = push_pull(np.where(weights[..., None] > 0, ramp, 0), weights)
    np.testing.assert_array_equal(filled[weights > 0], ramp[weights > 0])
    np.testing.assert_allclose(filled[weights == 0], ramp[weights == 0], atol=6)


class TestUnlikeSkin:
    """A picture of skin, of which a parser takes all for skin."""

    def paint(self, colour: tuple[int, int, int]) -> np.ndarray:
        """A cap of a colour over the upper quarter."""
        pixels = np.full((100, 100, 3), (200, 150, 125), np.float32)
        pixels[:25] = colour
        return unlike_skin(pixels, np.ones((100, 100), np.float32))

    def test_a_white_cap_is_found_with_its_edge(self):
        found = self.paint((240, 240, 240))
        assert (found[:27] == 1).all()
        assert (found[30:] == 0).all()

    def test_shadow_and_shine_have_the_hue_of_skin(self):
        assert (self.paint((150, 110, 91)) == 0).all()
        assert (self.paint((235, 178, 150)) == 0).all()

    def test_what_is_not_taken_for_skin_is_not_judged(self):
        pixels = np.zeros((100, 100, 3), np.float32)
        assert (unlike_skin(pixels, np.zeros((100, 100), np.float32)) == 0).all()

    def test_uneven_skin_may_differ_more(self):
        even = np.full((100, 100, 3), (205, 140, 117), np.float32)
        blotchy = even.copy()
        blotchy.reshape(100, 5, 20, 3)[:, :, :10] = (215, 120, 95)
        for pixels, found in ((even, 1), (blotchy, 0)):
            pixels[:25] = (190, 168, 158)
            assert unlike_skin(pixels, np.ones((100, 100), np.float32))[10, 50] == found
