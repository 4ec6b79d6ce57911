"""The benchmark of training, at toy size: every row is there, and faces that are made up serve as prepared ones."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.conversion.reface import build_random_pipeline
from faceswap_diffusion.training.data.dataset import PreparedFaces
from tests.parity.reduced import REDUCED
from tests.tiny import tiny_pipeline
from tests.train.scripts import load_script

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "training.py"


@pytest.fixture(scope="module")
def benchmark():
    return load_script("training", SCRIPT.parent)


def test_made_up_faces_make_samples_with_something_to_repaint(benchmark, tmp_path):
    benchmark.write_made_up_faces(tmp_path, 64, count=4)
    faces = PreparedFaces([tmp_path], 64)
    assert len(set(faces.identities)) == len(faces) == 4
    samples = benchmark.build_samples([str(tmp_path)], tiny_pipeline(crop_size=64), "+ identity", 4)
    batch = samples.collate([samples[index] for index in range(4)])
    assert batch.num_cross_identity == 1
    assert batch.pixels.shape == (4, 3, 64, 64)
    assert 0.2 < float(batch.mask.mean()) < 0.8
    assert float(batch.pixels.std()) > 0.2
    assert np.isfinite(batch.landmarks.numpy()).all()
    assert batch.reference is None


def test_a_checkpoint_with_references_gets_them_drawn(benchmark, tmp_path):
    benchmark.write_made_up_faces(tmp_path, 64, count=4)
    pipeline = tiny_pipeline(crop_size=64, hidden_fill="reference")
    samples = benchmark.build_samples([str(tmp_path)], pipeline, "+ identity", 4)
    batch = samples.collate([samples[index] for index in range(4)])
    assert batch.reference.shape == (4, 3, 64, 64)
    assert (batch.reference_mask * batch.mask).sum() > 0.5 * batch.mask.sum()


def test_plain_steps_have_no_rolled_out_samples(benchmark, tmp_path):
    benchmark.write_made_up_faces(tmp_path, 64, count=4)
    samples = benchmark.build_samples([str(tmp_path)], tiny_pipeline(crop_size=64), "plain", 4)
    assert samples.collate([samples[index] for index in range(4)]).num_cross_identity == 0


def test_the_full_size_model_is_built_of_random_weights_and_trains(benchmark, tmp_path):
    """With REFace's architecture in small, for small crops, which takes the same path."""
    unet, settings = {**REDUCED.unet, "sample_size": 16}, {**REDUCED.pipeline, "crop_size": 128}
    pipeline = build_random_pipeline(replace(REDUCED, unet=unet, pipeline=settings))
    benchmark.write_made_up_faces(tmp_path, pipeline.config["crop_size"], count=2)
    args = benchmark.benchmark_parser().parse_args(["--num_rollout_steps", "1"])
    samples = benchmark.build_samples([str(tmp_path)], pipeline, "+ all steps", 4)
    case = benchmark.Case("full", "+ all steps", checkpointing=True)
    objective = benchmark.build_objective(args, case, samples.roles, pipeline, "sface")
    losses = objective(samples.collate([samples[index] for index in range(4)]), 0)
    losses["loss"].backward()
    assert set(losses) == {"loss", "denoising", "identity", "coarse"}
    assert pipeline.unet.conv_in.weight.grad is not None


@pytest.mark.slow
def test_every_row_is_measured_in_a_process_of_its_own(benchmark, tmp_path, forked_processes, monkeypatch, capsys):
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    arguments = [
        "--pretrained_model_name_or_path", tmp_path / "tiny", "--train_batch_size", 4, "--num_steps", 2,
        "--num_warmup_steps", 1, "--num_rollout_steps", 2, "--dataloader_num_workers", 0, "--output_file",
        tmp_path / "rows.json",
    ]  # fmt: skip
    monkeypatch.syspath_prepend(SCRIPT.parent)  # where the processes find the script
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(benchmark, "STEPS", {"+ all steps": benchmark.STEPS["+ all steps"]})
    monkeypatch.setattr(benchmark.torch.cuda, "is_available", lambda: False)
    benchmark.main([*map(str, arguments)])
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [(row["case"]["step"], row["case"]["checkpointing"]) for row in rows] == [
        ("+ all steps", False), ("+ all steps", True)
    ]  # fmt: skip
    for row in rows:
        assert row["measured"]["images_per_second"] > 0
        assert row["measured"]["peak_memory"] > 1e6
        assert 0 < row["measured"]["data_share"] < 1
    printed = capsys.readouterr().out
    assert printed.count("| small |") == 2
    assert "full: skipped" in printed


def test_counting_prints_both_models_under_every_plan(benchmark, capsys):
    benchmark.main(["--count"])
    printed = capsys.readouterr().out
    for model in ("small", "full"):
        for plan in benchmark.PLANS:
            assert f"| {model} | {plan} |" in printed
    (line,) = [line for line in printed.splitlines() if line.startswith("| full | 1 GPU |")]
    assert line.endswith("| 5.31 | 3.59 | 7.17 | 3.59 | 0.00 | 19.66 |")
