"""Photos in odd light: shown to the networks in plain light, and as they were in the picture."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.evaluation.methods import FillingSwapper
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.exposure import (
    AS_IT_IS,
    SKIN_COLOURS,
    UNFADED,
    USUAL,
    Exposure,
    brighten,
    darken,
    exposure_gain,
    measure_exposure,
)
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, SELFIE = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"
POINTS = np.array([[8.0, 8], [56, 8], [56, 56], [8, 56]])[np.arange(68) % 4]
SKIN = np.array([200, 140, 120], np.uint8)
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=128), name="tiny")


def patch(colour: np.ndarray) -> np.ndarray:
    """A face (64, 64, 3) uint8 of one colour, with something dark in it."""
    face = np.tile(np.round(colour).astype(np.uint8), (64, 64, 1))
    face[20:30, 20:30] //= 8
    return face


def dimmed(path: Path, brightness: float) -> np.ndarray:
    return np.round(load_photo(path).rgb * brightness).astype(np.uint8)


def lit(rgb: np.ndarray, light: tuple[float, float, float]) -> np.ndarray:
    """A photo as it were in light of another colour, by its linear RGB."""
    return np.round(255 * ((rgb / 255) ** 2.2 * light) ** (1 / 2.2)).astype(np.uint8)


def grey(rgb: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb).convert("L").convert("RGB"))


def sepia(rgb: np.ndarray) -> np.ndarray:
    return np.clip(grey(rgb) @ SEPIA.T, 0, 255).astype(np.uint8)


def faded(rgb: np.ndarray) -> np.ndarray:
    return np.round(np.array([97, 88, 70]) + rgb * np.array([0.5, 0.48, 0.4])).astype(np.uint8)


def test_faces_in_plain_light_are_left_as_they_are(swapper: FaceSwapper):
    assert exposure_gain(np.full(9, 64.0)) == 1
    skin = np.broadcast_to(SKIN, (64, 64, 3))
    assert brighten(skin, AS_IT_IS) is skin
    for path in sorted(IMAGES.glob("p0*.jpg")):
        (face,) = swapper.survey(load_photo(path).rgb).aligned
        assert face.exposure.tint is None
        assert not face.exposure.black.any()
        np.testing.assert_allclose(face.exposure.gain, 1, rtol=1e-6)


@pytest.mark.parametrize(("level", "wanted"), [(60, 74), (50, 99), (40, 112), (16, 112)])
def test_dark_ones_are_shown_brighter_by_and_by(level: int, wanted: int):
    assert level * exposure_gain(np.full(9, float(level))) == pytest.approx(wanted)


def test_light_from_one_side_is_kept():
    lit_from_one_side = np.repeat([30.0, 30.0, 30.0, 180.0], 10)
    assert exposure_gain(lit_from_one_side) == pytest.approx(245 / 180)


def test_what_is_not_too_bright_comes_back():
    values = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    exposure = Exposure(np.array([10.0, 0, 20]), np.array([4.0, 4, 2]))
    shown = brighten(values, exposure)
    assert shown[[0, 10, 63, 64, 255], 0, 0].tolist() == [0, 0, 212, 216, 255]
    assert shown[[0, 10, 63, 64, 255], 0, 2].tolist() == [0, 0, 86, 88, 255]
    np.testing.assert_array_equal(darken(shown.astype(np.float32), exposure)[20:64], values[20:64])


@pytest.mark.parametrize("light", [(0.12, 0.2, 1.0), (1.0, 0.08, 0.12), (0.2, 1.0, 0.3)])
def test_coloured_light_is_taken_away_from_skin_by_and_by(light: tuple[float, float, float]):
    skin = patch(lit(SKIN, light))
    exposure = measure_exposure(skin, POINTS)
    assert not exposure.black.any()
    red, green, blue = ((skin[0, 0] - exposure.black) * exposure.gain).tolist()
    low, high = SKIN_COLOURS.T
    assert (np.log([red / green, blue / green]) >= low - 1e-3).all()
    assert (np.log([red / green, blue / green]) <= high + 1e-3).all()


def test_colours_at_the_edge_of_skins_change_a_little():
    edge = np.exp([SKIN_COLOURS[0, 0], 0, SKIN_COLOURS[1, 1]])
    for beyond in (0.0, 0.01):
        gain = measure_exposure(patch(150 * edge * np.exp([-beyond, 0, beyond])), POINTS).gain
        assert np.abs(np.log(gain)).max() < 0.06


def test_a_faded_face_gets_its_blacks():
    face = patch(SKIN)
    assert not measure_exposure(face, POINTS).black.any()
    assert (faded(face)[25, 25] > 0.5 * faded(face)[40, 40]).all()
    shown = brighten(faded(face), measure_exposure(faded(face), POINTS))
    assert shown[25, 25] / shown[40, 40] == pytest.approx(UNFADED, abs=0.05)
    np.testing.assert_allclose(shown[40, 40], faded(face)[40, 40], atol=2)


@pytest.mark.parametrize("look", [grey, sepia, faded, lambda rgb: lit(rgb, (0.12, 0.2, 1.0))])
def test_a_face_that_is_filled_with_itself_stays(swapper: FaceSwapper, look: Callable):
    target = look(load_photo(SELFIE).rgb)
    result = FillingSwapper(swapper, lambda swapper, face, *_: face.pixels).swap(WOMAN, target, watermark=False)
    core = np.asarray(result.mask) == 255
    assert np.abs(np.asarray(result.image)[core].astype(int) - target[core]).mean() < 3


@pytest.mark.parametrize("brightness", [0.3, 0.12])
def test_a_dark_face_that_is_filled_with_itself_stays(swapper: FaceSwapper, brightness: float):
    filling = FillingSwapper(swapper, lambda swapper, face, *_: face.pixels)
    target = dimmed(SELFIE, brightness)
    result = filling.swap(WOMAN, target, watermark=False)
    face = filling.align(target, result.faces[0])
    assert (face.exposure.gain > 2).all()
    skin = cv2.cvtColor(face.pixels, cv2.COLOR_RGB2GRAY)[region_mask_from_landmarks(face.landmarks, 128) > 0]
    assert np.median(skin) == pytest.approx(USUAL, abs=2)
    core = np.asarray(result.mask) == 255
    assert np.abs(np.asarray(result.image)[core].astype(int) - target[core]).mean() < 1.5


def test_a_swap_in_a_grey_photo_is_grey_and_in_a_sepia_one_sepia(swapper: FaceSwapper):
    target = grey(load_photo(SELFIE).rgb)
    swapped = np.asarray(swapper.swap(WOMAN, target).image)
    assert (swapped != target).any()
    assert (swapped == swapped[..., :1]).all()
    brown = sepia(target)
    result = swapper.swap(WOMAN, brown)
    swapped = np.asarray(result.image).astype(int)
    assert (swapped != brown).any()
    level = cv2.cvtColor(np.asarray(result.image), cv2.COLOR_RGB2GRAY).ravel()
    usual = np.array([np.median(sepia(np.full((1, 1, 3), value, np.uint8)), axis=(0, 1)) for value in range(256)])
    nearest = np.searchsorted(usual @ [0.299, 0.587, 0.114], level).clip(0, 255)
    assert np.percentile(np.abs(swapped.reshape(-1, 3) - usual[nearest]), 99) <= 5


def test_a_grey_source_is_no_grey_spot_in_a_colour_photo(swapper: FaceSwapper):
    face = swapper.survey(grey(load_photo(WOMAN).rgb)).aligned[0]
    red, green, blue = np.median(face.pixels[region_mask_from_landmarks(face.landmarks, 128) > 0], axis=0)
    assert red > 1.15 * green
    assert blue <= green


@pytest.mark.slow
@pytest.mark.parametrize("brightness", [0.3, 0.2, 0.12])
def test_colours_spread_no_more_than_in_the_dark_target(embedded_swapper: FaceSwapper, brightness: float):
    target = dimmed(SELFIE, brightness)
    result = embedded_swapper.swap(WOMAN, target)
    core = np.asarray(result.mask) == 255
    before, after = (color_spread(picture, core) for picture in (target, np.asarray(result.image)))
    assert after < 1.5 * before


@pytest.mark.slow
@pytest.mark.parametrize("light", [(0.12, 0.2, 1.0), (1.0, 0.08, 0.12)])
def test_a_swap_on_a_stage_has_the_stages_light(embedded_swapper: FaceSwapper, light: tuple[float, float, float]):
    target = lit(load_photo(SELFIE).rgb, light)
    result = embedded_swapper.swap(WOMAN, target)
    core = np.asarray(result.mask) == 255
    before, after = (np.median(picture[core], axis=0) for picture in (target, np.asarray(result.image)))
    casts = [np.log(median[[0, 2]] / median[1]) for median in (before, after)]
    assert np.abs(casts[1] - casts[0]).max() < 0.15
    before, after = (color_spread(picture, core) for picture in (target, np.asarray(result.image)))
    assert after < 1.5 * before


def color_spread(rgb: np.ndarray, where: np.ndarray) -> float:
    """Standard deviation of CIELAB a* and b* where a mask (H, W) says."""
    lab = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2Lab)
    return float(np.sqrt(lab[where][:, 1:].var(axis=0).sum()))
