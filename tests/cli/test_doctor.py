"""What the doctor finds in this very installation, and in ones with something wrong."""

import json
from importlib import metadata
from pathlib import Path

import cv2
import pytest
import torch

from faceswap_diffusion.cli import doctor
from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.weights.registry import MODEL_FILES


def test_it_describes_this_installation(capsys):
    status = cli.main(["doctor", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert report["versions"]["torch"] == metadata.version("torch")
    assert report["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert report["dtype"] == ("float16" if torch.cuda.is_available() else "float32")
    assert "math" in report["attention"]
    assert report["opencv"]
    assert cv2.__version__ in " ".join(report["opencv"].values())
    assert {model["name"] for model in report["models"]} == set(MODEL_FILES)
    for model in report["models"]:
        assert model["status"] == ("ok" if MODEL_FILES[model["name"]].shipped else "not shipped")
        assert model["licence"]
    assert {"age_probe", "face_parser"} < {checkpoint["name"] for checkpoint in report["checkpoints"]}
    assert all(0 < checkpoint["bytes"] < 48_000_000 for checkpoint in report["checkpoints"])
    assert status == (1 if report["problems"] else 0)
    assert len(report["problems"]) == (0 if len(report["opencv"]) == 1 else 1)


def test_the_text_names_every_model_with_its_licence(capsys):
    cli.main(["doctor"])
    text = capsys.readouterr().out
    for entry in MODEL_FILES.values():
        (line,) = (line for line in text.splitlines() if entry.filename in line and entry.name in line.split())
        assert entry.licence in line
    assert "scaled_dot_product_attention" in text
    problems = [line for line in text.splitlines() if line.startswith("PROBLEM: ")]
    assert problems == [f"PROBLEM: {problem}" for problem in doctor.examine()["problems"] or ["none"]]


def install(site: Path, name: str, version: str) -> None:
    """Lays down the metadata of a distribution, as pip does."""
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")


def test_two_opencv_distributions_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    install(tmp_path, "opencv-contrib-python", "4.9.0.80")
    install(tmp_path, "opencv-python", "4.10.0.84")
    monkeypatch.syspath_prepend(tmp_path)
    assert cli.main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "opencv-contrib-python 4.9.0.80" in text
    (problem,) = (line for line in text.splitlines() if line.startswith("PROBLEM"))
    assert "share one cv2 folder" in problem
    assert "opencv-python, opencv-contrib-python" in problem


def test_no_opencv_at_all_is_a_problem():
    assert doctor._opencv_problems({}) == ["no OpenCV distribution is installed: pip install opencv-python-headless"]
    assert doctor._opencv_problems({"opencv-python-headless": "5.0"}) == []


def test_licences_of_checkpoints_come_from_their_cards(tmp_path: Path):
    card = tmp_path / "README.md"
    assert doctor._card_licence(card) == "see its card"
    card.write_text("---\nlibrary_name: diffusers\nlicense: apache-2.0\n---\n# A model\n")
    assert doctor._card_licence(card) == "apache-2.0"


def test_kernels_depend_on_the_device():
    assert doctor.attention_kernels("cpu") == ["cpu flash", "math"]
    assert doctor.attention_kernels("mps") == ["math"]
    assert set(doctor.attention_kernels("cuda")) <= {"flash", "memory-efficient", "cudnn", "math"}
    torch.backends.cuda.enable_flash_sdp(False)
    try:
        assert "flash" not in doctor.attention_kernels("cuda")
    finally:
        torch.backends.cuda.enable_flash_sdp(True)
    assert "flash" in doctor.attention_kernels("cuda")
