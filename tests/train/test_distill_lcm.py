"""Distillation at toy size: what the student learns, what it leaves behind, and that a stop makes no difference."""

import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from safetensors.torch import load_file

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import load_pipeline
from faceswap_diffusion.training.engine.states import saved_steps
from tests.tiny import CROP_SIZE, tiny_conditioner, tiny_inputs, tiny_pipeline
from tests.train.scripts import load_script, run

distillation = load_script("distill_lcm")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint") / "tiny"
    pipeline = tiny_pipeline(default_guidance_scale=2.0)
    pipeline.register_modules(conditioner=tiny_conditioner(combine="concat", identity_tokens=2))  # all layers in use
    pipeline.save_pretrained(folder)
    return folder


@pytest.fixture
def arguments(checkpoint, prepared_faces):
    """Arguments of a run of 3 steps of 4 samples; later ones win."""

    def build(output_dir: Path, *more: object) -> list[str]:
        given = [
            "--pretrained_model_name_or_path", checkpoint, "--train_data_dir", prepared_faces, "--output_dir",
            output_dir, "--train_batch_size", 4, "--max_train_steps", 3, "--lr_warmup_steps", 1, "--learning_rate",
            1e-2, "--num_ddim_timesteps", 10, "--lora_rank", 2, "--checkpointing_steps", 1, "--validation_steps", 3,
            "--validation_data_dir", prepared_faces, "--num_validation", 4, "--dataloader_num_workers", 0,
            "--report_to", "none", *more,
        ]  # fmt: skip
        return [str(part) for part in given]

    return build


def unet_weights(pipeline_folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (pipeline_folder / "unet").glob("*.safetensors")
    return load_file(path)


@pytest.fixture(scope="module")
def distilled(checkpoint, prepared_faces, tmp_path_factory) -> Path:
    """A finished run that leaves a LoRA."""
    output_dir = tmp_path_factory.mktemp("distilled") / "run"
    run(distillation, arguments.__wrapped__(checkpoint, prepared_faces)(output_dir))
    return output_dir


def swap(pipeline: FaceSwapInpaintPipeline, **more) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(**{**tiny_inputs(), **more}).images


def test_a_student_swaps_at_once_in_few_steps_without_guidance(distilled, checkpoint):
    pipeline = load_pipeline(distilled / "pipeline")
    assert isinstance(pipeline.scheduler, LCMScheduler)
    assert pipeline.scheduler.config["original_inference_steps"] == 10
    assert pipeline.scheduler.config["prediction_type"] == "epsilon"
    assert (pipeline.config["default_num_inference_steps"], pipeline.config["default_guidance_scale"]) == (2, 1.0)
    assert swap(pipeline).shape == (1, 3, CROP_SIZE, CROP_SIZE)
    assert pipeline.num_timesteps == 2
    teacher = load_pipeline(checkpoint)
    assert torch.equal(pipeline.scheduler.alphas_cumprod, teacher.scheduler.alphas_cumprod)
    for name in ("vae", "image_encoder", "conditioner"):
        for key, value in getattr(teacher, name).state_dict().items():
            assert torch.equal(value, getattr(pipeline, name).state_dict()[key]), f"{name}.{key} is frozen"
    assert (distilled / "pipeline" / "README.md").exists()
    assert (distilled / "validation" / "step_000003.png").exists()


def test_the_lora_in_the_teacher_is_the_student(distilled, checkpoint):
    student = load_pipeline(distilled / "pipeline")
    pipeline = load_pipeline(checkpoint)
    pipeline.load_lora_weights(distilled / "lora")
    pipeline.scheduler = LCMScheduler.from_pretrained(distilled / "lora", subfolder="scheduler")
    settings = {"num_inference_steps": 2, "guidance_scale": 1.0}
    with_lora = swap(pipeline, **settings)
    torch.testing.assert_close(with_lora, swap(student, **settings), rtol=1e-3, atol=1e-4)
    pipeline.unload_lora_weights()
    assert (swap(pipeline, **settings) - with_lora).abs().max() > 0.01


def test_a_lora_moves_attention_convolutions_and_time_but_not_the_outermost_layers(distilled, checkpoint):
    before, after = unet_weights(checkpoint), unet_weights(distilled / "pipeline")
    assert set(before) == set(after)
    moved = {name for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    for part in ("to_q", "to_out.0", "proj_in", "ff.net.2", "conv1", "conv2", "time_emb_proj", "downsamplers.0.conv"):
        assert any(part in name for name in moved), part
    assert not [name for name in moved if name.startswith(("conv_in", "conv_out", "time_embedding"))]
    assert not [name for name in moved if "norm" in name or name.endswith("bias")]


def test_what_is_left_out_is_taken_from_the_checkpoint(distilled):
    settings = yaml.safe_load((distilled / "config.yaml").read_text())
    assert (settings["num_rollout_steps"], settings["guidance_scale"]) == (2, 2.0)
    assert settings["num_ddim_timesteps"] == 10, "given"


def test_full_training_moves_every_weight_of_the_unet(arguments, checkpoint, tmp_path):
    run(distillation, arguments(tmp_path / "run", "--output_type", "full", "--weight_decay", 0))
    assert not (tmp_path / "run" / "lora").exists()
    before, after = unet_weights(checkpoint), unet_weights(tmp_path / "run" / "pipeline")
    assert set(before) == set(after)
    assert [name for name, tensor in before.items() if torch.equal(tensor, after[name])] == []
    assert isinstance(load_pipeline(tmp_path / "run" / "pipeline").scheduler, LCMScheduler)


def test_going_on_ends_exactly_where_a_run_without_a_stop_ends(distilled, arguments, tmp_path, monkeypatch):
    class StopAtOne(distillation.Trainer):
        def save_state(self, step: int) -> Path:
            folder = super().save_state(step)
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return folder

    with monkeypatch.context() as patch:
        patch.setattr(distillation, "Trainer", StopAtOne)
        run(distillation, arguments(tmp_path / "run"))
    assert saved_steps(tmp_path / "run" / "states")[-1] == 2  # the step in which the signal was seen is finished
    assert not (tmp_path / "run" / "pipeline").exists()
    run(distillation, arguments(tmp_path / "run"))
    for name in ("history.csv", "lora/pytorch_lora_weights.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (distilled / name).read_bytes(), name
    expected = unet_weights(distilled / "pipeline")
    for name, tensor in unet_weights(tmp_path / "run" / "pipeline").items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num_ddim_timesteps", 30], "use a divisor"),
        (["--num_ddim_timesteps", 1], "a swap of 2 steps"),
        (["--train_batch_size", 3], "use a multiple of 2"),
        (["--train_data_dir", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(arguments, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        run(distillation, arguments(tmp_path / "run", *more))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("distill_lcm.py:")]
    assert message in line


def test_going_on_with_other_settings_is_an_error(distilled, arguments, capsys):
    with pytest.raises(SystemExit):
        run(distillation, arguments(distilled, "--num_ddim_timesteps", 20))
    assert "num_ddim_timesteps" in capsys.readouterr().err
