"""Textures of a painted canonical face: what is on it in texture coordinates is what is taken from a picture of it."""

from dataclasses import replace
from statistics import NormalDist

import cv2
import numpy as np
import pytest

from faceswap_diffusion.faces.surface import NOTHING, face_surface, interpolate, vertex_normals
from faceswap_diffusion.faces.texture import (
    LEAST_CONFIDENCE,
    MIRRORED_CONFIDENCE,
    FaceTexture,
    evenly_lit_skin,
    extract_texture,
    eye_openings,
    fill_by_mirror,
    gaussian_blur,
    largest_channel,
    merge_textures,
    mouth_opening,
    mouth_width,
    resize_texture,
    scale_lightness,
    smoothstep,
    texture_raster,
)
from tests.canonical_face import canonical_face, lit_face, paint, plain, texel_centres, to_linear, to_srgb

SIZE = 256  # of textures: about a texel for a pixel of the pictures
YELLOW, BLUE = np.array([200.0, 160, 60]), np.array([60.0, 100, 180])
CELLS = 10


def checkerboard(uv: np.ndarray) -> np.ndarray:
    """Colours (N, 3) at texture coordinates (N, 2)."""
    return np.where(np.floor(uv * CELLS).sum(axis=1, keepdims=True) % 2 > 0, YELLOW, BLUE)


def texture(pixels: np.ndarray, confidence: np.ndarray, shown: float = 1.0) -> FaceTexture:
    return FaceTexture(pixels.astype(np.float32), confidence.astype(np.float32), shown, np.array([0.3, 0.3]), 0.0)


class TestExtract:
    @pytest.mark.parametrize("yaw", [0, 30])
    def test_a_checkerboard_is_read_off_the_face(self, yaw: float):
        face = canonical_face(yaw)
        taken = extract_texture(paint(face, checkerboard), face.landmarks, face.depth, size=SIZE, remove_light=False)
        uv = texel_centres(SIZE)
        error = np.abs(taken.pixels - checkerboard(uv.reshape(-1, 2)).reshape(SIZE, SIZE, 3)).mean(axis=2)
        sure = taken.confidence > 0.3
        from_edge = np.abs(uv * CELLS - np.round(uv * CELLS)).min(axis=2) / CELLS * SIZE  # in texels
        assert sure.mean() > 0.45
        assert (error[sure] < 50).mean() > 0.95  # of 107 between the colours: the right cell
        assert error[sure & (from_edge > 4)].mean() < 3  # as far as the filter reaches

    def test_confidence_is_the_cosine_of_normal_and_view(self):
        face = canonical_face()
        taken = extract_texture(paint(face, checkerboard), face.landmarks, face.depth, size=SIZE)
        normals = vertex_normals(np.column_stack([face.landmarks, face.depth]), face_surface().triangles)
        for point in (4, 50, 280, 151, 234, 454):  # nose, cheeks, forehead, outlines
            column, row = np.clip((face_surface().uv[point] * SIZE).astype(int), 0, SIZE - 1)
            assert taken.confidence[row, column] == pytest.approx(max(normals[point, 2], 0), abs=0.08)
        assert taken.shown > 0.99

    def test_the_far_side_of_a_turned_face_is_a_hole(self):
        face = canonical_face(yaw=50)
        taken = extract_texture(paint(face, checkerboard), face.landmarks, face.depth, size=SIZE)

        def confidence(point: int) -> float:
            column, row = np.clip((face_surface().uv[point] * SIZE).astype(int), 0, SIZE - 1)
            return float(taken.confidence[row, column])

        assert [confidence(point) for point in (454, 323, 361, 288)] == [0, 0, 0, 0]  # on the viewer's right
        assert min(confidence(point) for point in (234, 93, 132, 58)) > 0.8
        raster = texture_raster(SIZE)
        normals = vertex_normals(np.column_stack([face.landmarks, face.depth]), face_surface().triangles)
        facing = interpolate(raster.seen, raster.points, face_surface().triangles, normals[:, 2:])[..., 0]
        assert (taken.confidence[facing < LEAST_CONFIDENCE] == 0).all()
        assert 0.6 < taken.shown < 0.75

    @pytest.mark.parametrize("yaw", [30, 50, 65])
    def test_what_the_nose_hides_does_not_get_the_noses_colour(self, yaw: float):
        surface, raster = face_surface(), texture_raster(SIZE)
        frontal = canonical_face().landmarks
        tip = np.linalg.norm(frontal - frontal[4], axis=1) < 25
        on_nose = tip[surface.triangles].all(axis=1)[np.maximum(raster.seen, 0)] & (raster.seen != NOTHING)
        around_nose = cv2.dilate(on_nose.astype(np.uint8), np.ones((9, 9))) > 0

        def red_nose(uv: np.ndarray) -> np.ndarray:
            column, row = np.clip((uv * SIZE).astype(int), 0, SIZE - 1).T
            return np.where(on_nose[row, column][:, None], [220.0, 20, 20], [20.0, 20, 220])

        face = canonical_face(yaw)
        taken = extract_texture(paint(face, red_nose), face.landmarks, face.depth, size=SIZE, remove_light=False)
        known = (taken.confidence > 0) & ~around_nose
        assert (taken.pixels[known][:, 0] > 120).mean() < 1e-3
        normals = vertex_normals(np.column_stack([face.landmarks, face.depth]), surface.triangles)
        facing = interpolate(raster.seen, raster.points, surface.triangles, normals[:, 2:])[..., 0]
        assert ((facing > 0.3) & (taken.confidence == 0)).sum() > 80  # the cheek behind it

    def test_a_texel_counts_as_far_as_it_is_visible(self):
        face = canonical_face()
        visible = np.ones((256, 256), np.float32)
        visible[:, :128] = 0
        taken = extract_texture(paint(face, checkerboard), face.landmarks, face.depth, visible, SIZE)
        assert (taken.confidence[:, :126] == 0).all()
        assert (taken.confidence[100:150, 140:240] > 0).mean() > 0.99
        assert taken.shown == pytest.approx(0.5, abs=0.03)

    def test_what_is_unusable_is_a_hole_and_counts_as_shown(self):
        face = canonical_face()
        unusable = np.zeros((256, 256), np.float32)
        unusable[:, :128] = 1
        whole, half = (
            extract_texture(paint(face, checkerboard), face.landmarks, face.depth, size=SIZE, unusable=mask)
            for mask in (None, unusable)
        )
        assert half.shown == whole.shown
        assert (half.confidence[:, :126] == 0).all()
        np.testing.assert_allclose(half.confidence[:, 134:], whole.confidence[:, 134:], atol=1e-5)
        np.testing.assert_array_equal(half.pixels, whole.pixels)

    def test_a_face_that_the_pictures_edge_cuts_is_known_within_it(self):
        face = canonical_face()
        cut = np.ascontiguousarray(paint(face, checkerboard)[:, 128:])
        taken = extract_texture(cut, face.landmarks - [128, 0], face.depth, size=SIZE)
        assert (taken.confidence[:, :126] == 0).all()
        assert taken.shown == pytest.approx(0.5, abs=0.03)

    def test_a_photo_finer_than_the_texture_is_averaged(self):
        """Lines of a pixel, black and white, come out grey and not as a pattern of their own."""
        face = canonical_face(side=1024, height=800)
        picture = paint(face, plain(128, 128, 128), side=1024)
        picture[::2], picture[1::2] = 255, 0
        taken = extract_texture(picture, face.landmarks, face.depth, size=64, remove_light=False)
        inside = taken.pixels[taken.confidence > 0.6]
        assert np.abs(inside - 127.5).max() < 20

    def test_the_light_is_divided_out(self):
        face, light = canonical_face(), np.array([3.0, 0.2, 0.1, 0.5, 0, 0, 0, 0, 0])
        picture = lit_face(face, light)
        spread = {}
        for remove_light in (False, True):
            taken = extract_texture(picture, face.landmarks, face.depth, size=SIZE, remove_light=remove_light)
            brightness = to_linear(taken.pixels[taken.confidence > 0.3]).mean(axis=1)
            spread[remove_light] = brightness.std() / brightness.mean()
        assert spread[False] > 0.18
        assert spread[True] < 0.09  # the ridge of the fit leaves some


class TestFill:
    def test_a_half_known_face_gets_its_mirror_image(self):
        rng = np.random.default_rng(0)
        pixels, confidence = rng.uniform(0, 255, (16, 16, 3)), np.zeros((16, 16))
        confidence[:, :8] = 0.9
        filled = fill_by_mirror(texture(pixels, confidence, shown=0.5))
        np.testing.assert_allclose(filled.pixels[:, :8], pixels[:, :8], rtol=1e-6)
        np.testing.assert_allclose(filled.pixels[:, 8:], pixels[:, :8][:, ::-1], rtol=1e-6)
        np.testing.assert_allclose(filled.confidence[:, :8], 0.9, rtol=1e-6)
        np.testing.assert_allclose(filled.confidence[:, 8:], 0.9 * MIRRORED_CONFIDENCE, rtol=1e-6)
        assert filled.shown == 0.5

    def test_what_neither_half_shows_stays_a_hole(self):
        filled = fill_by_mirror(texture(np.full((4, 4, 3), 99.0), np.zeros((4, 4))))
        assert (filled.confidence == 0).all()

    def test_what_is_seen_badly_is_blended_with_its_mirror_image(self):
        pixels, confidence = np.zeros((1, 2, 3)), np.array([[1.0, 0.15]])
        pixels[0, 0] = 200
        filled = fill_by_mirror(texture(pixels, confidence))
        # Half way up to the confidence of mirror images, smoothstep is a half.
        np.testing.assert_allclose(filled.pixels[0], [[200] * 3, [100] * 3], rtol=1e-5)
        np.testing.assert_allclose(filled.confidence[0], [1, 0.3], rtol=1e-6)


class TestMerge:
    def test_the_better_view_counts_by_the_fourth_power(self):
        first = texture(np.full((2, 2, 3), 100.0), np.full((2, 2), 0.8), shown=0.4)
        second = texture(np.full((2, 2, 3), 200.0), np.array([[0.4, 0.8], [0.0, 0.4]]), shown=0.9)
        first.confidence[1, 1] = 0
        merged = merge_textures([first, second])
        # 0.8 ** 4 = 0.4096 and 0.4 ** 4 = 0.0256: (0.4096 * 100 + 0.0256 * 200) / 0.4352 = 105.88
        np.testing.assert_allclose(merged.pixels[..., 0], [[105.882, 150], [100, 200]], atol=1e-2)
        np.testing.assert_allclose(merged.confidence, [[0.8, 0.8], [0.8, 0.4]])

    def test_a_texture_half_as_fine_counts_as_if_seen_half_as_well(self):
        fine = texture(np.full((4, 4, 3), 100.0), np.full((4, 4), 0.4), shown=0.5)
        coarse = texture(np.full((2, 2, 3), 200.0), np.full((2, 2), 0.8), shown=0.9)
        merged = merge_textures([coarse, fine])
        assert merged.pixels.shape == (4, 4, 3)
        np.testing.assert_allclose(merged.pixels, 150, atol=1e-2)
        np.testing.assert_allclose(merged.confidence, 0.8, atol=1e-6)  # what is covered is covered

    def test_holes_of_all_stay_holes_and_openings_are_those_of_the_best(self):
        first = replace(texture(np.full((2, 2, 3), 100.0), np.zeros((2, 2)), shown=0.2), mouth_opening=0.3)
        second = replace(texture(np.full((2, 2, 3), 50.0), np.zeros((2, 2)), shown=0.1), mouth_opening=0.1)
        merged = merge_textures([second, first])
        assert (merged.confidence == 0).all()
        assert (merged.pixels == 100).all()
        assert merged.mouth_opening == 0.3

    def test_two_sides_show_a_whole_face(self):
        views = []
        for yaw in (-60, 60):
            face = canonical_face(yaw)
            views.append(extract_texture(paint(face, checkerboard), face.landmarks, face.depth, size=SIZE))
        assert max(view.shown for view in views) < 0.7
        assert merge_textures(views).shown > 0.95


class TestResize:
    def test_texels_are_averaged_by_what_is_known_of_them(self):
        pixels = np.zeros((4, 4, 3))
        pixels[:2, :2] = np.array([[10, 20], [30, 40]])[..., None]
        pixels[2:, 2:] = 200
        confidence = np.zeros((4, 4))
        confidence[:2, :2] = [[0.8, 0.4], [0.0, 0.0]]
        small = resize_texture(texture(pixels, confidence, shown=0.1), 2)
        assert small.pixels.shape == (2, 2, 3)
        np.testing.assert_allclose(small.confidence, [[0.3, 0], [0, 0]], atol=1e-6)
        # (0.8 * 10 + 0.4 * 20) / 1.2 = 13.33; a hole has its own colour.
        np.testing.assert_allclose(small.pixels[..., 0], [[13.333, 0], [0, 200]], atol=0.01)
        assert small.shown == 0.1

    def test_between_texels_the_colour_of_holes_does_not_count(self):
        pixels, confidence = np.zeros((2, 2, 3)), np.array([[0.8, 0.0], [0.8, 0.0]])
        pixels[:, 0], pixels[:, 1] = 50, 250
        large = resize_texture(texture(pixels, confidence), 4)
        # At a quarter and three quarters of the way from the one to the other.
        np.testing.assert_allclose(large.confidence, [[0.8, 0.6, 0.2, 0]] * 4, atol=1e-6)
        np.testing.assert_allclose(large.pixels[:, :3, 0], 50, atol=0.2)

    def test_the_same_size_changes_nothing(self):
        whole = texture(np.full((8, 8, 3), 7.0), np.full((8, 8), 0.2))
        assert resize_texture(whole, 8) is whole


class TestLightness:
    @pytest.mark.parametrize("factor", [0.5, 2.0])
    def test_it_is_linear_rgb_that_is_scaled(self, factor: float):
        levels = np.arange(60, 200, 20, dtype=np.float32)
        pixels = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3)
        wanted = to_srgb(to_linear(pixels) * factor)
        in_range = (to_linear(pixels) * factor <= 1).all(axis=2)
        scaled = scale_lightness(pixels, np.full(pixels.shape[:2], factor))
        assert in_range.sum() > 200
        assert np.abs(scaled - wanted)[in_range].max() < 1.5

    def test_grey_128_by_hand(self):
        # 128 / 255 is 0.2159 linear; half of it, 0.1079, is 92.4 in sRGB.
        scaled = scale_lightness(np.full((1, 1, 3), 128, np.float32), np.full((1, 1), 0.5))
        np.testing.assert_allclose(scaled, 92.4, atol=0.1)

    def test_the_factor_is_limited(self):
        pixels = np.full((1, 1, 3), 90, np.float32)
        by_two, by_nine = (scale_lightness(pixels, np.full((1, 1), factor)) for factor in (2.0, 9.0))
        np.testing.assert_array_equal(by_two, by_nine)


def test_openings_by_hand():
    landmarks = np.zeros((478, 2))
    landmarks[133], landmarks[159] = [40, 0], [20, -6]  # 33 and 145 are at the origin: 40 wide
    landmarks[145] = [20, 6]
    landmarks[263], landmarks[386] = [30, 40], [3, 4]  # 50 wide, 5 high
    landmarks[291], landmarks[13], landmarks[14] = [0, 80], [8, 40], [-8, 40]
    np.testing.assert_allclose(eye_openings(landmarks), [12 / 40, 5 / 50])
    assert mouth_opening(landmarks) == pytest.approx(16 / 80)


def test_the_mouths_width_is_that_in_space():
    landmarks, depth = np.zeros((478, 2)), np.zeros(478)
    landmarks[33], landmarks[263], depth[263] = (10, 20), (70, 20), 80  # 100 apart: a turned head
    landmarks[61], landmarks[291], depth[291] = (20, 90), (56, 90), 48  # 60 apart
    assert mouth_width(landmarks, depth) == pytest.approx(0.6)


@pytest.mark.parametrize("sigma", [6.9, 7.0, 20.0])
def test_a_blurred_edge_is_the_normal_distribution(sigma: float):
    edge = np.full((128, 256, 2), 200, np.float32)
    edge[:, :128] = 0
    blurred = gaussian_blur(edge, sigma)
    expected = [200 * NormalDist(0, sigma).cdf(x - 127.5) for x in range(256)]
    assert np.abs(blurred[64] - np.array(expected)[:, None]).max() < 2  # one percent


def test_the_largest_channel_by_hand():
    pixels = np.array([[[1.0, 5.0, 2.0], [-3.0, -1.0, -2.0]]])
    np.testing.assert_array_equal(largest_channel(pixels), [[5.0, -1.0]])


def test_smoothstep_by_hand():
    np.testing.assert_allclose(smoothstep(np.array([0.0, 1, 1.25, 1.5, 2, 3]), 1, 2), [0, 0, 0.15625, 0.5, 1, 1])


def test_dark_skin_of_beards_is_left_out_of_the_light():
    image = np.full((10, 10, 3), 150, np.uint8)
    image[:3] = 40  # (40 / 150) ** 2.2 = 0.055
    image[3:5] = 120  # (120 / 150) ** 2.2 = 0.61
    skin = np.ones((10, 10), np.float32)
    skin[:, 0] = 0
    kept = evenly_lit_skin(image, skin)
    assert (kept[:3] == 0).all()
    assert (kept[3:, 1:] == 1).all()
    assert (kept[:, 0] == 0).all()
    assert (evenly_lit_skin(image, np.zeros((10, 10), np.float32)) == 0).all()
