"""Beards on a painted face: what is found beyond the jaw, what is no beard, and a long one that stays."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap_diffusion import FaceSwapper
from faceswap_diffusion.masks.beards import beyond_jaw, find_beard, long_beard
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import has_beard, repaint_mask
from faceswap_diffusion.photos.loading import load_photo
from tests.canonical_face import canonical_face

IMAGES = Path(__file__).parents[2] / "examples" / "images"
SKIN, HAIR, BLACK_HAIR = np.array([205, 160, 135]), np.array([90, 70, 60]), np.array([35, 28, 25])
MESH = canonical_face().landmarks  # 200 pixels high, the chin at 228
FACE = region_mask_from_landmarks(MESH, 256)


def picture(beard: np.ndarray, spread: float, hair: np.ndarray = HAIR) -> np.ndarray:
    """A picture (256, 256, 3) uint8 of skin, on which hair of a spread of brightness is painted."""
    pixels = np.broadcast_to(SKIN, (256, 256, 3)).astype(np.float64)
    pixels[beard] = hair + np.random.default_rng(0).normal(0, spread, (int(beard.sum()), 1))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def find(beard: np.ndarray, spread: float, hair: np.ndarray = HAIR):
    """Looks for a beard in such a picture."""
    return find_beard(FACE, FACE, MESH, picture(beard, spread, hair))


def rectangle(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros((256, 256), bool)
    mask[rows, columns] = True
    return mask


def test_a_short_beard_reaches_as_far_as_it_hangs_over_the_jaw():
    beard = find(rectangle(slice(180, 236), slice(80, 176)), spread=25)
    found = beyond_jaw(beard, FACE, np.zeros_like(FACE)) > 0
    below, chin = found[:, 128], int(np.nonzero(FACE[:, 128])[0].max())
    assert not (found & (FACE > 0)).any()
    assert below[chin + 1 : 235].all()
    assert not below[241:].any()
    assert long_beard(beard, MESH).max() == 0


def test_a_bearded_source_goes_on_in_what_hangs_over_the_jaw():
    labels = np.full((256, 256), LABELS.index("background"), np.uint8)
    painted = rectangle(slice(180, 236), slice(80, 176))
    labels[painted] = LABELS.index("hair")
    labels[FACE > 0] = LABELS.index("skin")
    pixels = picture(painted, spread=25)
    beardless, bearded = (repaint_mask(labels, MESH, "face", LABELS, pixels, bearded) for bearded in (False, True))
    below, chin = beardless - bearded, int(np.nonzero(FACE[:, 128])[0].max())
    assert (below[chin + 1 : 235, 128] == 1).all()
    assert below[FACE > 0].max() == 0
    assert below.min() == 0
    assert has_beard(labels, MESH, pixels)
    assert not has_beard(labels, MESH, picture(rectangle(slice(230, 256), slice(80, 176)), spread=25))
    # The source's head brings its own beard.
    heads = (repaint_mask(labels, MESH, "head", LABELS, pixels, bearded) for bearded in (False, True))
    np.testing.assert_array_equal(*heads)


def test_a_swap_leaves_a_beard_below_the_jaw_to_a_bearded_source(embedded_swapper: FaceSwapper):
    rgb = load_photo(IMAGES / "p001_portrait.jpg").rgb.copy()
    [face] = embedded_swapper.survey(rgb).faces
    chin, mouth, left, right = face.landmarks[[152, 17, 172, 397]]
    height, width = (chin - mouth)[1], (right - left)[0]
    rows, columns = np.mgrid[: rgb.shape[0], : rgb.shape[1]]
    beard = (rows > mouth[1] + height / 4) & (rows < chin[1] + height / 4) & (np.abs(columns - chin[0]) < width / 2)
    rgb[beard] = np.clip(np.random.default_rng(0).normal(45, 25, (int(beard.sum()), 1)), 0, 255)
    below = beard & (rows > chin[1] + 4) & (np.abs(columns - chin[0]) < width / 5)
    changed = []
    for source in ("p005_portrait.jpg", "p006_portrait.jpg"):
        swapped = np.asarray(embedded_swapper.swap(IMAGES / source, rgb, watermark=False).image)
        changed.append((swapped != rgb).any(axis=2)[below].mean())
    bearded, beardless = changed
    assert bearded < 0.05
    assert beardless > 0.3


@pytest.mark.parametrize(
    ("rows", "spread"),
    [pytest.param(slice(180, 236), 0, id="shadow"), pytest.param(slice(230, 256), 25, id="scarf")],
)
def test_shadows_and_scarves_are_none(rows: slice, spread: float):
    assert find(rectangle(rows, slice(80, 176)), spread) is None


def test_a_long_beard_is_whole_with_its_mouth_and_nothing_above():
    painted = rectangle(slice(165, 256), slice(60, 196))
    mouth = region_mask_from_landmarks(MESH, 256, "mouth") > 0
    kept = long_beard(find(painted & ~mouth, spread=3, hair=BLACK_HAIR), MESH) > 0
    assert kept[mouth].all()
    inside = cv2.erode(painted.astype(np.uint8), np.ones((9, 9))) > 0
    assert kept[inside].mean() > 0.98
    assert not kept[: int(MESH[2, 1]) - 1].any()  # the base of the nose


def test_a_swap_leaves_a_long_beard_as_it_is(embedded_swapper: FaceSwapper):
    photo = load_photo(IMAGES / "p005_selfie.jpg").rgb
    result = embedded_swapper.swap(IMAGES / "p010_portrait.jpg", IMAGES / "p005_selfie.jpg")
    [face] = embedded_swapper.survey(photo).faces
    changed = np.abs(np.asarray(result.image).astype(int) - photo).max(axis=2) > 0
    x, y = np.round(face.landmarks).astype(int).T
    below = np.array([13, 14, 17, 152])  # lips and chin
    assert not changed[y[below], x[below]].any()
    assert changed[y[[5, 6, 468, 473]], x[[5, 6, 468, 473]]].all()  # nose and eyes
    asked_for = embedded_swapper.swap(IMAGES / "p010_portrait.jpg", IMAGES / "p005_selfie.jpg", region="mouth")
    assert np.asarray(asked_for.mask)[y[below[:2]], x[below[:2]]].all()
