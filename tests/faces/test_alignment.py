import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.alignment import (
    ARCFACE_TEMPLATE,
    arcface_matrix,
    crop,
    ffhq_matrix,
    invert,
    keypoints_from_landmarks,
    resized_matrix,
    sample_bilinear,
    transform_points,
    uncrop,
)


@pytest.fixture(scope="module")
def portrait(example_images):
    return np.asarray(Image.open(example_images / "p001_portrait.jpg"))


def landmarks68(left_eye, right_eye, left_mouth, right_mouth):
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[48], points[54] = left_eye, right_eye, left_mouth, right_mouth
    return points


def similarity(scale, degrees, shift):
    angle = np.radians(degrees)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, shift])


def test_ffhq_square_of_an_upright_face():
    # Eyes 60 apart, mouth 70 below: half side = max(2.0 x 60, 1.8 x 70) = 126, centre = eyes + 0.1 x 70 down.
    matrix = ffhq_matrix(landmarks68((70, 100), (130, 100), (80, 170), (120, 170)), 252)
    assert matrix == pytest.approx(np.array([[1, 0, 125.5 - 100], [0, 1, 125.5 - 107]]))
    # The square's outer corners (continuous, so half a pixel beyond the pixel centres) become the crop's.
    corners = np.array([[100 - 126, 107 - 126], [100 + 126, 107 + 126]])
    assert transform_points(corners, matrix) == pytest.approx(np.array([[-0.5, -0.5], [251.5, 251.5]]))


def test_ffhq_square_follows_the_wider_measure_and_the_rotation():
    upright = landmarks68((60, 100), (140, 100), (80, 160), (120, 160))  # 2.0 x 80 > 1.8 x 60
    matrix = ffhq_matrix(upright, 320)
    assert matrix[:, :2] == pytest.approx(np.eye(2))
    move = similarity(2.5, 30, (40, -10))
    assert ffhq_matrix(transform_points(upright, move), 320) == pytest.approx(
        np.vstack([matrix, [0, 0, 1]])[:2] @ np.vstack([invert(move), [0, 0, 1]])
    )


def test_ffhq_crop_equals_the_reference_recipe(portrait):
    # FFHQ cuts the quadrilateral with Pillow from a photo that was shrunk first; here it needs no shrinking.
    points = landmarks68((260, 290), (370, 305), (272, 425), (348, 433))
    eye_to_eye, eyes, mouth = np.array([110, 15]), np.array([315, 297.5]), np.array([310, 429])
    eye_to_mouth = mouth - eyes
    x = eye_to_eye - np.flipud(eye_to_mouth) * [-1, 1]
    x = x / np.hypot(*x) * max(np.hypot(*eye_to_eye) * 2.0, np.hypot(*eye_to_mouth) * 1.8)
    y = np.flipud(x) * [-1, 1]
    centre = eyes + eye_to_mouth * 0.1
    quad = np.stack([centre - x - y, centre - x + y, centre + x + y, centre + x - y])
    size = round(2 * np.hypot(*x))
    assert quad.min() > 0
    assert quad.max() < 640
    reference = Image.fromarray(portrait).transform(
        (size, size), Image.Transform.QUAD, (quad + 0.5).flatten().tolist(), Image.Resampling.BICUBIC
    )
    ours = crop(portrait, ffhq_matrix(points, size), size)
    difference = np.abs(ours.astype(int) - np.asarray(reference).astype(int))
    assert difference.mean() < 0.6
    assert np.percentile(difference, 99) <= 6


def test_arcface_matrix_recovers_a_similarity():
    move = similarity(0.35, -25, (3, 90))
    keypoints = transform_points(ARCFACE_TEMPLATE, invert(move))
    assert arcface_matrix(keypoints) == pytest.approx(move)
    assert arcface_matrix(keypoints, 224) == pytest.approx(2 * move)


def test_arcface_matrix_is_the_least_squares_one():
    rng = np.random.default_rng(0)
    keypoints = ARCFACE_TEMPLATE * 3 + 50 + rng.normal(0, 6, (5, 2))
    matrix = arcface_matrix(keypoints)
    # Solved a second way: the four parameters of a similarity as a linear least-squares problem.
    x, y = keypoints.T
    rows = np.concatenate([np.stack([x, -y, x**0, 0 * x], 1), np.stack([y, x, 0 * x, x**0], 1)])
    (a, b, c, d), *_ = np.linalg.lstsq(rows, ARCFACE_TEMPLATE.T.ravel(), rcond=None)
    assert matrix == pytest.approx(np.array([[a, -b, c], [b, a, d]]))


def test_keypoints_from_landmarks():
    landmarks = np.stack([np.arange(478.0), np.zeros(478)], axis=1)
    eyes_nose_mouth = [(33 + 160 + 158 + 133 + 153 + 144) / 6, (362 + 385 + 387 + 263 + 373 + 380) / 6, 4, 61, 291]
    assert keypoints_from_landmarks(landmarks)[:, 0] == pytest.approx(eyes_nose_mouth)


def test_invert_and_transform_points():
    matrix = similarity(1.7, 33, (12, -5))
    points = np.array([[0.0, 0.0], [10.0, 3.0]])
    assert transform_points(points, matrix)[0] == pytest.approx([12, -5])
    assert transform_points(transform_points(points, matrix), invert(matrix)) == pytest.approx(points)


def test_crop_of_whole_pixels_is_a_slice(portrait):
    matrix = np.array([[1.0, 0, -200], [0, 1, -150]])
    assert np.array_equal(crop(portrait, matrix, 64), portrait[150:214, 200:264])


def test_uncrop_of_whole_pixels_puts_the_slice_back(portrait):
    matrix = np.array([[1.0, 0, -200], [0, 1, -150]])
    plane = uncrop(portrait[150:214, 200:264], matrix, (640, 640))
    expected = np.zeros_like(portrait)
    expected[150:214, 200:264] = portrait[150:214, 200:264]
    assert np.array_equal(plane, expected)


def test_round_trip_through_a_turned_crop(portrait):
    matrix = similarity(1.0, 17, (0, 0))
    matrix[:, 2] = 199.5 - matrix[:, :2] @ [320, 320]
    plane = uncrop(crop(portrait, matrix, 400), matrix, (640, 640))
    inside = uncrop(np.ones((400, 400), dtype=np.float32), matrix, (640, 640)) > 0.999
    assert inside.sum() > 0.9 * 400 * 400
    difference = np.abs(plane.astype(int) - portrait.astype(int))[inside]
    assert difference.mean() < 1.5
    # A shift by half a pixel, the usual mistake, costs several times as much.
    shifted = uncrop(crop(portrait, matrix, 400), matrix + np.array([0, 0, 0.5]), (640, 640))
    assert np.abs(shifted.astype(int) - portrait.astype(int))[inside].mean() > 2 * difference.mean()


@pytest.mark.parametrize("scale", [0.99, 1.5])
def test_round_trip_keeps_fine_detail(portrait, scale: float):
    """By the variance of the Laplacian, of which box and cubic filters keep 40 %."""
    matrix = similarity(scale, 5, (0, 0))
    matrix[:, 2] = scale * 200 - matrix[:, :2] @ [320, 320]
    plane = uncrop(crop(portrait, matrix, round(scale * 400)), matrix, (640, 640))
    kept, whole = (cv2.Laplacian(picture[180:460, 180:460], cv2.CV_64F).var() for picture in (plane, portrait))
    assert 0.6 * whole < kept < 1.05 * whole


def test_round_trip_of_a_gradient_is_exact_at_other_scales():
    y, x = np.mgrid[:300, :400].astype(np.float32)
    ramp = np.stack([x, y, x + y], axis=-1)
    for scale in (0.3, 0.77, 1.0, 2.6):
        matrix = similarity(scale, -12, (20 * scale, 60 * scale))
        size = round(250 * scale)
        plane = uncrop(crop(ramp, matrix, size), matrix, (400, 300))
        # Away from the crop's edge, where zero mixes in, and from the photo's, where its mirror image does, as far as
        # the filters reach: four pixels to interpolate, and three of the coarser of the two to shrink.
        u, v = np.moveaxis(transform_points(np.stack([x, y], axis=-1), matrix), -1, 0)
        reach = 4 + round(3 * max(1, scale))
        margin = 4 + round(4 / scale)
        clear = (np.minimum(u, v) > reach) & (np.maximum(u, v) < size - reach - 1)
        clear &= (x > margin) & (x < 399 - margin) & (y > margin) & (y < 299 - margin)
        assert clear.sum() > 5000
        # Lanczos kernels do not keep ramps exactly. Half a pixel of the crop would be 0.5 / scale or more.
        assert np.abs(plane - ramp)[clear].max() < 0.3 / min(scale, 1)


def test_shrinking_averages_instead_of_skipping():
    stripes = np.zeros((800, 800, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = crop(stripes, np.array([[0.1, 0, -0.45], [0, 0.1, -0.45]]), 80)
    assert np.abs(small[4:-4, 4:-4].astype(int) - 127.5).max() < 6


def test_outside_the_photo_is_its_mirror_image(portrait):
    beyond = crop(portrait, np.array([[1.0, 0, 10], [0, 1, 0]]), 64)
    assert np.array_equal(beyond[:, :10], portrait[:64, 10:0:-1])
    assert np.array_equal(beyond[:, 10:], portrait[:64, :54])


def test_grey_and_float_images(portrait):
    matrix = similarity(0.5, 10, (0, 0))
    grey = portrait[:, :, 1]
    assert np.array_equal(crop(grey, matrix, 100), crop(portrait, matrix, 100)[:, :, 1])
    assert crop(grey.astype(np.float32) / 255, matrix, 100).dtype == np.float32


def test_photo_wider_than_opencv_allows():
    photo = np.zeros((20, 40_000, 3), dtype=np.uint8)
    photo[:, 39_000:] = 200
    assert np.all(crop(photo, np.array([[1.0, 0, -39_100], [0, 1, 0]]), 16) == 200)


def test_a_matrix_for_another_size_maps_to_the_same_crop():
    matrix = np.array([[0.5, -0.1, 3.0], [0.1, 0.5, -2.0]])
    larger = resized_matrix(matrix, 64, 256)
    corners = transform_points(np.array([[-0.5, -0.5], [63.5, 63.5], [10.0, 20.0]]), invert(matrix))
    np.testing.assert_allclose(transform_points(corners, larger), [[-0.5, -0.5], [255.5, 255.5], [41.5, 81.5]])
    np.testing.assert_allclose(resized_matrix(larger, 256, 64), matrix)


def test_sample_bilinear_between_four_pixels():
    image = np.array([[[0.0], [10.0]], [[20.0], [40.0]]])
    points = np.array([[0.5, 0.5], [1.0, 1.0], [0.25, 0.0]])
    np.testing.assert_allclose(sample_bilinear(image, points)[:, 0], [17.5, 40.0, 2.5])
