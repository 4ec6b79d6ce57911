"""Swaps whose figures are known beforehand: the target itself, blurred, tinted, without a face, changed outside."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.evaluation.description import FaceMask, Networks, measure_face
from faceswap_diffusion.evaluation.measurement import add_face_distances, measure_swaps, preview, recorded_mask
from faceswap_diffusion.evaluation.methods import Swap
from faceswap_diffusion.evaluation.records import Record
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.metrics import faces as metrics
from faceswap_diffusion.metrics.recognizers import SFaceRecognizer

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def channel_means(images) -> np.ndarray:
    """The features (B, 3) that stand for Inception's: small, and known."""
    return np.stack([image.mean((0, 1)) for image in images])


def mean_distance(first, second) -> np.ndarray:
    """A distance (B,) of pictures that stands for LPIPS."""
    return np.array([np.abs(x.astype(float) - y).mean() for x, y in zip(first, second, strict=True)])


@pytest.fixture(scope="module")
def networks() -> Networks:
    return Networks(
        MeshFaceAnalyzer(), {"sface": SFaceRecognizer()}, None, {"inception": channel_means}, mean_distance
    )


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    return np.asarray(Image.open(IMAGES / "p010_selfie.jpg").convert("RGB").resize((320, 384)))


@pytest.fixture(scope="module")
def known(networks: Networks, target: np.ndarray) -> Record:
    return {name: np.asarray(value) for name, value in measure_face(networks, target).items()}


def test_a_face_is_described(known: Record, target: np.ndarray):
    assert known["detected"]
    shapes = {"sface": (128,), "sface_masked": (128,), "head_pose": (3,), "blendshapes": (52,), "light": (9,)}
    assert {name: known[name].shape for name in shapes} == shapes
    assert known["sface"] @ known["sface_masked"] < 0.95  # hair and neck were hidden
    mask = recorded_mask(known)
    assert mask is not None
    inside = mask.on_photo(target.shape)
    brow, nose, chin = (np.round(known["landmarks68"][index]).astype(int) for index in (19, 30, 8))
    assert inside[brow[1], brow[0]]
    assert inside[nose[1], nose[0]]
    assert not inside[:5].any()
    assert not inside[chin[1] + 25 :].any()
    assert mask.on_photo(target.shape, margin=6).sum() > inside.sum() * 1.05


def test_what_is_in_front_of_a_face_counts_by_its_share(networks: Networks, target: np.ndarray, known: Record):
    assert known["covered"] < 0.01
    points = known["landmarks68"]
    glasses = target.copy()
    for eye in (points[36:42], points[42:48]):
        centre, width = eye.mean(axis=0), np.ptp(points[:, 0]) / 5
        cv2.circle(glasses, np.round(centre).astype(int).tolist(), round(width), (5, 5, 5), -1, cv2.LINE_AA)
    covered = measure_face(networks, glasses)["covered"]
    assert 0.08 < covered < 0.35  # two discs of a radius of a fifth of the face's width


def test_a_mask_grows_by_pixels_of_the_crop():
    mask = np.zeros((256, 256), bool)
    mask[100:150, 100:150] = True
    shifted = FaceMask(mask, np.array([[1.0, 0, 10], [0, 1.0, 0]]))  # the photo's x is the crop's less 10
    assert np.argwhere(shifted.on_photo((256, 256))).min(0).tolist() == [100, 90]
    assert np.argwhere(shifted.on_photo((256, 256), margin=6)).min(0).tolist() == [94, 84]


def test_what_a_masked_recogniser_may_see_is_given(networks: Networks, target: np.ndarray, known: Record):
    mask = recorded_mask(known)
    everything = FaceMask(np.ones((256, 256), bool), known["matrix"])
    whole, given = measure_face(networks, target, everything), measure_face(networks, target, mask)
    assert whole["sface"] @ whole["sface_masked"] == pytest.approx(1, abs=0.02)
    np.testing.assert_allclose(given["sface_masked"], known["sface_masked"], atol=1e-6)


def test_the_unchanged_target_is_perfect(networks: Networks, target: np.ndarray, known: Record):
    (record,) = measure_swaps(networks, [Swap(target, seconds=1.25)], [target], [known], 128)
    assert (record["sharpness_crop"], record["sharpness_photo"], record["border_step"]) == (1.0, 1.0, 1.0)
    assert (record["background_psnr"], record["background_ssim"], record["background_lpips"]) == (100.0, 1.0, 0.0)
    assert record["background_identical"]
    assert "unpainted_identical" not in record  # the method told no mask
    assert record["seconds"] == 1.25
    assert record["peak_memory_mb"] > 50
    np.testing.assert_allclose(record["inception"], target.mean((0, 1)))
    np.testing.assert_allclose(record["sface"], known["sface"], atol=1e-6)


def test_a_blurred_and_tinted_face_is_less_sharp_and_has_a_border(networks, target: np.ndarray, known: Record):
    hull = cv2.convexHull(known["landmarks68"].astype(np.float32)).astype(np.int32)
    mask = np.zeros(target.shape[:2], np.float32)
    cv2.fillConvexPoly(mask, hull, 1.0)
    painted = target.copy()
    tinted = cv2.GaussianBlur(target, (0, 0), 3) + np.array([0.0, 60.0, 0.0])
    painted[mask > 0] = np.clip(tinted, 0, 255)[mask > 0]
    conditions = {"landmarks": known["landmarks68"]}
    (record,) = measure_swaps(networks, [Swap(painted, mask, 1.0, conditions)], [target], [known], 128)
    assert record["sharpness_photo"] < 0.3
    assert record["border_step"] > 1.5
    assert record["background_identical"]
    assert record["unpainted_identical"]
    np.testing.assert_array_equal(record["condition_landmarks"], known["landmarks68"])


def test_changes_behind_the_face_are_found_in_a_batch(networks, target: np.ndarray, known: Record):
    painted = target.copy()
    painted[:20] = 255 - painted[:20]
    clean, spoilt = measure_swaps(networks, [Swap(target), Swap(painted)], [target] * 2, [known] * 2, 128)
    assert clean["background_identical"]
    assert clean["background_lpips"] == 0.0
    assert not spoilt["background_identical"]
    assert spoilt["background_psnr"] < 30
    assert spoilt["background_ssim"] < 0.99


def test_a_swap_without_a_face_is_measured_all_the_same(networks, target: np.ndarray, known: Record):
    noise = np.random.default_rng(0).integers(0, 256, target.shape, np.uint8)
    (record,) = measure_swaps(networks, [Swap(noise)], [target], [known], 128)
    assert not record["detected"]
    assert "sface" not in record
    assert record["sharpness_crop"] > 1
    assert record["background_psnr"] < 15


def test_a_target_without_a_face_has_no_mask(networks, target: np.ndarray):
    (record,) = measure_swaps(networks, [Swap(target)], [target], [{"detected": np.array(False)}], 128)
    assert record["detected"]
    assert "background_psnr" not in record


def test_a_face_is_compared_with_the_truth_inside_the_targets_face_alone():
    """A face of 64 x 64 pixels on a grey crop: brighter by 10, spoilt outside, equal, and a target without a face."""
    inside = np.zeros((256, 256), bool)
    inside[96:160, 96:160] = True
    known: Record = {
        "detected": np.array(True), "mask": inside, "matrix": np.array([[1.0, 0, 0], [0, 1, 0]])
    }  # fmt: skip
    target = np.full((256, 256, 3), 100, np.uint8)
    spoilt = target.copy()
    spoilt[:64] = 0
    swaps = [Swap(target + np.uint8(10)), Swap(spoilt), Swap(target), Swap(target)]
    records: list[dict] = [{}, {}, {}, {}]
    add_face_distances(
        mean_distance, records, swaps, [target] * 4, [known, known, known, {"detected": np.array(False)}]
    )
    assert records[0]["face_psnr"] == pytest.approx(28.1308, abs=1e-4)  # 20 log10(255 / 10)
    assert records[0]["face_lpips"] == pytest.approx(10 * 64**2 / 256**2)  # outside, both pictures are the target
    assert [records[index]["face_psnr"] for index in (1, 2)] == [metrics.IDENTICAL_PSNR] * 2
    assert [records[index]["face_lpips"] for index in (1, 2)] == [0, 0]
    assert records[3] == {}
    without: list[dict] = [{}]
    add_face_distances(None, without, swaps[:1], [target], [known])
    assert without[0].keys() == {"face_psnr"}


def test_the_face_is_found_where_the_target_shows_it():
    """The crop is the photo turned upside down by half a turn and moved: so is what is compared."""
    inside = np.zeros((256, 256), bool)
    inside[:128] = True
    known: Record = {"detected": np.array(True), "mask": inside, "matrix": np.array([[-1.0, 0, 255], [0, -1, 255]])}
    target = np.full((256, 256, 3), 100, np.uint8)
    upper, lower = target.copy(), target.copy()
    upper[:100] += 10
    lower[156:] += 10
    records: list[dict] = [{}, {}]
    add_face_distances(None, records, [Swap(upper), Swap(lower)], [target] * 2, [known] * 2)
    assert records[0]["face_psnr"] == metrics.IDENTICAL_PSNR
    assert records[1]["face_psnr"] == pytest.approx(28.1308 + 10 * np.log10(128 / 100), abs=1e-4)


def test_previews_are_small():
    assert preview(np.zeros((400, 300, 3), np.uint8)).shape == (192, 144, 3)
