"""Faces behind glasses, whose frames are drawn by hand on the mesh of a photo's face."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap_diffusion.masks.outlines import brow_masks, eye_masks
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.source_identity import take_texture
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.swapping.uncovering import uncover
from tests.tiny import tiny_pipeline

WOMAN = Path(__file__).parents[2] / "examples" / "images" / "p001_portrait.jpg"
SIZE = 256


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return load_photo(WOMAN).rgb


@pytest.fixture(scope="module")
def bare(rgb: np.ndarray) -> AlignedFace:
    swapper = FaceSwapper(tiny_pipeline(crop_size=SIZE, hidden_fill="reference"), occlusion="off")
    (face,) = swapper.analyzer.analyze(rgb)
    return replace(swapper.align(rgb, face), covered=np.zeros((SIZE, SIZE), np.float32))


def with_frames(face: AlignedFace, height: float, line: int = 3) -> AlignedFace:
    """Rectangular frames as wide as the brows, whose upper edge is at a share of the way from eyes to brows."""
    frames = np.zeros((SIZE, SIZE), np.float32)
    for eye, brow in zip(eye_masks(face.landmarks, SIZE), brow_masks(face.landmarks, SIZE), strict=True):
        left, _, width, _ = cv2.boundingRect(brow.astype(np.uint8))
        middle_of_eye, middle_of_brow = (np.nonzero(part)[0].mean() for part in (eye, brow))
        top = round(middle_of_eye + height * (middle_of_brow - middle_of_eye))
        cv2.rectangle(frames, (left, top), (left + width, round(middle_of_eye) + 25), 1, line)
    return replace(face, covered=frames)


def test_frames_between_eyes_and_brows_are_holes_and_leave_both(rgb: np.ndarray, bare: AlignedFace):
    framed = with_frames(bare, 0.5)
    shown = uncover(framed)
    assert shown.has_lenses
    assert shown.hidden_brows == (False, False)
    assert (shown.visible > 0.99).all()
    eyes = np.maximum(*eye_masks(bare.landmarks, SIZE)) > 0
    lines = (framed.covered > 0) & ~(np.maximum(*eye_masks(bare.landmarks, SIZE, 6)) > 0)
    assert (shown.framed[lines] > 0.99).all()
    assert (shown.framed[eyes] == 0).all()
    assert shown.framed.sum() < 2.5 * framed.covered.sum()
    usual, holed = (take_texture(rgb, face) for face in (bare, framed))
    assert holed.shown == pytest.approx(usual.shown, abs=0.02)
    assert 0.02 < ((usual.confidence > 0) & (holed.confidence == 0)).mean() < 0.2


@pytest.mark.parametrize(("height", "brows", "seen"), [(0.0, False, False), (0.5, False, True), (1.0, True, True)])
def test_what_a_frame_crosses_is_not_taken(bare: AlignedFace, height: float, brows: bool, seen: bool):
    shown = uncover(with_frames(bare, height, line=5))
    eyes = np.maximum(*eye_masks(bare.landmarks, SIZE)) > 0
    assert shown.hidden_brows == (brows, brows)
    assert (shown.visible[eyes] > 0.99).all() == seen
    assert (shown.visible[eyes] == 0).all() != seen


def test_a_face_with_nothing_in_front_of_it_is_seen_as_it_is(bare: AlignedFace):
    for face in (bare, replace(bare, covered=None)):
        shown = uncover(face)
        np.testing.assert_array_equal(shown.mended, bare.pixels)
        assert (shown.visible == 1).all()
        assert not shown.framed.any()
        assert not shown.thin.any()
        assert (shown.hidden_brows, shown.has_lenses) == ((False, False), False)
