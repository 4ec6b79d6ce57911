"""Samples encoded once: the same to training as those that it encodes itself, and to the bit after every stop."""

import csv
import json
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from safetensors.torch import load_file

from faceswap_diffusion.training.data.latents import SPATIAL, STORED, CachedSamples
from tests.processes import finish, forked, wait_until
from tests.tiny import tiny_conditioner, tiny_pipeline, tiny_vae
from tests.train.scripts import load_script, run, start

caching, training = load_script("cache_latents"), load_script("train_faceswap")

SAMPLES = ["--hidden_fill", "reference", "--warped_masks", "0.5", "--seed", "1"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    pipeline = tiny_pipeline(geometry_share=0.0)
    pipeline.register_modules(conditioner=tiny_conditioner(identity_geometry=True))
    pipeline.register_to_config(geometry_share=0.5)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cache(checkpoint, prepared_faces):
    """Arguments of the script for 10 samples in shards of 4; later ones win."""

    def build(output_dir: Path, *more: object) -> list[str]:
        given = [
            "--pretrained_model_name_or_path", checkpoint, "--train_data_dir", prepared_faces, "--output_dir",
            output_dir, "--num_samples", 10, "--shard_size", 4, "--num_workers", 1, *SAMPLES, *more,
        ]  # fmt: skip
        return [str(part) for part in given]

    return build


@pytest.fixture(scope="module")
def latents(cache, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("latents") / "latents"
    caching.main(cache(folder))
    return folder


@pytest.fixture
def arguments(checkpoint):
    """Arguments of a run of 3 steps of 4 samples, without data; later ones win."""

    def build(output_dir: Path, *more: object) -> list[str]:
        given = [
            "--pretrained_model_name_or_path", checkpoint, "--output_dir", output_dir, "--train_batch_size", 4,
            "--max_train_steps", 3, "--lr_warmup_steps", 1, "--cross_identity_share", 0,
            "--self_reconstruction_share", 0, "--checkpointing_steps", 1, "--dataloader_num_workers", 0, "--report_to",
            "none", *SAMPLES, *more,
        ]  # fmt: skip
        return [str(part) for part in given]

    return build


def losses(output_dir: Path) -> list[float]:
    with (output_dir / "history.csv").open(newline="") as file:
        return [float(row["denoising"]) for row in csv.DictReader(file) if row["denoising"]]


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_hold_all_samples_in_order(latents):
    shards = [load_file(latents / f"latents-{number:05}.safetensors") for number in range(3)]
    assert [len(shard["mask"]) for shard in shards] == [4, 4, 2]
    assert {name: tensor.dtype for name, tensor in shards[0].items()} == STORED
    samples = CachedSamples(latents)
    assert len(samples) == 10
    for index, (shard, row) in {0: (0, 0), 9: (2, 1), 15: (1, 1)}.items():
        sample = samples[index]
        assert int(sample["indices"]) == index
        for name in STORED:
            assert torch.equal(sample[name], shards[shard][name][row].float()), name
    assert samples.summary.num_people == 5
    assert samples.summary.folders == ("faces",)


def test_a_window_is_cut_out_of_latents_and_mask_alike(latents):
    whole, cut = CachedSamples(latents)[3], CachedSamples(latents, window=8)[3]
    places = whole["latents"].unfold(1, 8, 1).unfold(2, 8, 1)[0]
    ((top, left),) = (places == cut["latents"][0]).flatten(2).all(2).nonzero().tolist()
    for name in STORED:
        wanted = whole[name][:, top : top + 8, left : left + 8] if name in SPATIAL else whole[name]
        assert torch.equal(cut[name], wanted), name
    with pytest.raises(ValueError, match="--latent_window 17 is larger than the 16 x 16 latents"):
        CachedSamples(latents, window=17)


def test_training_on_cached_latents_is_training_on_the_same_samples(arguments, latents, prepared_faces, tmp_path):
    """The masked latents are drawn from the autoencoder's posterior: from the same numbers in both."""
    run(training, arguments(tmp_path / "pictures", "--train_data_dir", prepared_faces, "--max_train_steps", 1))
    run(training, arguments(tmp_path / "latents", "--latents_dir", latents, "--max_train_steps", 1))
    (expected,), (got,) = losses(tmp_path / "pictures"), losses(tmp_path / "latents")
    assert got == pytest.approx(expected, rel=1e-3)
    assert "8 of 5 people (`faces`)" in (tmp_path / "latents" / "pipeline" / "README.md").read_text()


def test_samples_come_again_with_other_noise(arguments, latents, tmp_path):
    more = ["--latents_dir", latents, "--max_train_steps", 2, "--learning_rate", 1e-12]
    run(training, arguments(tmp_path / "run", *more, "--train_batch_size", 10))
    first, second = losses(tmp_path / "run")
    assert abs(first - second) > 1e-3


def test_going_on_ends_exactly_where_a_run_without_a_stop_ends(arguments, latents, tmp_path):
    more = ["--latents_dir", latents, "--latent_window", 12]
    run(training, arguments(tmp_path / "whole", *more))

    class StopAtOne(training.Trainer):
        def save_state(self, step: int) -> Path:
            folder = super().save_state(step)
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return folder

    original, training.Trainer = training.Trainer, StopAtOne
    try:
        run(training, arguments(tmp_path / "stopped", *more))
    finally:
        training.Trainer = original
    assert len(losses(tmp_path / "stopped")) == 2
    run(training, arguments(tmp_path / "stopped", *more))
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    (path,) = (tmp_path / "whole" / "pipeline" / "unet").glob("*.safetensors")
    assert path.read_bytes() == (tmp_path / "stopped" / "pipeline" / "unet" / path.name).read_bytes()


def test_a_second_run_changes_nothing_and_shards_that_are_missing_are_written_anew(cache, latents, tmp_path):
    before = written(latents)
    caching.main(cache(latents))
    assert written(latents) == before
    (tmp_path / "some").mkdir()
    for name in ("latents.json", "latents-00002.safetensors"):
        (tmp_path / "some" / name).write_bytes(before[name])
    (tmp_path / "some" / ".unfinished-7").write_text("half")
    with pytest.raises(
        ValueError, match=r"lacks 2 shard\(s\), the first is latents-00000.safetensors: run cache_latents"
    ):
        CachedSamples(tmp_path / "some")
    caching.main(cache(tmp_path / "some"))
    assert written(tmp_path / "some") == before


def fails(capsys, script, arguments: list[str]) -> str:
    """The one line that a script says when it cannot work."""
    with pytest.raises(SystemExit) as stopped:
        run(script, arguments)
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith(f"{script.__name__}.py:")]
    return line


def test_what_was_begun_otherwise_is_refused(cache, latents, capsys):
    message = fails(capsys, caching, cache(latents, "--reference_cycled", 1))
    assert "was begun with reference_cycled 0.3, now it is 1" in message
    assert "was begun with num_samples 10, now it is 11" in fails(capsys, caching, cache(latents, "--num_samples", 11))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--seed", 2], "was made with seed 1, the run has 2: give the run the same, or encode samples again"),
        (["--reference_bare", 1], "was made with reference_bare 0.15, the run has 1"),
        (["--mask_sets", "head"], "was made with mask_sets"),
        (["--hidden_fill", "grey"], "was made with hidden_fill reference, the run has grey"),
        (["--crop_size", 64], "was made with crop_size 32, the run has 64"),
        (
            ["--cross_identity_share", 0.25],
            "holds no pictures, but --cross_identity_share 0.25 and --self_reconstruction_share 0.0 need them",
        ),
        (["--train_data_dir", "faces"], "one of the two"),
        (["--latent_window", 99], "--latent_window 99 is larger"),
        (["--vae", "somewhere", "--image_encoder", "elsewhere"], "--vae starts a new model"),
        (["--latents_dir", "nowhere"], "nowhere holds no latents: make them of prepared faces"),
    ],
)
def test_a_run_with_other_settings_is_refused(arguments, latents, tmp_path, capsys, more, message):
    assert message in fails(capsys, training, arguments(tmp_path / "run", "--latents_dir", latents, *more))


def test_another_autoencoder_is_refused(arguments, latents, tmp_path, capsys):
    tiny_vae(seed=1).save_pretrained(tmp_path / "vae")
    more = ["--latents_dir", latents, "--new_vae", tmp_path / "vae"]
    assert "was made with autoencoder" in fails(capsys, training, arguments(tmp_path / "run", *more))


def test_neither_faces_nor_latents_or_a_window_without_latents_is_refused(arguments, tmp_path, capsys):
    assert "one of the two" in fails(capsys, training, arguments(tmp_path / "run"))
    alone = arguments(tmp_path / "run", "--train_data_dir", "faces", "--latent_window", 8)
    assert "--latent_window goes with --latents_dir" in fails(capsys, training, alone)


def test_going_on_with_other_latents_is_refused(arguments, cache, latents, tmp_path, capsys):
    run(training, arguments(tmp_path / "run", "--latents_dir", latents, "--max_train_steps", 1))
    caching.main(cache(tmp_path / "fewer", "--num_samples", 4))
    other = arguments(tmp_path / "run", "--latents_dir", tmp_path / "fewer", "--max_train_steps", 1)
    assert "belongs to a run with other settings: latents was" in fails(capsys, training, other)


@pytest.mark.slow
def test_killed_while_several_processes_encode_it_ends_as_if_undisturbed(cache, latents, tmp_path):
    """It is killed as soon as there is a shard more; its processes end with it."""
    output, wanted = tmp_path / "killed", written(latents)
    for num_workers in (2, 1):
        num_shards = len(list(output.glob("*.safetensors")))
        program = start("cache_latents", cache(output, "--num_workers", num_workers))
        wait_until(lambda before=num_shards: len(list(output.glob("*.safetensors"))) > before, program)
        running = forked()
        assert len(running) == 1 + (num_workers if num_workers > 1 else 0)
        program.kill()
        program.communicate()
        _, alive = psutil.wait_procs(running, timeout=60)
        assert alive == []
        for name, content in written(output).items():
            assert content == wanted.get(name) or "unfinished" in name
    finish(start("cache_latents", cache(output)))
    assert written(output) == wanted
    assert json.loads(wanted["latents.json"])["num_samples"] == 10
