"""The command from end to end, with a pipeline of tiny networks on real photos."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faceswap_diffusion.evaluation import quick
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def london(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("london")
    people = {"001": ("p001_portrait", "p001_park"), "005": ("p005_portrait", "p005_selfie")}
    rows = ["file,path,identity"]
    for identity, names in people.items():
        for expression, name in zip(("neutral", "smiling"), names, strict=True):
            (folder / f"{name}.jpg").write_bytes((IMAGES / f"{name}.jpg").read_bytes())
            rows.append(f"{name}.jpg,inst/{expression}_front/{identity}.jpg,{identity}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


def test_measures_ablates_prints_and_writes(checkpoint: Path, london: Path, tmp_path: Path, capsys):
    arguments = ["--checkpoint", str(checkpoint), "--london", str(london), "--ablate", "1", "--device", "cpu"]
    output = ["--output", str(tmp_path / "report.json"), "--pictures", str(tmp_path / "sheets")]
    assert quick.main([*arguments, *output]) == 0
    printed = capsys.readouterr().out
    assert "| swaps " in printed
    assert "w600k: not available" in printed
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["sets"]["london"]["pairs"] == 2
    assert report["settings"]["steps"] == 2
    assert [pair["source"] for pair in report["pairs"]["london"]] == ["p001_portrait.jpg", "p005_portrait.jpg"]
    assert [pair["target"] for pair in report["pairs"]["london"]] == ["p005_selfie.jpg", "p001_park.jpg"]
    assert list(report["ablation"]["london"]) == ["none", *quick.CONDITIONS]
    assert report["ablation"]["london"]["none"]["pairs"] == 1
    assert sorted(path.name for path in (tmp_path / "sheets").iterdir()) == [
        "london_01.jpg",
        *(f"london_without_{name}_01.jpg" for name in sorted(quick.CONDITIONS)),
    ]
    figures = report["ablation"]["london"]
    changed = [figures[name]["sharpness_photo"] != figures["none"]["sharpness_photo"] for name in quick.CONDITIONS]
    assert all(changed)  # removing a condition reached the network


def test_the_same_call_gives_the_same_figures(checkpoint: Path, london: Path):
    arguments = ["--checkpoint", str(checkpoint), "--london", str(london), "--limit", "1", "--device", "cpu"]
    first, second = (quick.evaluate(quick.build_parser().parse_args(arguments)) for _ in range(2))
    for figures in (first["sets"]["london"], second["sets"]["london"]):
        assert figures.pop("seconds") > 0
    assert json.dumps(first["sets"]) == json.dumps(second["sets"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to measure on"),
        (["--london", "/nowhere"], "expected a folder"),
        (["--london", str(IMAGES)], "manifest.csv is missing"),
        (["--recognizer", "x=/nowhere.onnx", "--london", str(IMAGES)], "no such recogniser"),
    ],
)
def test_user_errors_are_one_line_and_exit_code_2(arguments: list[str], message: str, capsys):
    assert quick.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.slow
def test_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "faceswap_diffusion.evaluation.quick", "--help"], capture_output=True)
    assert done.returncode == 0
    assert b"--london" in done.stdout
