"""The training script at toy size: it ends where it should, however often and however rudely it is stopped."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.provenance.save import read_provenance
from faceswap_diffusion.training.command_line import parse_config
from faceswap_diffusion.training.config import ReferenceConfig, SampleConfig, TrainFaceswapConfig
from faceswap_diffusion.training.engine.states import saved_steps
from tests.processes import finish, free_port, wait_until
from tests.tiny import tiny_pipeline, tiny_vae
from tests.train.launching import fsdp_environment
from tests.train.scripts import ROOT, TRAIN, load_script, run, start, start_two
from tests.weights.imitation import HubImitation

training = load_script("train_faceswap")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    pipeline = tiny_pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, prediction_type="v_prediction")
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def arguments(checkpoint, prepared_faces):
    """Arguments of a run of 4 steps of 4 samples; later ones win."""

    def build(output_dir: Path, *more: object) -> list[str]:
        given = [
            "--pretrained_model_name_or_path", checkpoint, "--train_data_dir", prepared_faces, "--output_dir",
            output_dir, "--train_batch_size", 4, "--max_train_steps", 4, "--lr_warmup_steps", 1, "--learning_rate",
            1e-2, "--num_rollout_steps", 2, "--checkpointing_steps", 1, "--validation_steps", 2,
            "--dataloader_num_workers", 0, "--report_to", "none", "--adversarial_weight", 0.1, *more,
        ]  # fmt: skip
        return [str(part) for part in given]

    return build


def parsed(arguments: list[str]) -> TrainFaceswapConfig:
    return parse_config(TrainFaceswapConfig, "train_faceswap.py", None, arguments)


def weights(output_dir: Path) -> dict[str, torch.Tensor]:
    """UNet and conditioner of the finished checkpoint."""
    parts = {}
    for name in ("unet", "conditioner"):
        (path,) = (output_dir / "pipeline" / name).glob("*.safetensors")
        parts |= {f"{name}.{key}": tensor for key, tensor in load_file(path).items()}
    return parts


def history(output_dir: Path) -> list[dict[str, str]]:
    with (output_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def assert_same_run(first: Path, second: Path) -> None:
    expected, got = weights(first), weights(second)
    assert set(expected) == set(got)
    for name, tensor in expected.items():
        assert torch.equal(tensor, got[name]), name
    assert (first / "history.csv").read_bytes() == (second / "history.csv").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(checkpoint, prepared_faces, tmp_path_factory) -> Path:
    output_dir = tmp_path_factory.mktemp("undisturbed") / "run"
    build = arguments.__wrapped__(checkpoint, prepared_faces)
    run(training, build(output_dir, "--validation_data_dir", prepared_faces, "--num_validation", 2))
    return output_dir


def test_a_run_leaves_a_checkpoint_that_loads_a_card_curves_swaps_and_its_settings(undisturbed, checkpoint):
    pipeline = FaceSwapInpaintPipeline.from_pretrained(undisturbed / "pipeline")
    assert pipeline.config["crop_size"] == 32
    before = FaceSwapInpaintPipeline.from_pretrained(checkpoint)
    for name in ("vae", "image_encoder"):
        for key, value in getattr(before, name).state_dict().items():
            assert torch.equal(value, getattr(pipeline, name).state_dict()[key]), f"{name}.{key} is frozen"
    assert (undisturbed / "curves.png").exists()
    provenance = read_provenance(undisturbed / "validation" / "step_000004.png")
    assert provenance is not None
    assert provenance["step"] == 4
    assert saved_steps(undisturbed / "states") == [3, 4]
    settings = yaml.safe_load((undisturbed / "config.yaml").read_text())
    assert settings["train_batch_size"] == 4
    card = ModelCard.load(undisturbed / "pipeline" / "README.md")
    assert card.data.library_name == "diffusers"
    steps = [int(row["step"]) for row in history(undisturbed) if row["loss"]]
    assert steps == [1, 2, 3, 4]


def test_going_on_ends_exactly_where_a_run_without_a_stop_ends(undisturbed, arguments, prepared_faces, tmp_path):
    """Losses, weights, order of the data: all to the bit."""
    more = ["--validation_data_dir", prepared_faces, "--num_validation", 2]
    states = tmp_path / "run" / "states"

    class StopAtTwo(training.Trainer):
        def save_state(self, step: int) -> Path:
            folder = super().save_state(step)
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            return folder

    original, training.Trainer = training.Trainer, StopAtTwo
    try:
        run(training, arguments(tmp_path / "run", *more))
    finally:
        training.Trainer = original
    assert saved_steps(states)[-1] == 3  # the step in which the signal was seen is finished and saved
    run(training, arguments(tmp_path / "run", *more))
    assert_same_run(undisturbed, tmp_path / "run")


def test_settings_come_from_a_file_and_flags_win(arguments, tmp_path):
    config = tmp_path / "settings.yaml"
    config.write_text("train: lora\nlora_rank: 3\nmask_sets: [face, head=2]\nidentity_weight: 0.25\n")
    got = parsed(["--config", str(config), *arguments(tmp_path), "--lora_rank", "5"])
    assert (got.trained.train, got.trained.lora_rank, got.loss.identity_weight) == ("lora", 5, 0.25)
    assert got.samples.mask_sets == ("face", "head=2")


@pytest.mark.parametrize(
    ("line", "complaint"), [("train: everything", "train"), ("trian: lora", "trian"), ("ema_decay: 2", "ema_decay")]
)
def test_settings_are_checked(arguments, tmp_path, capsys, line, complaint):
    config = tmp_path / "settings.yaml"
    config.write_text(line)
    with pytest.raises(SystemExit):
        parsed([*arguments(tmp_path), "--config", str(config)])
    assert complaint in capsys.readouterr().err


def test_help_is_grouped(capsys):
    with pytest.raises(SystemExit):
        parsed(["--help"])
    text = capsys.readouterr().out
    for group in ("data:", "model:", "objective:", "optimization:", "output:"):
        assert f"\n{group}" in text


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (
            ["--train_batch_size", 1, "--cross_identity_share", 1, "--self_reconstruction_share", 0],
            "global batch of 1",
        ),
        (["--train_batch_size", 6], "use a multiple of 4"),
        (["--mask_sets", "nose"], "got mask set 'nose'"),
        (["--vae", "somewhere"], "needs --image_encoder"),
        (["--train_data_dir", "nowhere"], "nowhere"),
        (["--report_to", "wandb"], "pip install wandb"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(arguments, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        run(training, arguments(tmp_path / "run", *more))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("train_faceswap.py:")]
    assert message in line


def test_faces_of_one_person_are_an_error(arguments, one_person, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(training, arguments(tmp_path / "run", "--train_data_dir", one_person))
    assert "are of one person" in capsys.readouterr().err


def test_what_cannot_change_is_refused_by_name_with_both_values(undisturbed, arguments, capsys):
    before = (undisturbed / "config.yaml").read_text()
    for more, messages in (
        (["--seed", 1, "--train", "attention"], ("seed was 0 and is 1", 'train was "full" and is "attention"')),
        (["--train_batch_size", 8], ("global_batch_size was 4 and is 8",)),
        (["--max_train_steps", 3], ("has taken 4 steps already, --max_train_steps 3 is less",)),
    ):
        with pytest.raises(SystemExit) as stopped:
            run(training, arguments(undisturbed, *more))
        assert stopped.value.code == 2
        error = capsys.readouterr().err
        for message in messages:
            assert message in error
    assert (undisturbed / "config.yaml").read_text() == before


def test_a_finished_run_goes_on_with_what_is_given_and_keeps_the_rest(arguments, tmp_path):
    """Steps 3 and 4 have the new learning rate, along the cosine of the new length; the loss weights stay."""
    more = ["--identity_weight", 0.25, "--max_train_steps", 2, "--adversarial_weight", 0]
    run(training, arguments(tmp_path, *more))
    run(training, ["--output_dir", str(tmp_path), "--max_train_steps", "4", "--learning_rate", "2e-3"])
    rates = [float(row["learning_rate"]) for row in history(tmp_path) if row["loss"]]
    # One step of warm-up, then half a cosine over the others: of one step before, of three from the third on.
    assert rates == pytest.approx([0, 1e-2, 2e-3 * 0.75, 2e-3 * 0.25])
    assert all(float(row["grad_norm"]) > 0 for row in history(tmp_path) if row["loss"])
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (saved["max_train_steps"], saved["learning_rate"], saved["identity_weight"]) == (4, 2e-3, 0.25)
    card = (tmp_path / "pipeline" / "README.md").read_text()
    assert "learning_rate: 0.002" in card
    assert "identity_weight: 0.25" in card


def test_accumulated_batches_train_like_one_large_batch(arguments, tmp_path):
    # Without discriminator: its spectral norm goes on with every forward pass, and there are twice as many.
    more = [
        "--cross_identity_share",
        0.5,
        "--self_reconstruction_share",
        0.5,
        "--learning_rate",
        1e-4,
        "--adversarial_weight",
        0,
    ]
    run(training, arguments(tmp_path / "large", *more))
    run(training, arguments(tmp_path / "small", *more, "--train_batch_size", 2, "--gradient_accumulation_steps", 2))
    compare_runs(tmp_path / "large", tmp_path / "small")


def compare_runs(first: Path, second: Path) -> None:
    """The same but for the order of sums, of which AdamW makes much where gradients are next to none."""
    for got, expected in zip(history(second), history(first), strict=True):
        for name, value in expected.items():
            rel = (
                2e-3 if name != "grad_norm" or expected["step"] == "1" else 1e-2
            )  # weights are a little apart by then
            assert float(got[name]) == pytest.approx(float(value), rel=rel, abs=1e-4), (expected["step"], name)
    expected = weights(first)
    for name, tensor in weights(second).items():
        torch.testing.assert_close(tensor, expected[name], rtol=0, atol=1e-4, msg=name)


def test_a_lora_is_saved_by_itself_and_in_a_checkpoint(arguments, checkpoint, tmp_path):
    run(training, arguments(tmp_path / "run", "--train", "lora", "--lora_rank", 2))
    fused = FaceSwapInpaintPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    pipeline = FaceSwapInpaintPipeline.from_pretrained(checkpoint)
    plain = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    pipeline.load_lora_weights(tmp_path / "run" / "lora")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    moved = 0
    for name, tensor in pipeline.unet.state_dict().items():
        torch.testing.assert_close(fused.unet.state_dict()[name], tensor)
        moved += not torch.equal(tensor, plain[name])
    assert moved > 4


def test_a_run_may_exchange_the_autoencoder_and_what_the_hidden_part_shows(arguments, tmp_path):
    tiny_vae(latent_channels=8, num_halvings=2).save_pretrained(tmp_path / "vae")
    more = ["--new_vae", tmp_path / "vae", "--hidden_fill", "landmarks", "--max_train_steps", 2]
    run(training, arguments(tmp_path / "run", *more))
    pipeline = FaceSwapInpaintPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert pipeline.config["hidden_fill"] == "landmarks"
    assert (pipeline.vae_scale_factor, pipeline.unet.config["in_channels"]) == (4, 17)
    assert pipeline.unet.conv_out.weight[4:].any()  # no longer 0


def test_a_run_may_show_references_at_twice_the_size_and_records_how_they_are_made_wrong(arguments, tmp_path, capsys):
    """The crops are twice as large, an autoencoder of twice the factor leaves the latents as they are."""
    tiny_vae(num_halvings=2).save_pretrained(tmp_path / "vae")
    more = ["--new_vae", tmp_path / "vae", "--crop_size", 64, "--hidden_fill", "reference", "--reference_toned", 0.5]
    more += ["--warped_masks", 0.25, "--max_train_steps", 1]
    run(training, arguments(tmp_path / "run", *more))
    pipeline = FaceSwapInpaintPipeline.from_pretrained(tmp_path / "run" / "pipeline")
    assert (pipeline.config["crop_size"], pipeline.config["landmark_scale"]) == (64, 0.5)
    assert pipeline.config["hidden_fill"] == "reference"
    numbers = json.loads((tmp_path / "run" / "states" / "step_000001" / "state.json").read_text())
    assert numbers["settings"]["reference_toned"] == 0.5
    assert numbers["settings"]["warped_masks"] == 0.25
    with pytest.raises(SystemExit):
        run(training, arguments(tmp_path / "run", *more, "--reference_holed", 1))
    assert "reference_holed was 0.2 and is 1" in capsys.readouterr().err


def test_options_of_samples_are_the_fields_of_their_settings(arguments, tmp_path):
    got = parsed(arguments(tmp_path, "--reference_cycled", 0.75, "--landmark_noise", 2, "--identity_noise", 0))
    assert got.references == ReferenceConfig(cycled=0.75)
    assert got.samples == SampleConfig(landmark_noise=2, identity_noise=0)
    with pytest.raises(SystemExit):
        parsed(arguments(tmp_path, "--reference_cycled", 1.5))


def test_a_loss_that_is_no_number_stops_the_run_and_saves_the_state_before(arguments, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        run(training, arguments(tmp_path / "run", "--learning_rate", 1e30, "--max_train_steps", 8, "--ema_decay", 0))
    assert stopped.value.code == 1
    assert "no longer a number" in capsys.readouterr().err
    assert saved_steps(tmp_path / "run" / "states")


def test_the_finished_checkpoint_is_pushed_with_its_card(
    undisturbed, arguments, prepared_faces, tmp_path, monkeypatch
):
    """The run is finished already: the same command with --push_to_hub only uploads."""
    hub = HubImitation()
    hub.stand_in(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    command = arguments(undisturbed, "--validation_data_dir", prepared_faces, "--num_validation", 2)
    run(training, [*command, "--push_to_hub", "--hub_model_id", "somebody/mine"])
    hub.close()
    files = hub.repositories["somebody/mine"]
    assert {"model_index.json", "pipeline.py", "unet/config.json", "curves.png", "validation.png"} <= set(files)
    card = (undisturbed / "pipeline" / "README.md").read_bytes()
    assert files["README.md"] == card.replace(b"owner/name", b"somebody/mine")
    assert b"| steps | 4 |" in files["README.md"]


@pytest.mark.slow
def test_two_processes_train_like_one_with_the_same_global_batch(arguments, tmp_path):
    more = ["--cross_identity_share", 0.5, "--self_reconstruction_share", 0.5, "--learning_rate", 1e-4]
    run(training, arguments(tmp_path / "one", *more))
    finish(*start_two("train_faceswap", arguments(tmp_path / "two", *more, "--train_batch_size", 2)))
    compare_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_two_processes_that_divide_the_model_train_like_one(arguments, tmp_path):
    """A LoRA, which is gathered, written and fused; its checkpoint, too, is that of one process."""
    more = [
        "--cross_identity_share",
        0.5,
        "--self_reconstruction_share",
        0.5,
        "--learning_rate",
        1e-4,
        "--adversarial_weight",
        0,
    ]
    more += ["--train", "lora", "--lora_rank", 2]
    run(training, arguments(tmp_path / "one", *more))
    two = arguments(tmp_path / "two", *more, "--train_batch_size", 2)
    finish(*start_two("train_faceswap", two, **fsdp_environment()))
    compare_runs(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
def test_a_divided_run_goes_on_from_its_own_states_in_one_process_and_from_those_of_one(arguments, tmp_path):
    """From an earlier state: those after it are taken away."""
    more = [
        "--cross_identity_share",
        0.5,
        "--self_reconstruction_share",
        0.5,
        "--learning_rate",
        1e-4,
        "--adversarial_weight",
        0,
    ]
    more += ["--max_train_steps", 3, "--checkpoints_total_limit", 3]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    run(training, arguments(whole, *more))
    in_two = arguments(stopped, *more, "--train_batch_size", 2)
    finish(*start_two("train_faceswap", in_two, **fsdp_environment()))
    for in_one_process, from_step in ((False, 1), (True, 1), (False, 2)):
        assert saved_steps(stopped / "states") == [1, 2, 3]
        for step in range(from_step + 1, 4):
            shutil.rmtree(stopped / "states" / f"step_{step:06}")
        shutil.rmtree(stopped / "pipeline")
        if in_one_process:
            run(training, arguments(stopped, *more))
        else:
            finish(*start_two("train_faceswap", in_two, **fsdp_environment()))
        compare_runs(whole, stopped)
        compare_states(whole / "states" / "step_000003", stopped / "states" / "step_000003")


def compare_states(first: Path, second: Path) -> None:
    """The same files with the same names in them; moments as near as gradients after some steps can be."""
    assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
    for path in first.glob("*.safetensors"):
        expected, got = load_file(path), load_file(second / path.name)
        assert set(expected) == set(got)
        for name, tensor in expected.items():
            difference = float((got[name] - tensor).norm())
            assert difference <= 0.2 * float(tensor.norm()) + 1e-6, f"{path.name}: {name}"


@pytest.mark.slow
def test_a_divided_model_in_16_bits_moves_weights_where_one_process_moves_them(arguments, checkpoint, tmp_path):
    """Rolled out samples pass through the UNet without gradients first, of which autocast must remember nothing."""
    more = [
        "--cross_identity_share",
        0.5,
        "--self_reconstruction_share",
        0.5,
        "--mixed_precision",
        "bf16",
        "--ema_decay",
        0,
    ]
    more += ["--adversarial_weight", 0, "--learning_rate", 1e-3]
    run(training, arguments(tmp_path / "one", *more))
    two = arguments(tmp_path / "two", *more, "--train_batch_size", 2)
    finish(*start_two("train_faceswap", two, **fsdp_environment()))
    before = load_file(checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    moved = [
        torch.cat([(weights(folder)[f"unet.{name}"] - tensor).flatten() for name, tensor in before.items()])
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert float(torch.nn.functional.cosine_similarity(*moved, dim=0)) > 0.9


@pytest.mark.slow
def test_sigterm_saves_and_exits_cleanly(arguments, tmp_path):
    more = ["--max_train_steps", 100_000, "--checkpointing_steps", 100_000]
    program = start("train_faceswap", arguments(tmp_path / "run", *more))
    wait_until(lambda: has_taken(tmp_path / "run", 2), program)
    program.send_signal(signal.SIGTERM)
    output = finish(program)
    (step,) = saved_steps(tmp_path / "run" / "states")
    assert f"Stopped after step {step}" in output
    assert [int(row["step"]) for row in history(tmp_path / "run") if row["loss"]] == list(range(1, step + 1))


@pytest.mark.slow
def test_sigterm_to_a_launcher_saves_before_it_stops_the_processes(arguments, tmp_path):
    """It asks the workers that load the data, too, which must not go before the step is finished."""
    more = ["--max_train_steps", 100_000, "--checkpointing_steps", 100_000, "--dataloader_num_workers", 1]
    more += ["--train_batch_size", 2, "--cross_identity_share", 0.5, "--self_reconstruction_share", 0.5]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port"]
    launcher += [str(free_port()), str(TRAIN / "train_faceswap.py")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(
        [*launcher, *arguments(tmp_path / "run", *more)], env=environment, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    while not has_taken(tmp_path / "run", 2):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    (step,) = saved_steps(tmp_path / "run" / "states")
    assert f"Stopped after step {step}" in output


def has_taken(output_dir: Path, num_steps: int) -> bool:
    return (output_dir / "history.csv").exists() and len(history(output_dir)) >= num_steps


@pytest.mark.slow
def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(undisturbed, arguments, prepared_faces, tmp_path):
    """In its first step, between two steps, and while it writes the finished checkpoint."""
    command = arguments(tmp_path / "run", "--validation_data_dir", prepared_faces, "--num_validation", 2)
    for moment in ("history.csv", "states/step_000002", "states/step_000004"):
        program = start("train_faceswap", command)
        wait_until((tmp_path / "run" / moment).exists, program)
        program.kill()
        program.communicate()
    finish(start("train_faceswap", command))
    assert_same_run(undisturbed, tmp_path / "run")
