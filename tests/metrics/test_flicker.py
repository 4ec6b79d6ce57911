"""Flicker along the motion of a mesh: known shifts, and known changes."""

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.surface import mesh_motion
from faceswap_diffusion.metrics.flicker import change_along_motion, flicker_ratio


@pytest.fixture(scope="module")
def photo(example_images) -> np.ndarray:
    return np.asarray(Image.open(example_images / "p001_portrait.jpg").resize((160, 160)))


@pytest.fixture(scope="module")
def face(photo) -> Face:
    return MeshFaceAnalyzer().analyze(photo)[0]


def test_known_shift_is_no_change(photo, face):
    shifted = np.roll(photo, (4, -7), axis=(0, 1))
    moved = face.landmarks + np.array([-7, 4])
    everywhere = np.ones(photo.shape[:2])
    assert change_along_motion(photo, face.landmarks, shifted, moved, everywhere) < 0.01
    assert change_along_motion(photo, face.landmarks, shifted, face.landmarks, everywhere) > 10


def test_known_change_is_found_where_the_mask_is(photo, face):
    dark = np.clip(photo.astype(int), 20, 235).astype(np.uint8)
    mask = np.zeros(photo.shape[:2])
    x, y = face.landmarks.mean(axis=0).astype(int)
    mask[y - 10 : y + 10, x - 10 : x + 10] = 1
    inside, outside = dark.copy(), dark.copy()
    inside[mask > 0] += 3
    outside[mask == 0] += 3
    assert change_along_motion(dark, face.landmarks, inside, face.landmarks, mask) == pytest.approx(3, abs=1e-3)
    assert change_along_motion(dark, face.landmarks, outside, face.landmarks, mask) == pytest.approx(0, abs=1e-3)
    assert np.isnan(change_along_motion(dark, face.landmarks, inside, face.landmarks, np.zeros_like(mask)))


def test_warped_mesh_is_where_the_other_was(photo, face):
    bigger = (face.landmarks - 80) * 1.25 + 80
    x, y, inside = mesh_motion(face.landmarks, bigger, (160, 160))
    warped = cv2.remap(photo, x, y, cv2.INTER_LINEAR)
    nose, wanted = (np.round(points[4]).astype(int) for points in (face.landmarks, bigger))
    assert inside[wanted[1], wanted[0]]
    assert np.abs(warped[wanted[1], wanted[0]].astype(int) - photo[nose[1], nose[0]]).max() < 16


def test_ratio_is_of_the_means():
    assert flicker_ratio([2.0, float("nan"), 4.0], [1.0, 1.0, 2.5]) == pytest.approx(3 / 1.5)
