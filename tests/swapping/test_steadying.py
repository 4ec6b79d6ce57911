"""A real face, moved by known steps, whose swap flickers by known amounts."""

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.swapping.steadying import MEMORY, ShownFace, steady_pixels

SIDE = 160
FRAME = MEMORY * np.log(2)  # after which the frame before still counts one half


@pytest.fixture(scope="module")
def crop(example_images) -> np.ndarray:
    return np.asarray(Image.open(example_images / "p001_portrait.jpg").resize((SIDE, SIDE)))


@pytest.fixture(scope="module")
def landmarks(crop) -> np.ndarray:
    return MeshFaceAnalyzer().analyze(crop)[0].landmarks


@pytest.fixture(scope="module")
def cheeks(landmarks) -> np.ndarray:
    """Well inside the mesh, (SIDE, SIDE) bool."""
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    cv2.fillConvexPoly(canvas, cv2.convexHull(landmarks.astype(np.int32)), 1)
    return cv2.erode(canvas, np.ones((25, 25))) > 0


def swap_of(crop: np.ndarray) -> np.ndarray:
    """Another picture of the same face: what a swap may look like."""
    return np.clip(0.8 * crop.astype(np.float32) + 20, 0, 250)


def test_half_of_a_small_change_is_left(crop, landmarks, cheeks):
    swap = swap_of(crop)
    steady = steady_pixels(swap + 4, crop, landmarks, ShownFace(swap.round().astype(np.uint8), crop, landmarks), FRAME)
    assert (steady - swap)[cheeks] == pytest.approx(2, abs=0.3)
    assert np.array_equal(steady[:5], (swap + 4)[:5])  # around the face nothing is known


def test_change_of_light_is_followed_at_once(crop, landmarks, cheeks):
    swap, dark = swap_of(crop), np.clip(crop, 0, 225).astype(np.uint8)
    before = ShownFace(swap.round().astype(np.uint8), dark, landmarks)
    steady = steady_pixels(swap + 25, dark + 25, landmarks, before, FRAME)
    assert (steady - swap)[cheeks] == pytest.approx(25, abs=1)


def test_surprise_is_shown_as_it_is(crop, landmarks):
    swap = swap_of(crop)
    open_mouth = swap.copy()
    x, y = landmarks[[13, 14]].mean(axis=0).astype(int)
    cv2.circle(open_mouth, (int(x), int(y)), 12, (40, 10, 10), cv2.FILLED)
    before = ShownFace(swap.round().astype(np.uint8), crop, landmarks)
    steady = steady_pixels(open_mouth, crop, landmarks, before, FRAME)
    inside = np.s_[y - 6 : y + 6, x - 6 : x + 6]
    assert np.abs(steady - open_mouth)[inside].max() < 3


@pytest.mark.parametrize("scale", [1.0, 1.25])
def test_moved_face_keeps_its_detail(crop, landmarks, cheeks, scale: float):
    """The face moved by whole pixels, or came nearer: what the frame before foretells is what is there."""
    swap = swap_of(crop)
    if scale == 1:
        later, moved, inside = np.roll(swap, (3, -5), axis=(0, 1)), landmarks + np.array([-5, 3]), cheeks
        target = np.roll(crop, (3, -5), axis=(0, 1))
        inside = np.roll(cheeks, (3, -5), axis=(0, 1))
    else:
        side = round(SIDE * scale)
        later, target = (cv2.resize(p, (side, side), interpolation=cv2.INTER_CUBIC) for p in (swap, crop))
        moved, inside = (landmarks + 0.5) * scale - 0.5, cv2.resize(cheeks.astype(np.uint8), (side, side)) > 0
    steady = steady_pixels(later, target, moved, ShownFace(swap.round().astype(np.uint8), crop, landmarks), FRAME)
    assert np.abs(steady - later)[inside].mean() < 0.5
