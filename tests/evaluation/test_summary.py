"""Aggregation over a set, with three swaps whose figures are known: a good one, a leaked one, an undetected one."""

from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.evaluation.measurement import FaceFeatures, SwapMeasurement
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.evaluation.summary import summarize

NAN = float("nan")


def face(embedding: list[float], pose: tuple[float, float, float] = (0, 0, 0), smile: float = 0.0) -> FaceFeatures:
    vector = np.array(embedding)
    return FaceFeatures({"net": vector}, np.array(pose, float), np.full(52, smile), np.zeros((68, 2)))


PEOPLE = [face([1, 0, 0]), face([0, 1, 0]), face([0, 0, 1])]


def measurement(person: int, swap: FaceFeatures | None, *ratios: float) -> SwapMeasurement:
    following = (person + 1) % 3
    target = face(PEOPLE[following].embeddings["net"].tolist(), (10, 0, 0), smile=1.0)
    pair = Pair(Path("source.jpg"), Path("target.jpg"), person, following)
    return SwapMeasurement(pair, swap, PEOPLE[person], target, *ratios)


def test_summarize_by_hand():
    good = measurement(0, face([0.8, 0.6, 0], (10, 3, 4), smile=0.9), 0.5, 0.25, 1.0, 1.0)
    leaked = measurement(1, face([0, 0.6, 0.8], (21, 0, 0), smile=0.2), 1.5, 0.75, 2.0, 3.0)
    undetected = measurement(2, None, NAN, NAN, NAN, NAN)
    summary = summarize([good, leaked, undetected], PEOPLE, ["net"])
    assert summary == pytest.approx(
        {
            "pairs": 3,
            "detected": 2 / 3,
            "net_closer_to_source": 1 / 3,
            "net_retrieves_source": 1 / 3,
            "net_retrieves_target": 1 / 3,
            "net_cosine_to_source": (0.8 + 0.6) / 2,
            "net_cosine_to_target": (0.6 + 0.8) / 2,
            "net_cosine_source_to_target": 0.0,
            "pose_error": (5 + 11) / 2,
            "pose_within_goal": 1 / 3,
            "yaw_error": (0 + 11) / 2,
            "pose_distance_source_to_target": 10.0,
            "expression_closer_to_target": 1 / 3,
            "sharpness_crop": 1.0,
            "sharpness_photo": 0.5,
            "border_step": 1.5,
            "seconds": 2.0,
        }
    )


def test_a_set_of_failures_has_rates_of_zero_and_no_means():
    summary = summarize([measurement(0, None, 1.0, 1.0, 1.0, 1.0)], PEOPLE, ["net"])
    rates = ("detected", "net_closer_to_source", "net_retrieves_source", "net_retrieves_target", "pose_within_goal")
    assert [summary[name] for name in (*rates, "expression_closer_to_target")] == [0.0] * 6
    assert np.isnan([summary["net_cosine_to_source"], summary["pose_error"]]).all()
