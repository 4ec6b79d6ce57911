"""Every metric against values worked out by hand."""

import numpy as np
import pytest

from faceswap_diffusion.metrics import faces as metrics

NAN_ROW = [np.nan, np.nan]


def test_cosines_by_hand_whatever_the_lengths():
    first = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], NAN_ROW])
    second = np.array([[6.0, 8.0], [0.0, 5.0], [-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(metrics.cosines(first, second), [1.0, 0.0, -1.0, np.nan])
    np.testing.assert_allclose(metrics.cosines(np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]])), [0.5**0.5])


def test_closer_to_source_counts_an_undetected_swap_as_a_failure():
    swap = np.array([[1.0, 0.1], [0.1, 1.0], NAN_ROW])
    source, target = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 3)
    assert metrics.closer_to_source(swap, source, target).tolist() == [True, False, False]


def test_ranks_go_by_the_angle_not_by_the_length():
    gallery = np.array([[10.0, 0.0], [0.0, 0.1], [-1.0, -1.0]])
    swap = np.array([[0.4, 0.6], [0.4, 0.6], [5.0, 1.0], [-0.2, -0.1]])
    people = np.array([0, 1, 2, 2])
    assert metrics.rank_in_gallery(swap, gallery, people).tolist() == [1, 0, 2, 0]
    assert metrics.rank_in_gallery(swap, gallery, people, rows=1).tolist() == [1, 0, 2, 0]


def test_who_is_not_found_is_in_no_top_however_small_the_gallery():
    gallery = np.array([[1.0, 0.0], NAN_ROW])
    ranks = metrics.rank_in_gallery(np.array([NAN_ROW, [1.0, 0.0], [1.0, 0.0]]), gallery, np.array([0, -1, 1]))
    assert ranks.tolist() == [metrics.NOT_FOUND] * 3
    assert metrics.NOT_FOUND > 1e9


def test_a_face_never_outranks_itself():
    gallery = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    for rows in (1, 7, 64):
        assert metrics.rank_in_gallery(gallery * 3, gallery, np.arange(50), rows).tolist() == [0] * 50


def test_pose_errors_are_euclidean_and_wrap_at_half_a_turn():
    swap = np.array([[3.0, 4.0, 0.0], [10.0, 0.0, 179.0], [np.nan] * 3])
    target = np.array([[0.0, 0.0, 12.0], [10.0, 0.0, -179.0], [0.0] * 3])
    np.testing.assert_allclose(metrics.pose_errors(swap, target), [13.0, 2.0, np.nan])


def turn(axis: int, degrees: float) -> np.ndarray:
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    first, second = [other for other in range(3) if other != axis]
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = cosine
    matrix[first, second], matrix[second, first] = -sine, sine
    return matrix


def test_rotation_angles_by_hand():
    first = np.stack([np.eye(3), turn(1, 20), turn(0, 90), np.full((3, 3), np.nan)])
    second = np.stack([turn(2, 30), turn(1, -25), turn(0, -90), np.eye(3)])
    np.testing.assert_allclose(metrics.rotation_angles(first, second), [30, 45, 180, np.nan], atol=1e-5)


def test_blendshape_differences_leave_out_what_is_not_meant():
    first, second = np.zeros((2, 52)), np.zeros((2, 52))
    second[0, 0] = 1.0  # the neutral one counts nowhere
    second[0, metrics.BLENDSHAPE_NAMES.index("jawOpen")] = 0.51
    second[0, metrics.BLENDSHAPE_NAMES.index("eyeLookUpLeft")] = 0.51
    second[1] = np.nan
    expression = metrics.mean_absolute_difference(first, second, metrics.EXPRESSION)
    np.testing.assert_allclose(expression, [2 * 0.51 / 51, np.nan])
    np.testing.assert_allclose(metrics.mean_absolute_difference(first, second, metrics.GAZE), [0.51 / 8, np.nan])
    assert (len(metrics.EXPRESSION), len(metrics.GAZE)) == (51, 8)


def faces68(eye_distance: float = 10.0, gap: float = 0.0) -> np.ndarray:
    """Landmarks (1, 68, 2) at the origin but for the eye corners and the lower inner lip."""
    face = np.zeros((1, 68, 2))
    face[0, 45, 0] = eye_distance
    face[0, 66, 1] = gap
    return face


def test_landmark_errors_are_in_units_of_the_targets_eye_distance():
    target = faces68(eye_distance=10)
    np.testing.assert_allclose(metrics.landmark_errors(target + np.array([3.0, 4.0]), target), [0.5])
    one_moved = target.copy()
    one_moved[0, 8, 1] = 6.8
    np.testing.assert_allclose(metrics.landmark_errors(one_moved, target), [6.8 / 68 / 10])
    assert np.isnan(metrics.landmark_errors(np.full((1, 68, 2), np.nan), target)).all()


def test_mouth_opening_errors_do_not_depend_on_the_scale():
    closed, open_mouth = faces68(10), faces68(10, gap=2)
    np.testing.assert_allclose(metrics.mouth_opening_errors(open_mouth, closed), [0.2])
    np.testing.assert_allclose(metrics.mouth_opening_errors(3 * open_mouth + 5, open_mouth), [0.0], atol=1e-12)
    np.testing.assert_allclose(metrics.mouth_opening_errors(faces68(20, gap=2), open_mouth), [0.1])


def test_mean_colour_of_what_is_inside():
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2] = 255
    mask = np.zeros((4, 4))
    mask[:2] = 1.0
    np.testing.assert_allclose(metrics.mean_color(image, mask), [100, 0, 0], atol=0.01)
    np.testing.assert_allclose(metrics.mean_color(image, np.ones((4, 4))), [50, 0, 0], atol=0.01)
    assert np.isnan(metrics.mean_color(image, np.zeros((4, 4)))).all()
    np.testing.assert_allclose(metrics.color_differences(np.array([[50, 3, 0]]), np.array([[50, 0, 4]])), [5.0])


def test_background_is_what_is_outside_the_mask():
    target = np.random.default_rng(0).integers(0, 200, (32, 32, 3), np.uint8)
    mask = np.zeros((32, 32))
    mask[8:24, 8:24] = 0.01
    swap = target.copy()
    swap[8:24, 8:24] = 255
    assert metrics.background_psnr(swap, target, mask) == metrics.IDENTICAL_PSNR
    assert metrics.background_ssim(swap, target, mask) == 1.0
    np.testing.assert_array_equal(metrics.with_target_inside(swap, target, mask), target)
    swap[mask == 0] += 10  # an error of 10 everywhere: 20 log10(255 / 10)
    assert metrics.background_psnr(swap, target, mask) == pytest.approx(28.1308, abs=1e-4)
    swap[:, :4] = target[:, :4]  # 128 of the 768 pixels are right again: the error shrinks to 5/6
    assert metrics.background_psnr(swap, target, mask) == pytest.approx(28.1308 + 10 * np.log10(6 / 5), abs=1e-4)


def test_ssim_of_two_flat_greys_is_the_luminance_term():
    # Wang and others 2004, equation 6, with C1 = (0.01 * 255)^2; contrast and structure of flat pictures are 1.
    first, second = np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 120, np.uint8)
    expected = (2 * 100 * 120 + 2.55**2) / (100**2 + 120**2 + 2.55**2)
    assert metrics.background_ssim(first, second, np.zeros((16, 16))) == pytest.approx(expected, abs=1e-6)


def test_expression_closer_to_target_by_hand():
    source, target = np.zeros((4, 52)), np.ones((4, 52))
    swap = np.full((4, 52), 0.6)
    swap[1], swap[2] = 0.4, 0.5  # at exactly half way it is not closer
    swap[3] = np.nan
    assert metrics.expression_closer_to_target(swap, source, target).tolist() == [True, False, False, False]


def test_sharpness_is_the_variance_of_the_laplacian_inside_the_mask_only():
    # Grey columns 0, 100, 0, 100, ...: the Laplacian is +200 at the dark ones and -200 at the bright ones.
    columns = np.tile(np.array([0, 100], np.uint8), 8)
    image = np.repeat(np.broadcast_to(columns, (16, 16))[..., None], 3, axis=2).copy()
    image[:, 8:] = 50
    mask = np.zeros((16, 16), np.float32)
    mask[4:12, 2:6] = 1.0
    assert metrics.sharpness(image, mask) == pytest.approx(200.0**2)
    mask = np.zeros((16, 16), np.float32)
    mask[4:12, 10:14] = 0.51
    assert metrics.sharpness(image, mask) == 0.0


def test_sharpness_needs_something_inside():
    with pytest.raises(ValueError, match="mask is empty"):
        metrics.sharpness(np.zeros((8, 8, 3), np.uint8), np.full((8, 8), 0.5))


def disc(size: int, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:size, :size] - (size - 1) / 2
    return (np.hypot(rows, columns) <= radius).astype(np.float32)


def test_border_points_lie_half_a_band_on_either_side():
    inner, outer = metrics.border_points(disc(101, 30), band=5)
    np.testing.assert_allclose(np.linalg.norm(inner - 50, axis=1), 27.5, atol=0.6)
    np.testing.assert_allclose(np.linalg.norm(outer - 50, axis=1), 32.5, atol=0.6)
    np.testing.assert_allclose(np.linalg.norm(outer - inner, axis=1), 5.0, rtol=1e-5)
    assert len(inner) > 150  # the circumference is 188 px


def test_border_colour_step_of_two_flat_greys_is_their_difference_in_lightness():
    image = np.full((101, 101, 3), 255, np.uint8)  # L* = 100
    mask = disc(101, 30)
    image[mask > 0.5] = 119  # L* = 50.03
    assert metrics.border_colour_step(image, mask) == pytest.approx(100 - 50.03, abs=0.3)


def test_border_colour_step_of_a_ramp_is_its_slope_times_the_band():
    # Grey rising by one a column: 2.5 columns to either side of a border at x = 49.5 it is 107 and 112.
    image = np.repeat(np.broadcast_to(np.arange(60, 160, dtype=np.uint8), (100, 100))[..., None], 3, axis=2)
    mask = np.zeros((100, 100), np.float32)
    mask[:, 50:] = 1.0
    assert metrics.border_colour_step(image, mask, band=5) == pytest.approx(47.24 - 45.23, abs=0.1)  # L* of the two
    assert metrics.border_colour_step(image, mask, band=10) == pytest.approx(2 * (47.24 - 45.23), abs=0.1)
    assert metrics.border_colour_step(np.full_like(image, 90), mask) == 0.0


def test_a_mask_without_a_border_is_refused():
    for mask in (np.zeros((20, 20)), np.ones((20, 20))):
        with pytest.raises(ValueError, match="no border"):
            metrics.border_points(mask, 5)
