"""Drawing synthetic people: what is refused, what is kept, and that a second run goes on where the first stopped."""

import csv
import importlib.util
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageFilter, ImageOps

from faceswap_diffusion.photos.loading import load_photo

SCRIPT = Path(__file__).parents[2] / "tools" / "make_synthetic_faces.py"
IMAGES = Path(__file__).parents[2] / "examples" / "images"
sys.path.insert(0, str(SCRIPT.parent))
import make_synthetic_faces as synthetic  # noqa: E402  # pyright: ignore[reportMissingImports]


@pytest.fixture(scope="module")
def inspector() -> synthetic.FaceInspector:
    return synthetic.FaceInspector()


def picture(name: str) -> Image.Image:
    return Image.open(IMAGES / name).convert("RGB").resize((256, 256))


class PortraitGenerator:
    """Stands in for the network, which is 40 MB and no part of the project: every seed is an example picture."""

    names = ("p005_portrait.jpg", "p008_selfie.jpg", "group.jpg", "p005_selfie.jpg")

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


@pytest.mark.parametrize("seeds", [("900000", "1"), ("899999", "2"), ("950000", "10")])
def test_reserved_seeds_are_refused_before_anything_is_read(seeds: tuple[str, str], tmp_path: Path, capsys):
    with pytest.raises(SystemExit, match="2"):
        synthetic.main(["--seeds", *seeds, "--output_dir", str(tmp_path / "out")])
    assert "reserved for evaluation" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_last_seed_before_the_reserved_ones_is_allowed():
    synthetic.check_seeds(899_999, 1)


def test_altered_and_missing_network_files_are_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"MappingNetwork\.xml is missing"):
        synthetic.check_network_files(tmp_path)
    (tmp_path / "MappingNetwork.xml").write_text("<net/>")
    with pytest.raises(ValueError, match="another SHA-256"):
        synthetic.check_network_files(tmp_path)


def test_settings_come_from_a_file_and_flags_win(tmp_path: Path):
    config = tmp_path / "faces.yaml"
    config.write_text(yaml.safe_dump({"seeds": [200_000, 50], "looks": 2, "output_dir": "faces"}))
    args = synthetic.drawing_parser().parse_args(["--config", str(config), "--looks", "3"])
    assert (args.seeds, args.looks, args.output_dir) == ([200_000, 50], 3, Path("faces"))
    assert 1 <= args.num_workers <= (os.cpu_count() or 1)


def test_an_adult_portrait_is_measured(inspector: synthetic.FaceInspector):
    verdict = inspector.inspect(np.asarray(picture("p005_portrait.jpg")))
    assert not isinstance(verdict, str)
    measured, embedding = verdict
    assert measured["score"] > 0.9
    assert abs(measured["yaw"]) < 15
    assert 35 < measured["age"] < 55
    assert np.linalg.norm(embedding) == pytest.approx(1.0, abs=1e-5)


def test_several_faces_none_and_blur_are_rejected(inspector: synthetic.FaceInspector):
    group = np.asarray(Image.open(IMAGES / "group.jpg").convert("RGB"))
    assert inspector.inspect(group) == "4 faces"
    noise = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    assert inspector.inspect(noise) == "0 faces"
    blurred = picture("p005_portrait.jpg").filter(ImageFilter.GaussianBlur(6))
    assert inspector.inspect(np.asarray(blurred)) == "blurred"


def test_who_may_look_too_young_is_rejected(inspector: synthetic.FaceInspector, monkeypatch):
    portrait = np.asarray(picture("p005_portrait.jpg"))
    monkeypatch.setattr(synthetic, "MIN_AGE", 60.0)
    assert inspector.inspect(portrait) == "may be a minor"


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


def arguments(folder: Path, count: int) -> list[str]:
    settings = ["--looks", "2", "--resolution", "64", "--network_dir", str(folder)]
    return ["--seeds", "0", str(count), *settings, "--output_dir", str(folder)]


def run(folder: Path, count: int, monkeypatch) -> PortraitGenerator:
    generator = PortraitGenerator()
    monkeypatch.setattr(synthetic, "FaceGenerator", lambda _: generator)
    monkeypatch.setattr(synthetic, "NETWORK_SHA256", {})
    synthetic.main([*arguments(folder, count), "--num_workers", "1"])
    return generator


def test_a_second_run_draws_only_what_is_new(tmp_path: Path, monkeypatch):
    assert run(tmp_path, 3, monkeypatch).drawn == [0, 0, 1, 1, 2]
    before = (tmp_path / "manifest.csv").read_text()
    assert run(tmp_path, 4, monkeypatch).drawn == [3, 3]
    rows = list(csv.DictReader((tmp_path / "manifest.csv").open()))
    assert [(row["file"], row["seed"], row["look"]) for row in rows] == [
        ("0.jpg", "0", "0"),
        ("0_1.jpg", "0", "1"),
        ("1.jpg", "1", "0"),
        ("3.jpg", "3", "0"),
    ]
    assert all(float(row["age"]) >= synthetic.MIN_AGE for row in rows)
    assert (tmp_path / "manifest.csv").read_text().startswith(before)
    rejected = list(csv.DictReader((tmp_path / "rejected.csv").open()))
    assert [(row["seed"], row["look"]) for row in rejected] == [("1", "1"), ("2", "0"), ("3", "1")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0.jpg", "0_1.jpg", "1.jpg", "3.jpg", "manifest.csv", "rejected.csv"
    ]  # fmt: skip
    with Image.open(tmp_path / "3.jpg") as kept:
        assert (kept.format, kept.size) == ("JPEG", (64, 64))


def test_a_folder_with_other_columns_is_refused(tmp_path: Path):
    (tmp_path / "manifest.csv").write_text("file,seed,minor_score\n0.jpg,0,-3.5\n")
    with pytest.raises(ValueError, match="other columns"):
        synthetic.Records(tmp_path)


class PortraitsOfSeeds(synthetic.PeopleOfSeeds):
    """In any process, draws the example pictures."""

    generator = PortraitGenerator()


def run_in_two_processes(folder: Path, count: int, monkeypatch) -> None:
    monkeypatch.setattr(synthetic, "PeopleOfSeeds", PortraitsOfSeeds)
    monkeypatch.setattr(synthetic, "NETWORK_SHA256", {})
    synthetic.main([*arguments(folder, count), "--num_workers", "2"])


def test_several_processes_write_what_one_writes(tmp_path: Path, forked_processes, monkeypatch):
    alone, together = tmp_path / "alone", tmp_path / "together"
    run(alone, 9, monkeypatch)
    run_in_two_processes(together, 9, monkeypatch)
    assert PortraitsOfSeeds.generator.drawn == []  # in this process
    names = sorted(path.name for path in alone.iterdir())
    assert len(names) == 12
    assert sorted(path.name for path in together.iterdir()) == names
    for name in names:
        if name.endswith(".jpg"):  # signatures differ
            np.testing.assert_array_equal(load_photo(alone / name).rgb, load_photo(together / name).rgb)
        else:
            assert (alone / name).read_bytes() == (together / name).read_bytes()


def test_an_error_in_one_of_several_processes_is_one_line(tmp_path: Path, forked_processes, monkeypatch, capsys):
    (tmp_path / "0.jpg").mkdir()  # where a picture has to go
    with pytest.raises(SystemExit, match="2"):
        run_in_two_processes(tmp_path, 3, monkeypatch)
    assert capsys.readouterr().err.splitlines()[-1].startswith("make_synthetic_faces.py: cannot save ")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("random_face") is None, reason="random-face is not installed")
def test_the_real_network_draws_the_same_face_for_the_same_seed():
    folder = synthetic.find_network_dir()
    synthetic.check_network_files(folder)
    generator = synthetic.FaceGenerator(folder)
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
