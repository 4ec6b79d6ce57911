"""Aggregation over a set whose figures are known: a good swap, a leaked one, an undetected one; and of 4,000."""

import os
import threading
from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.evaluation.protocol import Pair, PairSet
from faceswap_diffusion.evaluation.records import Records
from faceswap_diffusion.evaluation.summary import Photos, SetSummary

PEOPLE = np.eye(3)
STATUS = Path("/proc/self/status")


def face(embedding, pose=(0.0, 0.0, 0.0), smile: float = 0.0, **more) -> dict:
    return {
        "detected": True,
        "net": embedding,
        "net_masked": np.roll(embedding, 1),
        "head_pose": pose,
        "blendshapes": np.full(52, smile),
        "skin": [50.0, 10 * smile, 0.0],
        **more,
    }


def small_set(folder: Path) -> tuple[PairSet, Photos]:
    """Three people: person i becomes the source of person i + 1, whose target turns by 10 degrees and smiles."""
    sources = [Path(f"source_{person}") for person in range(3)]
    targets = [Path(f"target_{person}") for person in range(3)]
    photos = Photos(Records(folder / "photos"), {path: index for index, path in enumerate([*sources, *targets])})
    for person in range(3):
        photos.records.write(person, face(PEOPLE[person]))
        photos.records.write(3 + person, face(PEOPLE[person], (10, 0, 0), 1.0, inception=[person, 0.0]))
    pairs = [Pair(sources[i], targets[(i + 1) % 3], i, (i + 1) % 3) for i in range(3)]
    return PairSet("mine", pairs, sources), photos


@pytest.fixture
def swaps(tmp_path: Path) -> Records:
    records = Records(tmp_path / "swaps")
    measured = {"seconds": 1.0, "peak_memory_mb": 100.0, "sharpness_crop": 0.5, "background_identical": True}
    records.write(0, face([0.8, 0.6, 0], (10, 3, 4), 0.9, inception=[5.0, 0.0], **measured))
    measured = {"seconds": 3.0, "peak_memory_mb": 300.0, "sharpness_crop": 1.5, "background_identical": False}
    records.write(1, face([0, 0.6, 0.8], (21, 0, 0), 0.2, inception=[7.0, 0.0], **measured))
    records.write(2, {"detected": False, "peak_memory_mb": 200.0})
    return records


def test_every_figure_by_hand(tmp_path: Path, swaps: Records):
    pair_set, photos = small_set(tmp_path)
    with SetSummary(pair_set, photos, ["net"], ["inception"]) as summary:
        values = summary.values([swaps])
        figures = summary.figures(values) | summary.distribution_figures([swaps])
    expected = {
        "pairs": 3,
        "detected": 2 / 3,
        "net_closer_to_source": 1 / 3,
        "net_retrieves_source": 1 / 3,
        "net_top5_source": 2 / 3,  # who is not detected is not among the five of a gallery of three
        "net_retrieves_target": 1 / 3,
        "net_cosine_to_source": (0.8 + 0.6) / 2,
        "net_cosine_to_target": (0.6 + 0.8) / 2,
        "net_cosine_source_to_target": 0.0,
        "net_masked_closer_to_source": 1 / 3,
        "pose_error": (5 + 11) / 2,
        "pose_within_goal": 1 / 3,
        "yaw_error": (0 + 11) / 2,
        "pose_distance_source_to_target": 10.0,
        "expression_closer_to_target": 1 / 3,
        "expression_error": (0.1 + 0.8) / 2,
        "gaze_error": (0.1 + 0.8) / 2,
        "skin_tone_to_target": (1 + 8) / 2,
        "skin_tone_to_source": (9 + 2) / 2,
        "sharpness_crop": 1.0,
        "background_identical": 1 / 2,
        "seconds": 2.0,
        "peak_memory_mb": 300.0,
        # Features 5 and 7 against 0, 1 and 2: means 6 and 1, variances 2 and 1.
        "fid": 25 + 2 + 1 - 2 * 2**0.5,
    }
    assert {name: figures[name].value for name in expected} == pytest.approx(expected)
    assert {figures[name].count for name in ("pose_error", "seconds", "fid", "kid")} == {2}
    assert figures["net_closer_to_source"].count == 3
    assert figures["net_closer_to_source"].low == 0.0
    assert figures["net_closer_to_source"].high == 1.0


def test_a_set_of_failures_has_rates_of_zero_and_no_means(tmp_path: Path):
    pair_set, photos = small_set(tmp_path)
    failures = Records(tmp_path / "failures")
    for index in range(3):
        failures.write(index, {"detected": False, "peak_memory_mb": 1.0})
    with SetSummary(pair_set, photos, ["net"], ["inception"]) as summary:
        figures = summary.figures(summary.values([failures])) | summary.distribution_figures([failures])
    rates = ("closer_to_source", "retrieves_source", "top5_source", "retrieves_target")
    names = ["detected", "pose_within_goal", "expression_closer_to_target", *(f"net_{rate}" for rate in rates)]
    assert [figures[name].value for name in names] == [0.0] * 7
    assert np.isnan([figures["net_cosine_to_source"].value, figures["pose_error"].value]).all()
    assert "fid" not in figures


def test_of_one_person_nobody_asks_whom_the_swap_is_closer_to(tmp_path: Path, swaps: Records):
    pair_set, photos = small_set(tmp_path)
    pairs = [Pair(pair.source, pair.target, pair.source_person, pair.source_person) for pair in pair_set.pairs]
    mixed = PairSet("mixed", [*pairs[:1], *pair_set.pairs[1:]], pair_set.gallery)
    alike = PairSet("self", pairs, pair_set.gallery)
    swaps.write(2, face([0.0, 0.0, 1.0], face_psnr=30.0, face_lpips=0.25))
    values = {}
    for of in (mixed, alike):
        with SetSummary(of, photos, ["net"], []) as summary:
            values[of.name] = summary.values([swaps])
    np.testing.assert_array_equal(values["mixed"]["net_closer_to_source"], [[np.nan, 0, 1]])
    np.testing.assert_array_equal(values["mixed"]["net_retrieves_target"], [[np.nan, 1, 0]])
    assert not {"net_closer_to_source", "net_retrieves_target"} & values["self"].keys()
    np.testing.assert_array_equal(values["self"]["net_retrieves_source"], [[1, 0, 1]])
    np.testing.assert_array_equal(values["self"]["face_psnr"], [[np.nan, np.nan, 30.0]])
    assert values["self"]["face_lpips"][0, 2] == 0.25


def test_seeds_are_rows(tmp_path: Path, swaps: Records):
    pair_set, photos = small_set(tmp_path)
    with SetSummary(pair_set, photos, ["net"], []) as summary:
        values = summary.values([swaps, swaps], count=2)
        figures = summary.figures(values)
    assert values["detected"].tolist() == [[1, 1], [1, 1]]
    assert figures["pairs"].value == 2
    assert figures["pose_error"].seed_spread == 0.0


class PeakMemory:
    """Greatest anonymous memory of this process during a `with` block, less that at its start, in bytes."""

    def __enter__(self) -> "PeakMemory":
        self.start, self.most, self.ended = self.now(), 0, threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        while not self.ended.wait(0.05):
            self.most = max(self.most, self.now() - self.start)

    @staticmethod
    def now() -> int:
        (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("RssAnon"))
        return int(line.split()[1]) * 1024


def aggregate(folder: Path, num_pairs: int, dim: int = 768) -> int:
    """Peak bytes that aggregating so many swaps of random features takes."""
    generator = np.random.default_rng(0)
    people = [Path(f"person_{index}") for index in range(num_pairs)]
    photos = Photos(Records(folder / "photos"), {path: index for index, path in enumerate(people)})
    swaps = Records(folder / "swaps")
    for records in (photos.records, swaps):
        for index in range(100):
            features = generator.normal(size=dim).astype(np.float32)
            records.write(index, {"detected": True, "net": features[:128], "inception": features})
        for index in range(100, num_pairs):
            os.link(records.path(index % 100), records.path(index))
    pairs = [Pair(people[index], people[index - 1], index, (index - 1) % num_pairs) for index in range(num_pairs)]
    with SetSummary(PairSet("random", pairs, people), photos, ["net"], ["inception"]) as summary, PeakMemory() as peak:
        values = summary.values([swaps])
        figures = summary.distribution_figures([swaps])
    assert values["net_cosine_to_source"].shape == (1, num_pairs)
    assert figures["fid"].count == num_pairs
    return peak.most


@pytest.mark.slow
@pytest.mark.skipif(not STATUS.is_file(), reason="reads Linux's count of anonymous memory")
def test_memory_is_flat_up_to_four_thousand_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("faceswap_diffusion.metrics.frechet.NUM_SUBSETS", 2)
    monkeypatch.setattr("faceswap_diffusion.metrics.frechet.SUBSET_SIZE", 500)
    few, many = (aggregate(tmp_path / str(count), count) for count in (500, 4000))
    both_sets_features = 2 * 4000 * 768 * 4
    assert many - few < both_sets_features / 2
