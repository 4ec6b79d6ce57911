"""Swaps whose quality is known beforehand: the target itself, and the source itself."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.evaluation.measurement import FaceMeasurer, failed_swap, measure_swap
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.evaluation.recognizers import SFaceRecognizer
from faceswap_diffusion.evaluation.summary import summarize
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.swapper import SwapResult

IMAGES = Path(__file__).parents[2] / "examples" / "images"
SOURCE, TARGET = IMAGES / "p005_portrait.jpg", IMAGES / "p010_selfie.jpg"


@pytest.fixture(scope="module")
def measurer() -> FaceMeasurer:
    return FaceMeasurer({"sface": SFaceRecognizer()}, MeshFaceAnalyzer())


def swap_result(measurer: FaceMeasurer, pixels: np.ndarray) -> SwapResult:
    """What a swapper that painted `pixels` over the target's face would have returned."""
    target = np.asarray(Image.open(TARGET).convert("RGB"))
    faces = measurer.analyzer.analyze(target)
    mask = np.zeros(target.shape[:2], np.uint8)
    hull = cv2.convexHull(faces[0].landmarks68.astype(np.float32)).astype(np.int32)
    cv2.fillConvexPoly(mask, hull, 255)
    return SwapResult(Image.fromarray(pixels), faces, [0], Image.fromarray(mask), {}, {})


def test_the_unchanged_target_has_ratios_of_one_and_is_the_target(measurer: FaceMeasurer):
    pair = Pair(SOURCE, TARGET, 0, 1)
    pixels = np.asarray(Image.open(TARGET).convert("RGB"))
    measured = measure_swap(measurer, pair, swap_result(measurer, pixels), 128, seconds=1.25)
    assert (measured.sharpness_crop, measured.sharpness_photo, measured.border_step) == (1.0, 1.0, 1.0)
    assert measured.seconds == 1.25
    gallery = [measurer.measure_file(SOURCE), measurer.measure_file(TARGET)]
    summary = summarize([measured], gallery, ["sface"])
    assert summary["detected"] == 1.0
    assert summary["sface_cosine_to_target"] == pytest.approx(1.0)
    assert (summary["sface_closer_to_source"], summary["sface_retrieves_target"]) == (0.0, 1.0)
    assert (summary["pose_error"], summary["expression_closer_to_target"]) == (0.0, 1.0)


def test_a_blurred_and_tinted_face_is_less_sharp_and_has_a_border(measurer: FaceMeasurer):
    pixels = np.asarray(Image.open(TARGET).convert("RGB"))
    inside = np.asarray(swap_result(measurer, pixels).mask) > 127
    painted = pixels.copy()
    painted[inside] = np.clip(cv2.GaussianBlur(pixels, (0, 0), 3)[inside] + np.array([0.0, 40.0, 0.0]), 0, 255)
    measured = measure_swap(measurer, Pair(SOURCE, TARGET, 0, 1), swap_result(measurer, painted), 128, 1.0)
    assert measured.sharpness_photo < 0.3
    assert measured.border_step > 1.5


def test_a_swap_without_a_face_counts_as_not_detected(measurer: FaceMeasurer):
    pixels = np.asarray(Image.open(TARGET).convert("RGB"))
    noise = np.random.default_rng(0).integers(0, 256, pixels.shape, np.uint8)
    measured = measure_swap(measurer, Pair(SOURCE, TARGET, 0, 1), swap_result(measurer, noise), 128, 1.0)
    assert measured.swap is None
    assert measured.source is not None
    assert measured.sharpness_crop > 1


def test_a_pair_that_could_not_be_swapped_keeps_what_is_known(measurer: FaceMeasurer):
    measured = failed_swap(measurer, Pair(SOURCE, TARGET, 0, 1))
    assert measured.swap is None
    assert measured.target is not None
    assert np.isnan([measured.sharpness_crop, measured.sharpness_photo, measured.border_step, measured.seconds]).all()
