"""Colours move to the target's, detail comes from the source or the photo, a paste changes nothing beyond its mask."""

import cv2
import numpy as np
import pytest

from faceswap_diffusion.conditioning.reference import Reference
from faceswap_diffusion.faces.alignment import crop as cut
from faceswap_diffusion.faces.lighting import face_light, light_angles
from faceswap_diffusion.swapping.compositing import (
    LIGHT_RANGE,
    LIGHT_SHARE,
    ShownReference,
    add_detail,
    continue_surroundings,
    keep_reference,
    match_border_tone,
    match_color,
    match_light,
    paste_back,
)
from tests.canonical_face import GREY, canonical_face, lit_face, to_linear


def noise(height: int, width: int, mean: tuple[int, int, int], spread: float, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(0, spread, (height, width, 1)) + mean
    return np.clip(values, 0, 255).astype(np.uint8)


def similarity(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[cos, -sin, shift[0]], [sin, cos, shift[1]]])


def disc(size: int, radius: float) -> np.ndarray:
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    return np.clip(radius - np.hypot(x, y), 0, 4).astype(np.float32) / 4


def test_match_color_takes_over_mean_and_spread_inside_the_mask_only():
    mask = disc(64, 24)
    target = noise(64, 64, (180, 130, 110), 12, seed=1)
    target[mask == 0] = (0, 255, 0)  # a green background must not count
    swap = noise(64, 64, (120, 110, 120), 10, seed=2)
    swap[mask == 0] = (255, 0, 255)
    matched = match_color(swap, target, mask)
    inside = mask == 1
    assert np.abs(matched[inside].mean(0) - target[inside].mean(0)).max() < 2
    assert matched[inside].std(0) == pytest.approx(target[inside].std(0), rel=0.2)


def test_match_color_of_a_picture_with_itself_changes_nothing():
    picture = noise(64, 64, (180, 130, 110), 30)
    difference = match_color(picture, picture, disc(64, 20)).astype(int) - picture
    assert np.abs(difference).max() <= 1


def test_match_color_limits_contrast_and_ignores_an_empty_mask():
    flat = noise(64, 64, (120, 120, 120), 2)
    wild = noise(64, 64, (120, 120, 120), 60, seed=1)
    matched = match_color(flat, wild, np.ones((64, 64)))
    assert matched.std() < 1.5 * flat.std()
    assert np.array_equal(match_color(flat, wild, np.zeros((64, 64))), flat)


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7, 6.0])
def test_paste_back_puts_the_crop_where_the_matrix_says_and_nowhere_else(scale):
    photo = noise(300, 400, (90, 90, 90), 20)
    crop = np.full((128, 128, 3), (200, 40, 10), np.uint8)
    centre = np.array([230.0, 120.0])
    matrix = similarity(0.4, scale, (0, 0))
    matrix[:, 2] = 63.5 - matrix[:, :2] @ centre
    result, mask = paste_back(photo, crop, disc(128, 50), matrix)
    assert np.array_equal(result[mask == 0], photo[mask == 0])
    assert (mask > 0).any()
    assert np.array_equal(result[120, 230], [200, 40, 10])
    y, x = np.mgrid[:300, :400]
    distance = np.hypot(x - 230, y - 120) * scale  # in crop pixels
    wanted = np.clip(50 - distance, 0, 4) / 4
    assert np.abs(mask - wanted).mean() < 0.01
    assert mask.sum() == pytest.approx(wanted.sum(), rel=0.05)
    assert mask.dtype == np.float32


def test_paste_back_undoes_an_exact_cut():
    photo = noise(200, 200, (100, 120, 140), 40)
    crop = photo[30:158, 50:178]
    matrix = np.array([[1.0, 0, -50], [0, 1.0, -30]])
    result, mask = paste_back(photo, crop, disc(128, 60), matrix)
    assert np.array_equal(result, photo)
    assert mask[94, 114] == 1


def test_paste_back_keeps_the_fine_position_of_a_crop_finer_than_the_photo():
    """A wave drawn at four times the photo's resolution arrives in phase: a quarter pixel off would show."""
    matrix = np.array([[4.0, 0, 1.5 - 40], [0, 4.0, 1.5 - 40]])  # photo pixel (10, 10) is crop pixels 0 to 3
    y, x = np.mgrid[:128, :128]
    crop = np.stack([120 + 80 * np.sin((x - matrix[0, 2]) / 8), 120 + 80 * np.sin((y - matrix[1, 2]) / 8), x * 0], -1)
    result, _ = paste_back(
        np.zeros((60, 60, 3), np.uint8), np.round(crop).astype(np.uint8), np.ones((128, 128)), matrix
    )
    y, x = np.mgrid[17:35, 17:35]  # as far from the edge as the filters reach
    wanted = np.stack([120 + 80 * np.sin(x / 2), 120 + 80 * np.sin(y / 2), x * 0], -1)
    assert np.abs(result[17:35, 17:35] - wanted).max() < 6


def test_paste_back_at_the_photos_edge_and_beyond_it():
    photo = noise(50, 50, (90, 90, 90), 20)
    crop = np.full((64, 64, 3), 255, np.uint8)
    result, mask = paste_back(photo, crop, disc(64, 30), np.array([[1.0, 0, 32], [0, 1.0, 32]]))
    assert result[0, 0, 0] == 255
    assert np.array_equal(result[mask == 0], photo[mask == 0])
    for matrix in (np.array([[1.0, 0, 900], [0, 1.0, 900]]), np.array([[1.0, 0, -900], [0, 1.0, 0]])):
        untouched, empty = paste_back(photo, crop, disc(64, 30), matrix)
        assert np.array_equal(untouched, photo)
        assert empty.max() == 0


def test_paste_back_with_an_empty_mask_and_leaves_its_input_alone():
    photo = noise(50, 50, (90, 90, 90), 20)
    before = photo.copy()
    matrix = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    result, mask = paste_back(photo, np.zeros((50, 50, 3), np.uint8), np.zeros((50, 50)), matrix)
    assert np.array_equal(result, photo)
    assert mask.max() == 0
    paste_back(photo, np.zeros((50, 50, 3), np.uint8), np.ones((50, 50)), matrix)
    assert np.array_equal(photo, before)


def soft_picture(size: int, cells: int, seed: int, low: int = 60, high: int = 190) -> np.ndarray:
    """A smooth picture (size, size, 3), float32."""
    coarse = np.random.default_rng(seed).integers(low, high, (cells, cells, 3)).astype(np.float32)
    return np.clip(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC), 0, 255)


def fine_pattern(size: int, height: float) -> np.ndarray:
    """A checkerboard of single pixels (size, size, 1), which no coarser picture can hold."""
    return (np.indices((size, size)).sum(0)[..., None] % 2 * 2 - 1) * np.float32(height)


class TestContinuedSurroundings:
    @pytest.mark.parametrize("offset", [(7.0, -4.0, 2.5), (0.0, 0.0, 0.0)])
    def test_a_constant_shift_of_colour_is_taken_out(self, offset: tuple):
        target = soft_picture(64, 6, seed=1).astype(np.uint8)
        painted = target.astype(np.float32)
        painted[23:41, 23:41] = soft_picture(18, 3, seed=2)
        result = continue_surroundings(painted + np.float32(offset), target, disc(64, 20))
        wanted = painted.copy()
        mask = disc(64, 20) == 1
        np.testing.assert_allclose(result[mask], wanted[mask], atol=1e-3)
        np.testing.assert_allclose(result[:8], target[:8], atol=1e-3)

    def test_a_shift_that_changes_is_carried_on_smoothly(self):
        """Darker on the left of the mask, brighter on its right: half way there is no change."""
        target = np.full((64, 64, 3), 120, np.uint8)
        ramp = np.linspace(-10, 10, 64, dtype=np.float32)[None, :, None]
        mask = disc(64, 16)
        result = continue_surroundings(target + np.broadcast_to(ramp, target.shape), target, mask)
        inside = result[mask == 1]
        assert np.abs(inside - 120).max() < 4  # of up to 5
        assert np.abs(result[31:33, 31:33] - 120).max() < 1.5

    def test_a_mask_without_surroundings_leaves_the_crop(self):
        painted = soft_picture(32, 4, seed=3)
        result = continue_surroundings(painted, np.zeros((32, 32, 3), np.uint8), np.ones((32, 32)))
        np.testing.assert_allclose(result, painted, atol=1e-4)


class TestBorderTone:
    mask, skin = disc(128, 40), np.ones((128, 128), np.float32)
    y, x = np.mgrid[:128, :128] - 63.5
    radius = np.hypot(x, y)

    def test_the_border_gets_the_targets_tone_and_the_middle_keeps_its_own(self):
        target, painted = np.full((128, 128, 3), 150, np.uint8), np.full((128, 128, 3), 160, np.float32)
        result = match_border_tone(painted, target, self.mask, self.skin)
        border, middle = (self.radius > 37) & (self.radius < 39), self.radius < 36 - 0.08 * 128
        assert np.abs(result[border] - 150).max() < 2
        np.testing.assert_array_equal(result[middle], 160)
        profile = result[63, 63:103, 0]
        assert (np.diff(profile) < 0.1).all()  # no ring between them

    def test_a_beard_stays_dark_on_brighter_skin(self):
        target, painted = np.full((128, 128, 3), 160, np.uint8), np.full((128, 128, 3), 140, np.float32)
        painted[64:] = 30
        result = match_border_tone(painted, target, self.mask, self.skin)
        lower_edge = (self.radius > 37) & (self.radius < 39) & (self.y > 20)
        # An L* of 11 beside one of 66 takes a sixth of at most 25.
        assert 30 <= result[lower_edge].min() <= result[lower_edge].max() < 30 + 25 / 5

    def test_a_feature_of_the_target_leaves_no_ghost(self):
        """A dark line of two pixels, as of an eyebrow, across the target's border."""
        target = np.full((128, 128, 3), 150, np.uint8)
        target[63:65] = 30
        painted = np.full((128, 128, 3), 150, np.float32)
        result = match_border_tone(painted, target, self.mask, self.skin)
        assert np.abs(np.diff(result, axis=0))[self.mask[1:] > 0.5].max() < 4

    def test_a_broader_border_takes_over_less_of_a_feature(self):
        """A darker band of 6 pixels of the target, as of hair beside the border."""
        target = np.full((128, 128, 3), 150, np.uint8)
        target[61:67] = 130
        painted = np.full((128, 128, 3), 150, np.float32)
        narrow, broad = (
            match_border_tone(painted, target, self.mask, self.skin, sigma=sigma) for sigma in (0.025, 0.05)
        )
        assert 150 - broad.min() < 0.7 * (150 - narrow.min())

    def test_what_is_no_skin_says_nothing_and_large_differences_little(self):
        target, painted = np.full((128, 128, 3), 250, np.uint8), np.full((128, 128, 3), 100, np.float32)
        hair = np.zeros((128, 128), np.float32)
        np.testing.assert_array_equal(match_border_tone(painted, target, self.mask, hair), painted)
        assert match_border_tone(painted, target, self.mask, self.skin).max() <= 125


def shown(filled: np.ndarray, rebuilt: np.ndarray, coverage: float = 1.0, fine: Reference | None = None):
    return ShownReference(filled, rebuilt, np.full(filled.shape[:2], coverage, np.float32), fine)


def keep(pixels: np.ndarray, reference: ShownReference, target: np.ndarray | None = None, skin: float = 0.0):
    """`keep_reference` of a crop whose target is the crop itself, if no other is given."""
    target = np.clip(pixels, 0, 255).astype(np.uint8) if target is None else target
    return keep_reference(pixels, reference, target, np.full(pixels.shape[:2], skin, np.float32))


class TestKeepReference:
    @pytest.mark.parametrize("coverage", [1.0, 0.4])
    def test_what_shows_the_reference_becomes_it_as_far_as_it_covers(self, coverage: float):
        """A crop that is what latents held of the reference, which is finer."""
        filled = np.clip(soft_picture(64, 8, seed=4) + fine_pattern(64, 12), 0, 255)
        rebuilt = cv2.GaussianBlur(filled, (0, 0), 1.5)
        kept, share = keep(rebuilt, shown(filled, rebuilt, coverage))
        np.testing.assert_allclose(share, coverage, rtol=1e-6)
        np.testing.assert_allclose(kept, rebuilt + coverage * (filled - rebuilt), atol=1e-3)

    def test_structure_is_the_references_and_tone_the_crops(self):
        """A crop without the reference's fine pattern, and brighter: it gets the pattern and stays brighter."""
        smooth = np.full((128, 128, 3), 120, np.float32)
        drawn = smooth + 4 * np.sin(np.arange(128, dtype=np.float32) * np.pi / 2)[None, :, None]  # waves of 4 pixels
        kept, _ = keep(smooth + 15, shown(drawn, drawn))
        np.testing.assert_allclose(kept[8:-8, 8:-8], (drawn + 15)[8:-8, 8:-8], atol=0.6)

    def test_the_tone_of_eyes_is_the_references(self):
        drawn = soft_picture(128, 16, seed=1, low=60)
        eyes = np.zeros((128, 128), np.float32)
        eyes[40:60] = 1
        tinted = drawn + np.array([12, -6, 9], np.float32)
        skin = np.zeros((128, 128), np.float32)
        kept, share = keep_reference(tinted, shown(drawn, drawn), tinted.astype(np.uint8), skin, eyes)
        assert share.min() > 0.99
        np.testing.assert_allclose(kept[40:60], drawn[40:60], atol=0.2)
        assert np.abs(kept - drawn)[70:].mean() > 3

    def test_a_broad_stain_is_taken_off_and_a_broad_shadow_stays(self):
        """A spot of 12 pixels, wider than detail: without its hue it is the model's light."""
        spot = np.exp(-0.5 * (np.hypot(*(np.mgrid[:128, :128] - 63.5)) / 6) ** 2).astype(np.float32)[..., None]
        drawn = np.full((128, 128, 3), 150, np.float32)
        purple = np.array([0.0, -10.0, 0.0], np.float32)
        stained, _ = keep(drawn + spot * purple, shown(drawn, drawn))
        grey = purple @ np.array([0.299, 0.587, 0.114], np.float32)
        middle = stained[62:66, 62:66].mean(axis=(0, 1))
        assert np.ptp(middle) < 0.35 * 10
        shaded, _ = keep(drawn + spot * grey, shown(drawn, drawn))
        assert middle.mean() == pytest.approx(shaded[62:66, 62:66].mean(), abs=0.5)

    def test_another_tone_is_no_disagreement(self):
        picture = soft_picture(128, 16, seed=1, low=90)
        assert keep(picture - 25, shown(picture, picture))[1].min() > 0.8

    def test_shifted_structure_is_the_models_word(self):
        stripes = np.where(np.arange(128) // 8 % 2, 200, 40).astype(np.float32)
        picture = np.broadcast_to(stripes[None, :, None], (128, 128, 3))
        moved = np.broadcast_to(np.roll(stripes, 8)[None, :, None], (128, 128, 3))
        kept, share = keep(moved, shown(picture, picture))
        assert share[:, 8:-8].max() == 0
        np.testing.assert_array_equal(kept[:, 8:-8], moved[:, 8:-8])

    @pytest.mark.parametrize(("skin", "on_target", "is_kept"), [(1, False, False), (0, False, True), (1, True, True)])
    def test_lines_in_skin_are_kept_if_a_photo_has_them(self, skin: float, on_target: bool, is_kept: bool):
        smooth = np.full((128, 128, 3), 150, np.float32)
        lined = smooth.copy()
        lined[60:66] = 20
        target = (lined if on_target else smooth).astype(np.uint8)
        kept, share = keep(lined, shown(smooth, smooth), target, skin)
        line = np.s_[61:65, 8:-8]
        assert share[line].max() < 0.05 if is_kept else share[line].min() > 0.95
        # Without it only a broad difference of tone is left.
        assert kept[line].max() == 20 if is_kept else kept[line].min() > 70


class TestDetail:
    """Crops of 64 pixels, photos of 256: what a pixel of the photo has beyond the crop is a pattern of +-10."""

    photo = soft_picture(256, 8, seed=0, low=70, high=180) + fine_pattern(256, 10)
    target = cut(np.round(photo).astype(np.uint8), similarity(0, 0.25, (-0.375, -0.375)), 64)

    def test_a_speck_of_the_drawing_is_no_detail(self):
        drawn = np.full((64, 64, 3), 120, np.float32)
        fine = np.full((256, 256, 3), 120, np.float32) + fine_pattern(256, 10)
        fine[100, 100] = 0
        target, fine_target = np.zeros((64, 64, 3), np.uint8), np.zeros((256, 256, 3), np.uint8)
        coverage = np.ones((256, 256), np.float32)
        whole = np.ones((64, 64), np.float32)
        result = add_detail(drawn, target, fine_target, None, Reference(fine, coverage), whole)
        assert np.abs(result[90:110, 90:110] - 120).max() < 13

    def test_what_is_too_fine_for_a_crop_is_put_on_it_where_the_skin_is(self):
        painted, left = np.full((64, 64, 3), 120, np.float32), np.zeros((64, 64), np.float32)
        left[:, :32] = 1
        nowhere = np.zeros((64, 64), np.float32)
        fine_target = np.round(self.photo).astype(np.uint8)
        result = add_detail(painted, self.target, fine_target, left, None, nowhere)
        assert result.dtype == np.float32
        assert np.abs(result[16:240, 16:112] - (120 + fine_pattern(256, 10)[16:240, 16:112])).max() <= 2
        np.testing.assert_allclose(result[:, 144:], 120, atol=1e-3)
        np.testing.assert_allclose(add_detail(painted, self.target, fine_target, None, None, nowhere), 120, atol=1e-3)

    def test_a_photo_no_finer_than_its_crop_has_none_to_give(self):
        painted = soft_picture(64, 4, seed=2)
        everywhere, nowhere = np.ones((64, 64), np.float32), np.zeros((64, 64), np.float32)
        result = add_detail(painted, self.target, self.target, everywhere, None, nowhere)
        np.testing.assert_allclose(result, painted, atol=1e-4)

    def test_the_sources_photo_gives_what_the_crop_cannot_hold(self):
        """The drawn face is finer than the crop: its pattern of +-8 arrives, and the target's of +-10 does not."""
        crop_view = soft_picture(64, 6, seed=5)
        fine = cv2.resize(crop_view, (256, 256), interpolation=cv2.INTER_CUBIC) + fine_pattern(256, 8)
        drawn = Reference(fine, np.ones((256, 256), np.float32))
        fine_target, everywhere = np.round(self.photo).astype(np.uint8), np.ones((64, 64), np.float32)
        result = add_detail(crop_view, self.target, fine_target, everywhere, drawn, everywhere)
        without = add_detail(crop_view, self.target, fine_target, None, None, everywhere)
        inside = np.s_[16:240, 16:240]
        added = (result - without)[inside]
        assert np.abs(added - fine_pattern(256, 8)[inside]).mean() < 1.5
        # In the means of 4 x 4 pixels, which are the crop's, there is nothing of it.
        coarse = cv2.resize(added, (56, 56), interpolation=cv2.INTER_AREA)
        assert np.abs(coarse).max() < 1.5
        assert abs(added.mean()) < 0.05

    @pytest.mark.parametrize("edge", [256, 257, 259])
    def test_a_drawn_face_gives_no_detail_along_its_own_edge(self, edge: int):
        fine = Reference(np.zeros((512, 512, 3), np.float32), np.zeros((512, 512), np.float32))
        fine.pixels[:, edge:], fine.coverage[:, edge:] = 250, 1  # its edge is no detail of a face
        crop_view = np.full((256, 256, 3), 120, np.float32)
        photo, target = (np.full((size, size, 3), 120, np.uint8) for size in (512, 256))
        result = add_detail(crop_view, target, photo, None, fine, np.ones((256, 256), np.float32))
        np.testing.assert_allclose(result, 120, atol=1)


LIGHT = np.array([3.0, 0.3, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])  # from the front, a little from above


def from_side(x: float) -> np.ndarray:
    return LIGHT + np.array([0, 0, 0, x, 0, 0, 0, 0, 0])


def test_a_swap_is_shaded_as_the_target_is():
    face = canonical_face()
    target, swap = lit_face(face, from_side(0.4)), lit_face(face, from_side(-0.2)).astype(np.float32)
    on_mesh = (target != GREY).any(axis=2)
    # Away from the outline: what lies around the face would dilute the fit.
    skin = cv2.erode(on_mesh.astype(np.float32), np.ones((19, 19)))
    matched = match_light(swap, target, face.landmarks, face.depth, skin)
    before, after = (np.abs(picture - target)[on_mesh].mean() for picture in (swap, matched))
    assert before > 8
    kept = 1 - LIGHT_SHARE
    assert kept < after / before < kept + 0.3 * LIGHT_SHARE  # at the outline the limits hold
    lights = [face_light(picture, face.landmarks, face.depth, skin) for picture in (swap, matched, target)]
    angle_before, angle_after = light_angles(np.stack(lights[:2]), np.stack([lights[2]] * 2))
    assert angle_before > 30
    assert angle_after < (kept + 0.35 * LIGHT_SHARE) * angle_before  # the fit's penalty holds a part back


def test_a_colour_of_skin_is_no_light():
    face, everywhere = canonical_face(), np.ones((256, 256), np.float32)
    target = lit_face(face, LIGHT)
    swap = target.astype(np.float32) * [0.5, 0.6, 0.7]
    matched = match_light(swap, target, face.landmarks, face.depth, everywhere)
    assert np.abs(matched - swap).max() < 12  # the factor is not applied to brightness, only to how it varies
    assert np.abs(matched - swap).mean() < 1.5


def test_light_is_changed_within_limits_and_not_without_skin():
    face, everywhere = canonical_face(), np.ones((256, 256), np.float32)
    target, swap = lit_face(face, from_side(1.6)), lit_face(face, from_side(-1.6)).astype(np.float32)
    matched = match_light(swap, target, face.landmarks, face.depth, everywhere)
    on_mesh = (target != GREY).any(axis=2) & (swap > 20).all(axis=2)
    ratio = (to_linear(matched) / to_linear(swap))[on_mesh]
    assert ratio.min() == pytest.approx(LIGHT_RANGE[0] ** LIGHT_SHARE, rel=0.03)
    assert ratio.max() == pytest.approx(LIGHT_RANGE[1] ** LIGHT_SHARE, rel=0.03)
    assert match_light(swap, target, face.landmarks, face.depth, 0 * everywhere) is swap
