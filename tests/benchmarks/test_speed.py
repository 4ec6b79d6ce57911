"""The benchmark of inference, at toy size: every case has its row, with a measurement or a reason."""

from pathlib import Path

import pytest
import torch

from benchmarks import speed
from benchmarks.speed import CASES, Measured, Row, Settings
from faceswap_diffusion.conversion.reface import build_random_pipeline
from tests.parity.reduced import REDUCED
from tests.tiny import CROP_SIZE, tiny_pipeline

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_pipeline().save_pretrained(folder)
    return folder


def settings_of(*arguments: object) -> Settings:
    return speed.read_settings(speed.build_parser().parse_args([*map(str, arguments)]))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_ratios_are_to_the_first_case_that_was_measured():
    rows = [
        Row("xformers", "float16", "needs CUDA, and this is cpu"),
        Row("float32", "float32", Measured(seconds=2.0, first_call=7.0, peak_memory=4_000_000_000)),
        Row("compile", "float16", "CompilerError: a | b"),
        Row("float16", "float16", Measured(seconds=0.5, first_call=1.25, peak_memory=1_000_000_000)),
    ]
    lines = "\n".join(speed.table_lines(rows)).splitlines()
    columns = len(cells(lines[0]))
    assert [len(cells(line)) for line in lines] == [columns] * 6
    assert cells(lines[2])[2:] == ["not on this machine: needs CUDA, and this is cpu", "", "", "", ""]
    assert cells(lines[3]) == ["SDPA", "float32", "2", "1.00 x", "7 s", "4.00 GB", "1.00 x"]
    assert cells(lines[4])[2] == "not on this machine: CompilerError: a / b"
    assert cells(lines[5]) == ["SDPA", "float16", "0.5", "0.25 x", "1.25 s", "1.00 GB", "0.25 x"]


def test_without_cuda_its_cases_have_a_reason_and_the_others_none():
    reasons = {case: speed.obstacle(case, CPU) for case in CASES}
    for case in ("xformers", "model_offload", "sequential_offload"):
        assert reasons.pop(case) == "needs CUDA, and this is cpu"
    assert reasons == dict.fromkeys(("float32", "channels_last", "float16", "bfloat16", "compile"))


@pytest.mark.skipif("xformers" in speed.installed_versions(["xformers"]), reason="xformers is installed")
def test_an_extra_that_is_missing_is_named():
    assert speed.obstacle("xformers", torch.device("cuda")) == "xformers is not installed (pip install '.[xformers]')"


def test_cases_that_cannot_be_measured_are_rows_and_start_no_process(checkpoint: Path):
    cases = ["sequential_offload", "xformers"]
    rows = list(speed.measure_all(settings_of("--model", checkpoint, "--device", "cpu"), cases))
    assert [(row.case, row.dtype) for row in rows] == [(case, "float32") for case in cases]
    assert all(isinstance(row.outcome, str) for row in rows)


def test_a_checkpoint_with_references_starts_from_one():
    pipeline = tiny_pipeline(hidden_fill="reference", default_num_inference_steps=5, default_strength=0.6)
    settings = Settings("own", "cpu", "float32", CROP_SIZE, 5, 1.0, 1, 1)
    speed.time_call(pipeline, settings, speed.made_up_faces(CROP_SIZE, pipeline))
    assert pipeline.num_timesteps == 3  # of five


@pytest.mark.parametrize("case", ["float32", "bfloat16"])
def test_a_swap_of_the_tiny_model_takes_time(checkpoint: Path, case: str):
    settings = settings_of("--model", checkpoint, "--device", "cpu", "--runs", 2, "--num_images", 2)
    measured = speed.measure(settings, case)
    assert measured.seconds > 0
    assert measured.first_call > 0
    assert measured.peak_memory >= 0  # this process has done more before


def test_a_case_is_set_up_in_its_precision(checkpoint: Path):
    settings = settings_of("--model", checkpoint, "--device", "cpu", "--dtype", "bfloat16")
    for case, dtype in {"float32": torch.float32, "compile": torch.bfloat16}.items():
        pipeline = speed.build_pipeline(settings, case)
        assert {part.dtype for part in (pipeline.unet, pipeline.vae, pipeline.image_encoder)} == {dtype}
        assert (pipeline.unet._compiled_call_impl is not None) == (case == "compile")


def test_settings_are_the_models_own_unless_told_otherwise(checkpoint: Path):
    assert settings_of("--model", "full", "--device", "cpu") == Settings("full", "cpu", "float32", 512, 50, 3.5, 1, 5)
    small = settings_of("--model", "small", "--device", "cpu")
    assert (small.size, small.num_inference_steps, small.guidance_scale) == (256, 3, 1.0)
    told = settings_of(
        "--model", checkpoint, "--device", "cpu", "--size", 64, "--num_inference_steps", 7, "--guidance_scale", 0
    )
    assert (told.size, told.num_inference_steps, told.guidance_scale) == (64, 7, 0.0)
    assert settings_of("--model", checkpoint).size == CROP_SIZE


def test_settings_that_do_not_fit_the_model_are_an_error_and_no_row(checkpoint: Path):
    with pytest.raises(ValueError, match="multiples of 2"):
        speed.attempt(settings_of("--model", checkpoint, "--device", "cpu", "--size", 33), "float32")


def test_a_failure_is_told_in_one_line():
    assert speed.first_line(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert speed.first_line(RuntimeError()) == "RuntimeError"


def test_unknown_models_and_devices_are_errors_of_one_line(capsys: pytest.CaptureFixture):
    for arguments in (["--model", "no/such/folder"], ["--device", "abacus"]):
        assert speed.main(arguments) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_random_weights_stand_where_and_as_they_are_wanted_and_give_a_picture():
    """REFace's architecture in small, which takes the path of the full size."""
    torch.manual_seed(0)
    pipeline = build_random_pipeline(REDUCED, dtype=torch.bfloat16)
    networks = [pipeline.unet, pipeline.vae, pipeline.image_encoder, pipeline.conditioner]
    tensors = [tensor for network in networks for tensor in network.state_dict().values()]
    assert {tensor.dtype for tensor in tensors if tensor.is_floating_point()} == {torch.bfloat16}
    assert {tensor.device for tensor in tensors} == {CPU}
    assert not any(network.training for network in networks)
    assert torch.get_default_dtype() == torch.float32
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(torch.float32)  # many times faster on most CPUs
    faces = speed.made_up_faces(64, pipeline)
    (image,) = pipeline(**faces, height=64, width=64, num_inference_steps=1, output_type="pt").images
    assert image.isfinite().all()
    assert image.std() > 0


@pytest.mark.slow
def test_the_command_prints_a_row_for_each_case_and_what_it_depends_on(
    checkpoint: Path, forked_processes, monkeypatch, capsys
):
    cases = ["float32", "xformers", "compile"]
    arguments = ["--model", str(checkpoint), "--device", "cpu", "--runs", "1", "--num_inference_steps", "1"]
    arguments += ["--cases", *cases]
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert speed.main(arguments) == 0
    printed = capsys.readouterr()
    assert f"python benchmarks/speed.py {' '.join(arguments)}" in printed.out
    assert f"torch {torch.__version__}" in printed.out
    assert "Traceback" not in printed.out + printed.err
    table = [cells(line) for line in printed.out.splitlines() if line.startswith("| ")][2:]
    assert [row[0] for row in table] == [CASES[case] for case in cases]
    first, *others = [row for row in table if not row[2].startswith("not on this machine")]
    assert first[3] == first[6] == "1.00 x"
    assert float(first[2]) > 0
    assert float(first[5].removesuffix(" GB")) > 0
    for row in others:
        assert float(row[3].removesuffix(" x")) > 0
    (compiled,) = [row for row in table if "compile" in row[0]]
    assert "no-such-compiler" in compiled[2]  # the reason, on one line
