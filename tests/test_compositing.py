"""Colours move to the target's, and a pasted crop changes nothing beyond its mask."""

import cv2
import numpy as np
import pytest

from faceswap_diffusion.compositing import match_color, paste_back
from faceswap_diffusion.faces.alignment import crop as cut


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


def test_what_is_too_fine_for_a_crop_is_put_on_it_where_the_texture_mask_says():
    rng = np.random.default_rng(0)
    coarse = cv2.resize(rng.integers(60, 190, (8, 8, 3), np.uint8), (256, 256), interpolation=cv2.INTER_CUBIC)
    checkered = np.indices((256, 256)).sum(0)[..., None] % 2 * 20 - 10
    photo = np.clip(coarse.astype(int) + checkered, 0, 255).astype(np.uint8)
    matrix = similarity(0, 0.25, (-0.375, -0.375))  # four photo pixels are one of the crop
    target = cut(photo, matrix, 64)
    crop = np.full((64, 64, 3), 120, np.uint8)
    everywhere, left = np.ones((64, 64), np.float32), np.zeros((64, 64), np.float32)
    left[:, :32] = 1
    plain, _ = paste_back(photo, crop, everywhere, matrix)
    result, _ = paste_back(photo, crop, everywhere, matrix, target, left)
    assert np.abs(result[16:240, 16:112].astype(int) - (120 + checkered[16:240, 16:112])).max() <= 2
    assert np.array_equal(result[:, 144:], plain[:, 144:])


def test_a_photo_no_finer_than_its_crop_has_no_texture_to_give():
    photo = noise(128, 128, (120, 120, 120), 20)
    crop, everywhere = np.full((128, 128, 3), 90, np.uint8), np.ones((128, 128), np.float32)
    same = similarity(0, 1, (0, 0))
    plain, _ = paste_back(photo, crop, everywhere, same)
    result, _ = paste_back(photo, crop, everywhere, same, cut(photo, same, 128), everywhere)
    assert np.array_equal(result, plain)


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
    y, x = np.mgrid[12:40, 12:40]
    wanted = np.stack([120 + 80 * np.sin(x / 2), 120 + 80 * np.sin(y / 2), x * 0], -1)
    assert np.abs(result[12:40, 12:40] - wanted).max() < 6


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
