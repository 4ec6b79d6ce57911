"""Samples of the occlusion network: what is covered stays with the picture, and light is nothing in front."""

import numpy as np
import pytest

from faceswap_diffusion.training.data.occlusion_samples import (
    VIEWS,
    KnownFace,
    change_light,
    cover,
    make_samples,
    move,
    photograph,
)
from tests.canonical_face import canonical_face

SIZE = 160


@pytest.fixture
def face() -> KnownFace:
    """A grey face with a white square, that covers it, on the nose."""
    landmarks = canonical_face(side=SIZE, height=100).landmarks
    covered = np.zeros((SIZE, SIZE), np.float32)
    x, y = np.round(landmarks[4]).astype(int)
    covered[y - 8 : y + 9, x - 8 : x + 9] = 1
    pixels = np.where(covered[..., None] > 0, 255, 90).astype(np.uint8).repeat(3, axis=2)
    return KnownFace(pixels, landmarks, covered, np.ones_like(covered))


def test_moving_a_face_moves_all_of_it(face: KnownFace):
    for seed in range(5):
        moved = move(face, 96, np.random.default_rng(seed))
        assert moved.pixels.shape == (96, 96, 3)
        assert ((moved.pixels[..., 0] > 172) == (moved.covered > 0.5)).mean() > 0.995
        y, x = np.argwhere(moved.covered > 0.5).mean(axis=0)
        assert np.abs(moved.landmarks[4] - [x, y]).max() < 1


def test_covering_adds_to_what_was_covered(face: KnownFace):
    other = np.random.default_rng(9).integers(0, 256, face.pixels.shape, dtype=np.uint8)
    for seed in range(5):
        shown = cover(face, other, 2, np.random.default_rng(seed))
        assert (shown.covered >= face.covered - 1e-6).all()
        assert shown.covered.sum() > face.covered.sum()
    assert np.array_equal(cover(face, other, 0, np.random.default_rng(0)).covered, face.covered)


def test_light_and_cameras_change_pixels_alone(face: KnownFace):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        lit = change_light(face.pixels, face.landmarks, rng)
        taken = photograph(face.pixels, rng)
        assert lit.shape == taken.shape == face.pixels.shape
        assert lit.dtype == taken.dtype == np.uint8
        assert taken[face.covered > 0].mean() > taken[face.covered == 0].mean()


def test_samples_have_the_networks_shapes_and_weight_nothing_away_from_the_face(face: KnownFace):
    samples = make_samples(face, face.pixels, 96, np.random.default_rng(0))
    assert len(samples) == VIEWS
    for pixels, planes, covered, weights in samples:
        assert pixels.shape == (96, 96, 3)
        assert planes.shape == (3, 96, 96)
        assert covered.shape == weights.shape == (96, 96)
        assert (weights[planes[0] > 0] > 0.9).all()
        assert not weights[0].any()
    again = make_samples(face, face.pixels, 96, np.random.default_rng(0))
    assert all(np.array_equal(*pair) for made in zip(samples, again, strict=True) for pair in zip(*made, strict=True))
