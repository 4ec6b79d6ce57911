"""Every metric against values worked out by hand."""

import numpy as np
import pytest

from faceswap_diffusion.evaluation import metrics

NAN_ROW = [np.nan, np.nan]


def test_cosines_by_hand_whatever_the_lengths():
    first = np.array([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0], NAN_ROW])
    second = np.array([[6.0, 8.0], [0.0, 5.0], [-1.0, 0.0], [1.0, 0.0]])
    np.testing.assert_allclose(metrics.cosines(first, second), [1.0, 0.0, -1.0, np.nan])
    np.testing.assert_allclose(metrics.cosines(np.array([[1.0, 1.0]]), np.array([[1.0, 0.0]])), [0.5**0.5])


def test_closer_to_source_counts_an_undetected_swap_as_a_failure():
    swap = np.array([[1.0, 0.1], [0.1, 1.0], NAN_ROW])
    source, target = np.array([[1.0, 0.0]] * 3), np.array([[0.0, 1.0]] * 3)
    hits = metrics.closer_to_source(swap, source, target)
    assert hits.tolist() == [True, False, False]
    assert metrics.rate(hits) == pytest.approx(1 / 3)


def test_nearest_in_gallery_goes_by_the_angle_not_by_the_length():
    gallery = np.array([[10.0, 0.0], [0.0, 0.1], [-1.0, -1.0]])
    swap = np.array([[0.4, 0.6], [5.0, 1.0], [-0.2, -0.1], NAN_ROW])
    assert metrics.nearest_in_gallery(swap, gallery).tolist() == [1, 0, 2, -1]


def test_pose_errors_are_euclidean_and_wrap_at_half_a_turn():
    swap = np.array([[3.0, 4.0, 0.0], [10.0, 0.0, 179.0], [np.nan] * 3])
    target = np.array([[0.0, 0.0, 12.0], [10.0, 0.0, -179.0], [0.0] * 3])
    np.testing.assert_allclose(metrics.pose_errors(swap, target), [13.0, 2.0, np.nan])
    assert metrics.mean_of_detected(metrics.pose_errors(swap, target)) == 7.5


def test_mean_of_detected_is_nan_when_nothing_was_found():
    assert np.isnan(metrics.mean_of_detected(np.array([np.nan, np.nan])))


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


def test_sample_bilinear_between_four_pixels():
    image = np.array([[[0.0], [10.0]], [[20.0], [40.0]]])
    points = np.array([[0.5, 0.5], [1.0, 1.0], [0.25, 0.0]])
    np.testing.assert_allclose(metrics.sample_bilinear(image, points)[:, 0], [17.5, 40.0, 2.5])
