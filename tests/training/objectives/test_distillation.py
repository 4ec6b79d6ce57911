"""What a student is taught: the teacher stays, states are those of a swap, and every draw belongs to its sample."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from faceswap_diffusion.training.config import ConsistencyConfig, SampleConfig
from faceswap_diffusion.training.data.batches import SampleRoles, SwapBatch, SwapSamples
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.engine.trainable import trained_parameters
from faceswap_diffusion.training.objectives.distillation import ConsistencyObjective, make_student, split_off_teacher
from tests.tiny import CROP_SIZE, tiny_pipeline

HALF_CROSS = SampleRoles.from_shares(0.5, 0)


def batch_of(folder: Path, indices: range) -> SwapBatch:
    samples = SwapSamples(PreparedFaces([folder], CROP_SIZE), SampleConfig(mask_sets=("face",)), HALF_CROSS, 4)
    return samples.collate([samples[index] for index in indices])


def objective_of(output_type: str = "full", **settings) -> ConsistencyObjective:
    pipeline = tiny_pipeline()
    teacher = split_off_teacher(pipeline)
    torch.manual_seed(0)
    make_student(pipeline, output_type, 2, 10, 4)
    given = {"num_ddim_timesteps": 10, "num_rollout_steps": 2, "guidance_scale": 1.0, **settings}
    return ConsistencyObjective(pipeline, teacher, ConsistencyConfig(**given))


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
    assert set(whole) == {"loss", "cross_identity", "denoising"}
    for name, value in whole.items():
        assert value.item() == pytest.approx(sum(half[name].item() for half in halves) / 2, rel=1e-4), name


def test_cross_samples_never_show_the_target(prepared_faces):
    """What is noised of them depends on the target only through what a swap is given of it."""
    objective = objective_of()
    batch = batch_of(prepared_faces, range(4))
    other = replace(batch, pixels=-batch.pixels)

    def clean_latents(shown: SwapBatch) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(index) for index in range(4)]
        return objective.clean_latents(shown, inputs, generators)

    with torch.no_grad():
        inputs = objective.inputs(batch, [torch.Generator().manual_seed(0) for _ in range(4)])
        latents, others = clean_latents(batch), clean_latents(other)
        assert torch.equal(latents[2:], objective.encode_targets(batch.pixels[2:]))
    assert torch.equal(latents[:2], others[:2])
    assert (latents[2:] - others[2:]).abs().max() > 0.01


@pytest.mark.parametrize("guidance_scale", [1.0, 2.0])
def test_a_cross_sample_is_swapped_as_by_the_pipeline(prepared_faces, guidance_scale):
    objective = objective_of(guidance_scale=guidance_scale)
    batch = batch_of(prepared_faces, range(4))
    with torch.no_grad():
        inputs = objective.inputs(batch, [torch.Generator().manual_seed(0) for _ in range(4)])
        masked, _, context = inputs = [part[:2] for part in inputs]
        swaps = objective.teachers_swaps(inputs, [torch.Generator().manual_seed(index) for index in range(2)])
    pipeline = tiny_pipeline()
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, timestep_spacing="trailing", set_alpha_to_one=True
    )
    expected = pipeline(
        mask_image=batch.mask[:2], masked_image_latents=masked, condition_embeds=context, num_inference_steps=2,
        guidance_scale=guidance_scale, generator=[torch.Generator().manual_seed(index) for index in range(2)],
        output_type="latent",
    ).images  # fmt: skip
    torch.testing.assert_close(swaps, expected, rtol=1e-3, atol=1e-4)


def test_swaps_begin_at_pure_noise(prepared_faces):
    objective = objective_of()
    latents = torch.full((64, 4, 16, 16), 100.0)
    noisy, timesteps = objective.start(latents, [torch.Generator().manual_seed(index) for index in range(64)])
    assert set(timesteps.tolist()) == {99, 199, 299, 399, 499, 599, 699, 799, 899, 999}
    begins = timesteps == 999
    assert noisy[begins].mean().abs() < 0.1
    assert (noisy[~begins].mean(dim=(1, 2, 3)) > 10).all()
