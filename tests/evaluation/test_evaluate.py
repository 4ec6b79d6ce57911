"""The command from end to end: tiny networks and real photos, resumed, shared, refused, and read by others."""

import csv
import importlib.util
import json
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from accelerate import PartialState, debug_launcher
from PIL import Image

from faceswap_diffusion.cli import evaluate
from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.evaluation import command, occluded
from faceswap_diffusion.evaluation.ablation import CONDITIONS
from faceswap_diffusion.evaluation.description import Networks
from faceswap_diffusion.evaluation.methods import CheckpointMethod, UnchangedTarget, WarpedSource
from faceswap_diffusion.evaluation.protocol import PROTOCOLS, listed_pairs
from faceswap_diffusion.evaluation.references import pasted_source
from faceswap_diffusion.evaluation.report import build_report
from faceswap_diffusion.evaluation.run import Evaluation
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.metrics.recognizers import SFaceRecognizer
from faceswap_diffusion.provenance.save import read_provenance
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
NAMES = ("p001_portrait", "p005_portrait", "p010_portrait", "p006_portrait")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four portraits of 192 px and three pairs of them."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in NAMES:
        Image.open(IMAGES / f"{name}.jpg").convert("RGB").resize((192, 192)).save(folder / f"{name}.png")
    pairs = [f"{NAMES[index]}.png,{NAMES[index + 1]}.png" for index in range(3)]
    (folder / "pairs.csv").write_text("\n".join(["source,target", *pairs]) + "\n")
    return folder


@pytest.fixture(autouse=True)
def no_fetched_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("FACESWAP_DIFFUSION_MODELS", str(tmp_path / "models"))


@pytest.fixture(scope="module")
def arguments(checkpoint: Path, pictures: Path) -> list[str]:
    options = ["--checkpoint", str(checkpoint), "--pairs", str(pictures / "pairs.csv"), "--device", "cpu"]
    return ["evaluate", *options, "--ablate", "2", "--seeds", "0", "1"]


@pytest.fixture(scope="module")
def finished(arguments: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report, whose run was interrupted by nothing."""
    folder = tmp_path_factory.mktemp("report") / "whole"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FACESWAP_DIFFUSION_MODELS", str(folder.parent / "models"))
        assert cli.main([*arguments, "-o", str(folder)]) == 0
    return folder


def without_times(report: dict) -> dict:
    """A report's figures, but for what differs from run to run."""
    return {
        set_name: {
            method: {key: figure for key, figure in figures.items() if key not in ("seconds", "peak_memory_mb")}
            for method, figures in of_set["methods"].items()
        }
        for set_name, of_set in report["sets"].items()
    }


def test_the_report_holds_everything(finished: Path, checkpoint: Path):
    report = json.loads((finished / "report.json").read_text())
    methods = report["sets"]["pairs"]["methods"]
    assert list(methods) == ["tiny", "the target itself", "source pasted", "classical warp"]
    assert report["sets"]["pairs"]["pairs"] == 3
    assert report["sets"]["pairs"]["reference_count"] == 3
    facts = report["methods"]["tiny"]
    assert facts.items() >= {"steps": 2, "device": "cpu", "dtype": "float32", "conditioned_by": "sface"}.items()
    assert re.fullmatch(r"[0-9a-f]{16}", facts["weights"])
    assert methods["the target itself"]["sface_cosine_to_target"]["value"] == pytest.approx(1, abs=1e-5)
    assert methods["the target itself"]["landmark_error"]["value"] == pytest.approx(0, abs=1e-9)
    assert methods["the target itself"]["background_identical"]["value"] == 1.0
    assert methods["source pasted"]["sface_closer_to_source"]["value"] == 1.0
    assert methods["tiny"]["unpainted_identical"] | {"seed_spread": 0.0} == {
        "value": 1.0, "low": 1.0, "high": 1.0, "count": 6, "seed_spread": 0.0
    }  # fmt: skip
    assert methods["tiny"]["seconds"]["value"] > 0
    assert methods["the target itself"]["seconds"]["value"] is None
    rows = report["ablation"]["pairs"]["tiny"]
    assert list(rows) == ["none", *CONDITIONS]
    assert rows["none"]["pairs"]["value"] == 2
    # Removing a condition reached the network.
    assert all(rows[name]["sharpness_photo"] != rows["none"]["sharpness_photo"] for name in CONDITIONS)
    assert report["unavailable"]["w600k"].startswith("not available: faceswap-diffusion fetch w600k_mbf")
    assert "fid" not in methods["tiny"]


def test_the_same_is_there_as_csv_markdown_and_card(finished: Path):
    report = json.loads((finished / "report.json").read_text())
    with (finished / "figures.csv").open() as file:
        figures = {(row["method"], row["figure"]): row for row in csv.DictReader(file)}
    pose = report["sets"]["pairs"]["methods"]["source pasted"]["pose_error"]
    row = figures["source pasted", "pose_error"]
    assert [float(row[name]) for name in ("value", "low", "high", "count")] == pytest.approx(list(pose.values())[:4])
    with (finished / "swaps.csv").open() as file:
        swaps = list(csv.DictReader(file))
    assert len(swaps) == 3 * (2 + 1 + 1 + 1)
    pasted = [float(swap["pose_error"]) for swap in swaps if swap["method"] == "source pasted"]
    assert np.mean(pasted) == pytest.approx(pose["value"], rel=1e-4)
    text = (finished / "report.md").read_text()
    assert "sface: closer to the source than to the target (conditions the model, not held out)" in text
    assert "lpips: not available: faceswap-diffusion fetch lpips_vgg16" in text
    assert "| identity " in text
    card = (finished / "model_card.md").read_text()
    assert card.startswith("## Evaluation\n")
    assert "sface: nearest face of the gallery is the source (top-1)" in card
    assert "steps 2" in card


def test_the_page_needs_nothing_else(finished: Path):
    page = (finished / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:image/jpeg;base64,)', page)
    assert page.count('<img src="data:image/jpeg;base64,') == 3 + 3  # the worst and the random ones
    assert page.count("<svg") >= 6
    assert "p001_portrait.png into p005_portrait.png" in page
    for word in ("Apache-2.0", "MIT", "torch", "not available: faceswap-diffusion fetch inception", "made with AI"):
        assert word in page


def test_pictures_of_swaps_say_that_they_were_made_with_ai(finished: Path):
    swap = read_provenance(finished / "pictures" / "pairs" / "tiny" / "seed_0" / "000000.jpg")
    assert swap is not None
    assert "compositeWithTrainedAlgorithmicMedia" in swap["digital_source_type"]
    assert read_provenance(finished / "pictures" / "pairs" / "source_pasted" / "seed_0" / "000000.jpg") is None


def test_a_killed_run_goes_on_and_ends_the_same(arguments: list[str], finished: Path, capsys):
    before = json.loads((finished / "report.json").read_text())
    removed = finished / "records" / "pairs" / "source_pasted" / "seed_0" / "000001.npz"
    removed.unlink()
    (finished / "report.json").unlink()
    kept = {path: path.stat().st_mtime_ns for path in (finished / "records").rglob("*.npz")}
    assert len(kept) == 4 + 3 * 5 + 2 * 4 - 1  # pictures, swaps of methods and seeds, swaps without a condition
    assert cli.main([*arguments, "-o", str(finished)]) == 0
    assert "| swaps " in capsys.readouterr().out
    assert removed.is_file()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert without_times(json.loads((finished / "report.json").read_text())) == without_times(before)


@pytest.fixture(scope="module")
def looks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tar file of two photos of one person."""
    folder = tmp_path_factory.mktemp("looks")
    names = ("p010_portrait", "p010_selfie")
    for name in names:
        Image.open(IMAGES / f"{name}.jpg").convert("RGB").resize((192, 192)).save(folder / f"{name}.png")
    (folder / "manifest.csv").write_text("\n".join(["file,identity", *(f"{name}.png,P10" for name in names)]) + "\n")
    with tarfile.open(folder.with_suffix(".tar"), "w") as archive:
        archive.add(folder, arcname=".")
    return folder.with_suffix(".tar")


def test_one_person_at_several_numbers_of_steps(checkpoint: Path, looks: Path, tmp_path: Path, capsys):
    options = ["evaluate", "--checkpoint", str(checkpoint), "--protocol", f"self={looks}", "--device", "cpu"]
    options += ["--compare-steps", "3", "1", "2", "-o", str(tmp_path / "report")]
    assert cli.main(options) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    methods, steps = report["sets"]["self"]["methods"], report["steps"]["self"]["tiny"]
    assert report["sets"]["self"] | {"methods": 0} == {
        "pairs": 2, "one_person": True, "reference": "the targets", "reference_count": 2, "methods": 0
    }  # fmt: skip
    assert methods["the target itself"]["face_psnr"]["value"] == 100.0
    assert 5 < methods["tiny"]["face_psnr"]["value"] < methods["classical warp"]["face_psnr"]["value"] < 40
    assert not any(key.endswith(("_closer_to_source", "_retrieves_target")) for key in methods["tiny"])
    assert list(steps) == ["1", "2", "3"]
    # The tiny checkpoint takes two steps by itself; another number gives other pictures.
    assert steps["2"]["face_psnr"] == methods["tiny"]["face_psnr"]
    assert len({figures["face_psnr"]["value"] for figures in steps.values()}) == 3
    assert "### tiny: by the number of denoising steps, set self, 2 pairs" in printed
    assert "| self: classical warp " in printed.split("## Evaluation")[1]  # the card comes last
    assert "tiny: by the number of denoising steps" in (tmp_path / "report" / "report.html").read_text()
    records = tmp_path / "report" / "records" / "self" / "tiny_at_3_steps" / "seed_0"
    kept = {path: path.stat().st_mtime_ns for path in records.parents[1].rglob("*.npz")}
    (records / "000001.npz").unlink()
    assert cli.main([*options, "--json"]) == 0
    assert (records / "000001.npz").is_file()
    assert {path for path, time in kept.items() if path.stat().st_mtime_ns != time} == {records / "000001.npz"}
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "report" / "report.json").read_text())
    assert printed["steps"]["self"]["tiny"]["3"]["face_psnr"] == steps["3"]["face_psnr"]


@pytest.mark.slow
def test_what_is_in_front_of_faces_is_measured_by_its_kind(checkpoint: Path, pictures: Path, tmp_path: Path, capsys):
    rows = [f"{pictures}/{name}.png,{name}" for name in NAMES]
    (tmp_path / "manifest.csv").write_text("\n".join(["file,identity", *rows]) + "\n")
    options = [
        "--checkpoint",
        str(checkpoint),
        "--protocol",
        f"occluded={tmp_path}",
        "--limit",
        "2",
        "--device",
        "cpu",
    ]
    assert cli.main(["evaluate", *options, "-o", str(tmp_path / "report")]) == 0
    printed = capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    kinds = report["kinds"]["occluded"]
    assert list(kinds["tiny"]) == ["eyeglasses", "sunglasses"]
    assert kinds["the target itself"]["sunglasses"]["occluder_unchanged"] == 1.0
    assert kinds["source pasted"]["sunglasses"]["occluder_unchanged"] < 0.3
    assert kinds["tiny"]["sunglasses"]["occluder_unchanged"] > 0.8
    assert 0.5 < kinds["tiny"]["sunglasses"]["occlusion_iou"] <= 1
    assert "### tiny: by what is in front of the faces, set occluded" in printed
    assert "things in front of the face left as they were" in printed.split("## Evaluation")[1]
    assert "tiny: by what is in front of the faces" in (tmp_path / "report" / "report.html").read_text()


def test_other_settings_need_another_folder(arguments: list[str], finished: Path, capsys):
    assert cli.main([*arguments, "--steps", "1", "-o", str(finished)]) == 2
    assert "was started with other settings (methods): choose another folder" in capsys.readouterr().err


def evaluate_in_process(folder: str, checkpoint: str, pairs: str, batch_size: int) -> None:
    """What each process of a launch does, with features that stand for Inception's."""
    networks = Networks(
        MeshFaceAnalyzer(),
        {"sface": SFaceRecognizer()},
        None,
        {"inception": lambda images: np.stack([image.mean((0, 1)) for image in images])},
    )
    methods = [
        CheckpointMethod(checkpoint, "cpu"),
        UnchangedTarget(),
        WarpedSource("source pasted", pasted_source, networks.analyzer),
    ]
    state = PartialState(cpu=True)
    evaluation = Evaluation(Path(folder), networks, methods, [0], batch_size, state)
    sets = [listed_pairs(Path(pairs))]
    ablated = evaluation.measure(sets)
    if state.is_main_process:
        report, _ = build_report(evaluation, sets, ablated, 0)
        (Path(folder) / "report.json").write_text(json.dumps(report))


@pytest.mark.slow
def test_three_processes_and_other_batches_give_the_same(checkpoint: Path, pictures: Path, tmp_path: Path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    common = (str(checkpoint), str(pictures / "pairs.csv"))
    PartialState._reset_state()
    evaluate_in_process(str(alone), *common, 1)
    PartialState._reset_state()
    debug_launcher(evaluate_in_process, (str(shared), *common, 3), num_processes=3)
    PartialState._reset_state()
    reports = [json.loads((folder / "report.json").read_text()) for folder in (alone, shared)]
    assert [report["settings"]["processes"] for report in reports] == [1, 3]
    figures = [without_times(report)["pairs"] for report in reports]
    assert "fid" in figures[0]["tiny"]
    assert list(figures[0]) == list(figures[1])
    for method, expected in figures[0].items():
        for key, figure in expected.items():
            assert figures[1][method][key] == pytest.approx(figure, abs=1e-3), (method, key)


def test_another_methods_finished_swaps_are_scored(pictures: Path, tmp_path: Path):
    swaps = tmp_path / "theirs"
    swaps.mkdir()
    for index in range(3):
        Image.open(pictures / f"{NAMES[index + 1]}.png").save(swaps / f"{NAMES[index]}-{NAMES[index + 1]}.png")
    options = ["--outputs", str(swaps), "--pairs", str(pictures / "pairs.csv"), "--limit", "2", "-o"]
    assert command.main([*options, str(tmp_path / "report")]) == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    methods = report["sets"]["pairs"]["methods"]
    assert list(methods) == ["theirs", "the target itself", "source pasted", "classical warp"]
    for key, figure in methods["the target itself"].items():
        if key not in ("seconds", "peak_memory_mb"):
            assert methods["theirs"][key] == figure
    assert report["methods"]["theirs"] == {"outputs": str(swaps)}


def test_pictures_of_a_set_can_be_left_out_and_a_picture_without_a_face_is_a_failure(pictures: Path, tmp_path: Path):
    Image.new("RGB", (64, 64), "green").save(tmp_path / "wall.png")
    (tmp_path / "mine.csv").write_text(f"source,target\n{pictures}/{NAMES[0]}.png,wall.png\n")
    options = ["--outputs", str(tmp_path / "theirs"), "--pairs", str(tmp_path / "mine.csv")]
    (tmp_path / "theirs").mkdir()
    Image.new("RGB", (64, 64), "green").save(tmp_path / "theirs" / "1.png")
    assert command.main([*options, "--without-pictures", "mine", "-o", str(tmp_path / "report")]) == 0
    methods = json.loads((tmp_path / "report" / "report.json").read_text())["sets"]["mine"]["methods"]
    assert methods["source pasted"]["detected"]["value"] == 0.0
    assert methods["theirs"]["sface_top5_source"]["value"] == 0.0
    assert "data:image" not in (tmp_path / "report" / "report.html").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to measure on"),
        (["--protocol", "london=/nowhere"], "expected a folder"),
        (["--protocol", f"london={IMAGES}"], "manifest.csv is missing"),
        (["--pairs", "/nowhere.csv"], "/nowhere.csv is missing"),
        (["--protocol", f"casia={IMAGES}"], "pairs.txt is missing"),
    ],
)
def test_user_errors_are_one_line_and_leave_nothing(options: list[str], message: str, tmp_path: Path, capsys):
    assert cli.main(["evaluate", *options, "-o", str(tmp_path / "report")]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("module", command.EXTRA_MODULES)
def test_without_its_extra_it_says_at_once_how_to_install_it(module: str, tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(evaluate, "import_diffusers", lambda args: pytest.fail("slow imports came first"))
    options = ["--pairs", "/nowhere.csv", "-o", str(tmp_path / "report")]
    told = f"error: evaluate needs {module}: pip install 'faceswap-diffusion[eval]'\n"
    assert cli.main(["evaluate", *options]) == 2
    assert capsys.readouterr().err == f"faceswap-diffusion: {told}"
    assert command.main(options) == 2
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("name", ["memory", "evaluation.measurement"])
def test_it_can_be_imported_where_there_is_no_resource_module(name: str, monkeypatch):
    """As on Windows."""
    monkeypatch.setitem(sys.modules, "resource", None)
    spec = importlib.util.find_spec(f"faceswap_diffusion.{name}")
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(importlib.util.module_from_spec(spec))


@pytest.mark.parametrize("protocol", ["paris=x", "london", "london="])
def test_unknown_protocols_are_usage_errors(protocol: str, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["evaluate", "--protocol", protocol, "-o", str(tmp_path)])
    assert end.value.code == 2
    assert "write NAME=PATH, NAME one of london, turned" in capsys.readouterr().err
    assert set(command.PROTOCOL_NAMES) == {*PROTOCOLS, occluded.NAME, "video"}


def test_every_unusable_picture_is_listed(pictures: Path, tmp_path: Path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes((pictures / f"{NAMES[0]}.png").read_bytes()[:500])
    (tmp_path / "empty.png").touch()
    rows = [f"broken.png,{pictures}/{NAMES[1]}.png", f"empty.png,{pictures}/{NAMES[2]}.png"]
    (tmp_path / "mine.csv").write_text("\n".join(["source,target", *rows]) + "\n")
    swaps = tmp_path / "swaps"
    swaps.mkdir()
    Image.new("RGB", (192, 192)).save(swaps / "1.png")
    Image.new("RGB", (100, 50)).save(swaps / "2.png")
    options = ["evaluate", "--outputs", str(swaps), "--pairs", str(tmp_path / "mine.csv")]
    assert cli.main([*options, "-o", str(tmp_path / "report")]) == 2
    error = capsys.readouterr().err
    assert "3 pictures cannot be used" in error
    for problem in (f"cannot read {broken}", "empty.png", "2.png has 100 x 50 pixels, its target 192 x 192"):
        assert problem in error
    assert error.count("\n") == 1
    (swaps / "2.png").unlink()
    assert cli.main([*options, "-o", str(tmp_path / "report")]) == 2
    assert "has 1 pictures, but the set 'mine' has 2 pairs" in capsys.readouterr().err


@pytest.mark.slow
def test_it_runs_as_a_module():
    done = subprocess.run([sys.executable, "-m", "faceswap_diffusion.evaluation", "--help"], capture_output=True)
    assert done.returncode == 0
    assert b"--protocol NAME=PATH" in done.stdout
