"""Drawing synthetic people: what is refused, what is kept, and that a second run goes on where the first stopped."""

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter, ImageOps

SCRIPT = Path(__file__).parents[2] / "train" / "make_synthetic_faces.py"
IMAGES = Path(__file__).parents[2] / "examples" / "images"
sys.path.insert(0, str(SCRIPT.parent))
import make_synthetic_faces as synthetic  # noqa: E402  # pyright: ignore[reportMissingImports]


@pytest.fixture(scope="module")
def inspector(tmp_path_factory: pytest.TempPathFactory) -> synthetic.FaceInspector:
    probe = tmp_path_factory.mktemp("probe") / "probe.json"
    weights = np.linspace(-0.5, 0.5, 128).tolist()
    probe.write_text(json.dumps({"w": weights, "b": -20.0, "threshold": 0.0}))  # takes everybody for an adult
    return synthetic.FaceInspector(probe)


def picture(name: str) -> Image.Image:
    return Image.open(IMAGES / name).convert("RGB").resize((256, 256))


class PortraitGenerator:
    """Stands in for the network, which is 40 MB and no part of the project: every seed is an example picture."""

    names = ("p010_portrait.jpg", "p005_portrait.jpg", "group.jpg", "p006_portrait.jpg")

    def __init__(self):
        self.drawn: list[int] = []

    def look(self, seed: int, look: int) -> tuple[np.ndarray, float]:
        return np.array([[seed, look]]), 0.2 if look else 0.0

    def draw(self, style: np.ndarray) -> np.ndarray:
        seed, look = style[0]
        self.drawn.append(int(seed))
        shown = picture(self.names[seed % len(self.names)])
        if look:  # the mirror image, and for every other person one that is blurred beyond use
            shown = shown.filter(ImageFilter.GaussianBlur(12)) if seed % 2 else ImageOps.mirror(shown)
        return np.asarray(shown)


@pytest.mark.parametrize("seeds", [("900000", "1"), ("899999", "2"), ("950000", "10"), ("-1", "1")])
def test_reserved_seeds_are_refused_before_anything_is_read(seeds: tuple[str, str], tmp_path: Path):
    with pytest.raises(ValueError, match="reserved for evaluation"):
        synthetic.main(["--seeds", *seeds, "--adult_probe", "probe.json", "--output_dir", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_the_last_seed_before_the_reserved_ones_is_allowed():
    synthetic.check_seeds(899_999, 1)


def test_altered_and_missing_network_files_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"MappingNetwork\.xml is missing"):
        synthetic.check_network_files(tmp_path)
    (tmp_path / "MappingNetwork.xml").write_text("<net/>")
    with pytest.raises(ValueError, match="another SHA-256"):
        synthetic.check_network_files(tmp_path)


def test_an_adult_portrait_is_measured(inspector: synthetic.FaceInspector):
    verdict = inspector.inspect(np.asarray(picture("p010_portrait.jpg")))
    assert not isinstance(verdict, str)
    measured, embedding = verdict
    assert measured["score"] > 0.9
    assert abs(measured["yaw"]) < 15
    assert measured["minor_score"] < inspector.threshold
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5)


def test_several_faces_none_and_blur_are_rejected(inspector: synthetic.FaceInspector):
    group = np.asarray(Image.open(IMAGES / "group.jpg").convert("RGB"))
    assert inspector.inspect(group) == "4 faces"
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert inspector.inspect(noise) == "0 faces"
    blurred = picture("p010_portrait.jpg").filter(ImageFilter.GaussianBlur(6))
    assert inspector.inspect(np.asarray(blurred)) == "blurred"


def test_the_probe_is_the_linear_one_of_its_file(inspector: synthetic.FaceInspector):
    assert inspector.minor_score(np.zeros(128)) == inspector.bias
    first = np.eye(128)[0]
    assert inspector.minor_score(first) == pytest.approx(4 * inspector.weights[0] + inspector.bias)


def test_whom_the_probe_takes_for_a_minor_is_rejected(inspector: synthetic.FaceInspector, monkeypatch):
    monkeypatch.setattr(inspector, "threshold", -100.0)
    assert inspector.inspect(np.asarray(picture("p010_portrait.jpg"))) == "may be a minor"


def test_a_person_with_looks(inspector: synthetic.FaceInspector):
    kept, rejected = synthetic.draw_person(PortraitGenerator(), inspector, seed=4, looks=2)
    assert [measurement.file for measurement, _ in kept] == ["4.jpg", "4_1.jpg"]
    assert [measurement.strength for measurement, _ in kept] == [0.0, 0.2]
    assert kept[0][0].identity_cosine == pytest.approx(1.0, abs=1e-5)
    assert 0.8 < kept[1][0].identity_cosine < 0.9999
    assert rejected == []


def test_a_rejected_look_is_dropped_and_a_rejected_person_is_not_drawn_again(inspector: synthetic.FaceInspector):
    generator = PortraitGenerator()
    kept, rejected = synthetic.draw_person(generator, inspector, seed=1, looks=2)
    assert [measurement.file for measurement, _ in kept] == ["1.jpg"]
    assert rejected == [(1, "blurred")]
    kept, rejected = synthetic.draw_person(generator, inspector, seed=2, looks=2)
    assert kept == []
    assert [look for look, _ in rejected] == [0]
    assert generator.drawn == [1, 1, 2]


def run(folder: Path, inspector: synthetic.FaceInspector, count: int, monkeypatch) -> PortraitGenerator:
    generator = PortraitGenerator()
    monkeypatch.setattr(synthetic, "FaceGenerator", lambda *_: generator)
    monkeypatch.setattr(synthetic, "FaceInspector", lambda _: inspector)
    arguments = ["--seeds", "0", str(count), "--resolution", "64", "--network_dir", str(folder)]
    synthetic.main([*arguments, "--adult_probe", "probe.json", "--output_dir", str(folder)])
    return generator


def test_a_second_run_draws_only_what_is_new(inspector: synthetic.FaceInspector, tmp_path: Path, monkeypatch):
    assert run(tmp_path, inspector, 3, monkeypatch).drawn == [0, 1, 2]
    before = (tmp_path / "manifest.csv").read_text()
    assert run(tmp_path, inspector, 4, monkeypatch).drawn == [3]
    rows = list(csv.DictReader((tmp_path / "manifest.csv").open()))
    assert [(row["file"], row["seed"], row["look"]) for row in rows] == [
        ("0.jpg", "0", "0"),
        ("1.jpg", "1", "0"),
        ("3.jpg", "3", "0"),
    ]
    assert (tmp_path / "manifest.csv").read_text().startswith(before)
    assert [row["seed"] for row in csv.DictReader((tmp_path / "rejected.csv").open())] == ["2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.jpg", "1.jpg", "3.jpg", "manifest.csv", "rejected.csv"
    ]  # fmt: skip
    with Image.open(tmp_path / "3.jpg") as kept:
        assert (kept.format, kept.size) == ("JPEG", (64, 64))


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("random_face") is None, reason="random-face is not installed")
def test_the_real_network_draws_the_same_face_for_the_same_seed():
    generator = synthetic.FaceGenerator(synthetic.find_network_dir())
    style, strength = generator.look(200_000, 1)
    again, _ = generator.look(200_000, 1)
    assert np.array_equal(style, again)
    assert 0.10 <= strength <= 0.25
    first = generator.style(200_000)
    moved = np.linalg.norm(style - first)
    assert 0 < moved < np.linalg.norm(generator.style(200_001) - first)
    face = generator.draw(first)
    assert face.shape == (1024, 1024, 3)
    assert np.array_equal(face, generator.draw(first))
