"""Distillation at toy size: what the student learns, what it leaves behind, and that a stop makes no difference."""

import importlib.util
import os
import signal
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from safetensors.torch import load_file

from faceswap_diffusion.checkpoint_files import load_pipeline
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.training.batches import Roles, SampleSettings, SwapBatch, SwapSamples
from faceswap_diffusion.training.dataset import PreparedFaces
from faceswap_diffusion.training.distillation import (
    ConsistencyObjective,
    ConsistencySettings,
    make_student,
    split_off_teacher,
)
from faceswap_diffusion.training.states import saved_steps
from faceswap_diffusion.training.trainable import trained_parameters
from tests.tiny import CROP_SIZE, tiny_conditioner, tiny_inputs, tiny_pipeline

ROOT = Path(__file__).parents[2]


def load_script():
    spec = importlib.util.spec_from_file_location("distill_lcm", ROOT / "train" / "distill_lcm.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


distillation = load_script()


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


def run(arguments: list[str]) -> None:
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    PartialState._reset_state()
    distillation.main(arguments)


def unet_weights(pipeline_folder: Path) -> dict[str, torch.Tensor]:
    (path,) = (pipeline_folder / "unet").glob("*.safetensors")
    return load_file(path)


@pytest.fixture(scope="module")
def distilled(checkpoint, prepared_faces, tmp_path_factory) -> Path:
    """A finished run that leaves a LoRA."""
    output_dir = tmp_path_factory.mktemp("distilled") / "run"
    run(arguments.__wrapped__(checkpoint, prepared_faces)(output_dir))
    return output_dir


def swap(pipeline: FaceSwapInpaintPipeline, **more) -> torch.Tensor:
    pipeline.set_progress_bar_config(disable=True)
    return pipeline(**{**tiny_inputs(), **more}).images


def test_a_student_swaps_at_once_in_few_steps_without_guidance(distilled, checkpoint):
    pipeline = load_pipeline(distilled / "pipeline")
    assert isinstance(pipeline.scheduler, LCMScheduler)
    assert pipeline.scheduler.config["original_inference_steps"] == 10
    assert pipeline.scheduler.config["prediction_type"] == "epsilon"
    assert (pipeline.config["default_num_inference_steps"], pipeline.config["default_guidance_scale"]) == (4, 1.0)
    assert swap(pipeline).shape == (1, 3, CROP_SIZE, CROP_SIZE)
    assert pipeline.num_timesteps == 4
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


def test_full_training_moves_every_weight_of_the_unet(arguments, checkpoint, tmp_path):
    run(arguments(tmp_path / "run", "--output_type", "full", "--weight_decay", 0))
    assert not (tmp_path / "run" / "lora").exists()
    before, after = unet_weights(checkpoint), unet_weights(tmp_path / "run" / "pipeline")
    assert set(before) == set(after)
    assert [name for name, tensor in before.items() if torch.equal(tensor, after[name])] == []
    assert isinstance(load_pipeline(tmp_path / "run" / "pipeline").scheduler, LCMScheduler)


def test_going_on_ends_exactly_where_a_run_without_a_stop_ends(distilled, arguments, tmp_path, monkeypatch):
    class StopAtOne(distillation.Run):
        def save_state(self, step: int) -> Path:
            folder = super().save_state(step)
            if step == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return folder

    with monkeypatch.context() as patch:
        patch.setattr(distillation, "Run", StopAtOne)
        run(arguments(tmp_path / "run"))
    assert saved_steps(tmp_path / "run" / "states")[-1] == 2  # the step in which the signal was seen is finished
    assert not (tmp_path / "run" / "pipeline").exists()
    run(arguments(tmp_path / "run"))
    for name in ("history.csv", "lora/pytorch_lora_weights.safetensors"):
        assert (tmp_path / "run" / name).read_bytes() == (distilled / name).read_bytes(), name
    expected = unet_weights(distilled / "pipeline")
    for name, tensor in unet_weights(tmp_path / "run" / "pipeline").items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num_ddim_timesteps", 30], "use a divisor"),
        (["--num_ddim_timesteps", 2], "a swap of 4 steps"),
        (["--train_batch_size", 3], "use a multiple of 2"),
        (["--train_data_dir", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_work_is_one_line_and_exit_code_2(arguments, tmp_path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        run(arguments(tmp_path / "run", *more))
    assert stopped.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("distill_lcm.py:")]
    assert message in line


def test_going_on_with_other_settings_is_an_error(distilled, arguments, capsys):
    with pytest.raises(SystemExit):
        run(arguments(distilled, "--num_ddim_timesteps", 20))
    assert "num_ddim_timesteps" in capsys.readouterr().err


HALF_CROSS = Roles.from_shares(0.5, 0)


def batch_of(folder: Path, indices: range) -> SwapBatch:
    settings = SampleSettings(seed=0, global_batch_size=4, roles=HALF_CROSS, mask_sets={"face": 1.0})
    samples = SwapSamples(PreparedFaces([folder], CROP_SIZE), settings)
    return samples.collate([samples[index] for index in indices])


def objective_of(output_type: str = "full", **settings) -> ConsistencyObjective:
    pipeline = tiny_pipeline()
    teacher = split_off_teacher(pipeline)
    torch.manual_seed(0)
    make_student(pipeline, output_type, 2, 10, 4)
    return ConsistencyObjective(
        pipeline, teacher, ConsistencySettings(num_ddim_timesteps=10, num_rollout_steps=2, **settings)
    )


@pytest.mark.parametrize("output_type", ["full", "lora"])
def test_the_student_learns_and_the_teacher_stays(prepared_faces, output_type):
    """What is frozen has no gradient; the loss of one batch falls."""
    objective = objective_of(output_type, guidance_scale=2.0)
    batch = batch_of(prepared_faces, range(4))
    (teacher,) = objective.teacher
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    parameters = trained_parameters(objective)
    assert {id(parameter) for parameter in parameters} == {id(part) for part in trained_parameters(objective.unet)}
    optimizer = torch.optim.AdamW(parameters, lr=3e-3)
    losses = []
    for step in range(12):
        loss = objective(batch, step)["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_a_batch_costs_the_mean_of_its_halves(prepared_faces):
    """Every draw belongs to its sample, so processes and accumulated batches add up to one large batch."""
    objective = objective_of()
    with torch.no_grad():
        whole, *halves = (objective(batch_of(prepared_faces, part), 0) for part in (range(4), range(2), range(2, 4)))
    assert set(whole) == {"loss", "cross", "plain"}
    for name, value in whole.items():
        assert value.item() == pytest.approx(sum(half[name].item() for half in halves) / 2, rel=1e-4), name


def test_cross_samples_never_show_the_target(prepared_faces):
    """What is noised of them is made by the teacher: it depends on the target only through what a swap is given."""
    objective = objective_of()
    batch = batch_of(prepared_faces, range(4))
    with torch.no_grad():
        inputs = objective.inputs(batch, generators := [torch.Generator().manual_seed(0) for _ in range(4)])
        first = objective.clean_latents(batch, inputs, generators)
        batch.pixels = -batch.pixels
        generators = [torch.Generator().manual_seed(0) for _ in range(4)]
        objective.encode_masked(batch, generators)
        second = objective.clean_latents(batch, inputs, generators)
    assert torch.equal(first[:2], second[:2])
    assert not torch.isclose(first[2:], second[2:]).all()


def test_a_swap_of_a_cross_sample_is_the_pipelines_own(prepared_faces):
    """The teacher's swaps are those of a pipeline with a scheduler that goes the same way."""
    objective = objective_of()
    batch = batch_of(prepared_faces, range(4))
    generators = [torch.Generator().manual_seed(index) for index in range(4)]
    with torch.no_grad():
        inputs = objective.inputs(batch, generators)
        noise = [torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(7)) for _ in range(2)]
        swaps = objective.teachers_swaps(
            [part[:2] for part in inputs], [torch.Generator().manual_seed(7) for _ in range(2)]
        )
    masked, _, context = inputs
    pipeline = tiny_pipeline()
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    expected = pipeline(
        mask_image=batch.mask[:2], image=(batch.pixels[:2] + 1) / 2, masked_image_latents=masked[:2],
        condition_embeds=context[:2], latents=torch.cat(noise), num_inference_steps=2, guidance_scale=1.0,
        output_type="latent",
    ).images  # fmt: skip
    # The pipeline's last step goes to timestep 0, which has a little noise left; here it is the clean prediction.
    torch.testing.assert_close(swaps, expected, rtol=0.1, atol=0.1)


def test_swaps_begin_at_pure_noise(prepared_faces):
    objective = objective_of()
    latents = torch.full((64, 4, 16, 16), 100.0)
    noisy, timesteps = objective.start(latents, [torch.Generator().manual_seed(index) for index in range(64)])
    assert set(timesteps.tolist()) == {99, 199, 299, 399, 499, 599, 699, 799, 899, 999}
    begins = timesteps == 999
    assert noisy[begins].mean().abs() < 0.1
    assert (noisy[~begins].mean(dim=(1, 2, 3)) > 10).all()


@pytest.mark.parametrize("num_inference_steps", [1, 2, 4, 8])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_face_comes_out_the_same_alone_and_in_a_batch(num_inference_steps, prediction_type):
    """`LCMScheduler` draws noise between its steps, of each face's own generator."""
    pipeline = tiny_pipeline()
    trailing = {"timestep_spacing": "trailing", "prediction_type": prediction_type}
    pipeline.scheduler = LCMScheduler.from_config(pipeline.scheduler.config, original_inference_steps=10, **trailing)
    given = {name: value for name, value in tiny_inputs().items() if name not in ("generator", "image")}
    images = [tiny_inputs()["image"], tiny_inputs()["source_image"]]

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    settings = {**given, "num_inference_steps": num_inference_steps, "guidance_scale": 1.0}
    together = pipeline(image=images, generator=generators(3, 4), **settings).images
    assert pipeline.num_timesteps == num_inference_steps
    for index, seed in enumerate((3, 4)):
        alone = pipeline(image=images[index], generator=generators(seed), **settings).images
        torch.testing.assert_close(alone[0], together[index], rtol=0, atol=1e-4)
    if num_inference_steps > 1:
        other = pipeline(image=images[0], generator=generators(5), **settings).images
        assert (other[0] - together[0]).abs().max() > 1e-3
