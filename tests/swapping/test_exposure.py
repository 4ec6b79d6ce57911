"""Dark faces: brightened for the networks, dark again in the picture."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap_diffusion.evaluation.methods import FillingSwapper
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.exposure import USUAL, brighten, darken, exposure_gain
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, SELFIE = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"
POINTS = np.array([[8.0, 8], [56, 8], [56, 56], [8, 56]])[np.arange(68) % 4]


def dimmed(path: Path, brightness: float) -> np.ndarray:
    return np.round(load_photo(path).rgb * brightness).astype(np.uint8)


def test_bright_faces_are_left_as_they_are():
    bright = np.full((64, 64, 3), 64, np.uint8)
    assert exposure_gain(bright, POINTS) == 1
    assert brighten(bright, 1.0) is bright


@pytest.mark.parametrize(("level", "wanted"), [(60, 74), (50, 99), (40, 112), (16, 112)])
def test_dark_ones_are_shown_brighter_by_and_by(level: int, wanted: int):
    dark = np.full((64, 64, 3), level, np.uint8)
    shown = brighten(dark, exposure_gain(dark, POINTS))
    assert (shown == wanted).all()


def test_light_from_one_side_is_kept():
    lit = np.full((64, 64, 3), 30, np.uint8)
    lit[:, 48:] = 180
    assert exposure_gain(lit, POINTS) == pytest.approx(245 / 180)


def test_what_is_not_too_bright_comes_back():
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    shown = brighten(values, 4.0)
    assert shown[[0, 10, 63, 64, 255], 0, 0].tolist() == [0, 40, 252, 255, 255]
    np.testing.assert_array_equal(darken(shown.astype(np.float32), 4.0)[:64], values[:64])


@pytest.mark.parametrize("brightness", [0.3, 0.12])
def test_a_dark_face_that_is_filled_with_itself_stays(brightness: float):
    swapper = FaceSwapper(tiny_pipeline(crop_size=128), name="tiny")
    filling = FillingSwapper(swapper, lambda swapper, face, *_: face.pixels)
    target = dimmed(SELFIE, brightness)
    result = filling.swap(WOMAN, target)
    face = filling.align(target, result.faces[0])
    assert face.exposure > 2
    skin = cv2.cvtColor(face.pixels, cv2.COLOR_RGB2GRAY)[region_mask_from_landmarks(face.landmarks, 128) > 0]
    assert np.median(skin) == pytest.approx(USUAL, abs=2)
    core = np.asarray(result.mask) == 255
    assert np.abs(np.asarray(result.image)[core].astype(int) - target[core]).mean() < 1.5


@pytest.mark.slow
@pytest.mark.parametrize("brightness", [0.3, 0.2, 0.12])
def test_colours_spread_no_more_than_in_the_dark_target(brightness: float):
    swapper = FaceSwapper.from_pretrained(device="cpu")
    target = dimmed(SELFIE, brightness)
    result = swapper.swap(WOMAN, target)
    core = np.asarray(result.mask) == 255
    before, after = (color_spread(picture, core) for picture in (target, np.asarray(result.image)))
    assert after < 1.5 * before


def color_spread(rgb: np.ndarray, where: np.ndarray) -> float:
    """Standard deviation of CIELAB a* and b* where a mask (H, W) says."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return float(np.sqrt(lab[where][:, 1:].var(axis=0).sum()))
