"""Plain skin with a crease on a cheek: what is to be added to take it off, and what is no crease."""

from dataclasses import replace

import cv2
import numpy as np

from faceswap_diffusion.faces.texture import resize_texture, to_lab, to_rgb
from faceswap_diffusion.faces.texture_folds import find_folds
from tests.plain_skin import SIDE, skin_texture

CREASE = np.s_[130:180, 84:90]  # from a nostril down past the mouth


def darkened(where: tuple[slice, slice], by: float) -> tuple[np.ndarray, np.ndarray]:
    """L* of skin that is darker in a place, and the same without its folds."""
    texture = skin_texture()
    lab = to_lab(texture.pixels)
    lab[where][..., 0] -= by
    folds = find_folds(replace(texture, pixels=to_rgb(lab))).folds
    return lab[..., 0], lab[..., 0] + (0 if folds is None else folds[..., 0])


def test_plain_skin_has_no_folds():
    assert find_folds(skin_texture()).folds is None


def test_a_crease_is_taken_off_but_for_a_trace():
    before, after = darkened(CREASE, 16)
    skin = before[100, 86]
    assert before[150, 86] < skin - 15
    # Less than half is left: 4 from smooth skin, which the crease itself makes 3 darker, and some of its fine lines.
    assert skin - 8 < after[150, 86] < skin - 4
    np.testing.assert_allclose(after[:, 150:], before[:, 150:], atol=0.1)


def test_a_freckle_stays():
    before, after = darkened(np.s_[150:152, 86:88], 6)
    np.testing.assert_allclose(after, before, atol=0.8)


def test_a_beard_stays():
    before, after = darkened(np.s_[150:225, 60:196], 45)
    np.testing.assert_allclose(after[165:210, 75:180], before[165:210, 75:180], atol=0.1)


def test_the_forehead_is_none_of_a_smiles():
    before, after = darkened(np.s_[40:44, 90:160], 16)
    np.testing.assert_allclose(after, before, atol=0.1)


def test_a_finer_texture_has_the_same_folds():
    texture = skin_texture()
    lab = to_lab(texture.pixels)
    lab[CREASE][..., 0] -= 16
    texture = replace(texture, pixels=to_rgb(lab))
    folds = find_folds(texture).folds
    finer = find_folds(resize_texture(texture, 2 * SIDE)).folds
    finer = cv2.resize(finer, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    np.testing.assert_allclose(finer[135:175, 85:89], folds[135:175, 85:89], atol=1.0)
