"""The objective: what it trains, that it is a mean over samples, and what each term sees."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from faceswap_diffusion.faces.mesh_topology import dlib68
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.latents import posterior, rebuild
from faceswap_diffusion.training.config import LossConfig, SampleConfig
from faceswap_diffusion.training.data.batches import SampleRoles, SwapBatch, SwapSamples
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.engine.trainable import build_optimizer, select_trainable, trained_parameters
from faceswap_diffusion.training.models.new_model import exchange_autoencoder
from faceswap_diffusion.training.objectives.objective import SwapObjective
from tests.tiny import CROP_SIZE, tiny_autoencoder, tiny_conditioner, tiny_pipeline

ROLES = SampleRoles.from_shares(0.25, 0.25)
ROUNDING = 1e-5  # of the usual gradient: what is 0 on paper may be rounding's on one processor and 0 on another


@pytest.fixture(scope="module")
def batch(prepared_faces) -> SwapBatch:
    return batch_of(prepared_faces, range(8))


def batch_of(folder, indices, roles: SampleRoles = ROLES) -> SwapBatch:
    samples = SwapSamples(PreparedFaces([folder], CROP_SIZE), SampleConfig(mask_sets=("face",)), roles, 8)
    return samples.collate([samples[index] for index in indices])


def objective_of(mode: str = "full", roles: SampleRoles = ROLES, pipeline=None, **settings) -> SwapObjective:
    pipeline = pipeline or tiny_pipeline()
    torch.manual_seed(0)
    select_trainable(pipeline, mode, lora_rank=2)
    return SwapObjective(
        pipeline,
        LossConfig(**{"num_rollout_steps": (2,), "coarse_weight": 0.5, "identity_weight": 1.0, **settings}),
        roles,
    )


def moved_after_two_steps(objective: SwapObjective, batch: SwapBatch) -> dict[str, bool]:
    """Which of all parameters of the checkpoint and of the discriminator two steps of the optimiser moved, by name.

    Adam takes whole steps along gradients of any size: those that are nothing but rounding do not count.
    """
    parts = {
        "unet": objective.unet, "conditioner": objective.conditioner, "discriminator": objective.discriminator,
        "vae": objective.pipeline.vae, "image_encoder": objective.pipeline.image_encoder,
    }  # fmt: skip
    named = {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.named_parameters()}
    before = {name: tensor.detach().clone() for name, tensor in named.items()}
    gradients = dict.fromkeys(named, 0.0)
    # No decay: it would move what the loss does not reach.
    optimizer = build_optimizer([{"params": trained_parameters(objective), "lr": 1e-2}], 0.0, use_8bit_adam=False)
    for step in range(2):
        objective(batch, step)["loss"].backward()
        for name, tensor in named.items():
            if tensor.grad is not None:
                gradients[name] = max(gradients[name], tensor.grad.abs().max().item())
        optimizer.step()
        optimizer.zero_grad()
    least = ROUNDING * float(np.median([size for size in gradients.values() if size]))
    return {name: gradients[name] > least and not torch.equal(before[name], tensor) for name, tensor in named.items()}


@pytest.mark.parametrize("combine", ["concat", "sum"])
def test_every_parameter_that_should_train_does_and_no_other(batch, combine):
    """The original leaves its mapper and three projections at their random start."""
    pipeline = tiny_pipeline()
    tokens = 1 if combine == "sum" else 2
    conditioner = tiny_conditioner(mapper_layers=2, combine=combine, identity_tokens=tokens)
    pipeline.register_modules(conditioner=conditioner)
    moved = moved_after_two_steps(objective_of(pipeline=pipeline, unconditional_probability=0.5), batch)
    frozen = {name for name in moved if name.startswith(("vae.", "image_encoder."))}
    still = {name for name, has_moved in moved.items() if not has_moved}
    assert still == frozen | unreachable(moved, combine)
    for part in ("mapper.0", "mapper_norm", "identity_projection", "source_projection", "target_projection",
                 "landmark_projection", "unconditional"):  # fmt: skip
        assert any(name.startswith(f"conditioner.{part}") and has_moved for name, has_moved in moved.items()), part


@pytest.mark.parametrize("kind", ["AutoencoderTiny", "AutoencoderDC", "AsymmetricAutoencoderKL"])
def test_a_model_around_any_kind_of_autoencoder_trains(batch, kind):
    """With samples that are denoised to the end and decoded, too."""
    pipeline = exchange_autoencoder(tiny_pipeline(), tiny_autoencoder(kind))
    objective = objective_of(pipeline=pipeline)
    moved = moved_after_two_steps(objective, batch)
    assert any(has_moved for name, has_moved in moved.items() if name.startswith("unet."))
    assert not any(has_moved for name, has_moved in moved.items() if name.startswith("vae."))
    targets = objective.encode_targets(batch.pixels)
    painted = objective.decode(targets, batch.pixels, torch.ones_like(batch.mask))
    torch.testing.assert_close(painted, rebuild(pipeline.vae, posterior(pipeline.vae, batch.pixels)))


def unreachable(names, combine: str) -> set[str]:
    """Softmax over a single key is 1: with one token the UNet's cross attention has no use for queries and keys."""
    unused = ("attn2.to_q", "attn2.to_k", "transformer_blocks.0.norm2") if combine == "sum" else ()
    return {name for name in names if name.startswith("unet.") and any(part in name for part in unused)}


def test_attention_training_moves_attention_layers_and_the_conditioner_alone(batch):
    moved = moved_after_two_steps(objective_of("attention"), batch)
    for name, has_moved in moved.items():
        if name.startswith("unet."):
            assert has_moved <= ("attn" in name or "attentions" in name), name
        if name.startswith(("vae.", "image_encoder.")):
            assert not has_moved, name
    assert any(has_moved for name, has_moved in moved.items() if "attn2.to_v" in name)
    assert any(has_moved for name, has_moved in moved.items() if name.startswith("conditioner."))


def test_lora_training_moves_the_additions_alone(batch):
    moved = moved_after_two_steps(objective_of("lora"), batch)
    for name, has_moved in moved.items():
        if not name.startswith("discriminator."):
            assert has_moved <= ("lora_" in name), name
    assert all(has_moved for name, has_moved in moved.items() if "attn1" in name and "lora_B" in name)


def test_a_batch_costs_the_mean_of_its_halves(prepared_faces, batch):
    """So that processes and accumulated batches add up to one large batch: every draw belongs to its sample."""
    objective = objective_of(unconditional_probability=0.3, adversarial_weight=0.4)
    halves = [batch_of(prepared_faces, indices) for indices in (range(4), range(4, 8))]
    state = copy.deepcopy(objective.state_dict())

    def costs(part: SwapBatch) -> dict[str, float]:
        objective.load_state_dict(state)  # a forward pass moves the discriminator's spectral norm
        return {name: value.item() for name, value in objective(part, 3).items()}

    whole, first, second = costs(batch), *(costs(half) for half in halves)
    assert set(whole) == {
        "loss",
        "denoising",
        "self_reconstruction",
        "identity",
        "coarse",
        "adversarial",
        "discriminator",
    }
    for name, value in whole.items():
        assert value == pytest.approx((first[name] + second[name]) / 2, rel=1e-4, abs=1e-5), name


def test_the_loss_is_the_weighted_sum_of_its_terms(batch):
    weights = {
        "self_reconstruction_weight": 0.7,
        "identity_weight": 3.0,
        "coarse_weight": 0.2,
        "adversarial_weight": 0.5,
    }
    losses = objective_of(**weights)(batch, 0)
    wanted = losses["denoising"] + losses["discriminator"]
    wanted = wanted + sum(
        weights[f"{name}_weight"] * losses[name]
        for name in ("self_reconstruction", "identity", "coarse", "adversarial")
    )
    torch.testing.assert_close(losses["loss"], wanted)


def test_attributes_are_those_of_the_target_as_the_image_encoder_sees_them(batch):
    objective = objective_of(attributes_weight=1.0)
    swaps = batch.pixels[:2].clone().requires_grad_()
    assert objective.attributes_loss(swaps, batch.pixels[:2]).item() == 0
    wanted = (objective.clip_embeds(batch.pixels[2:4]) - objective.clip_embeds(batch.pixels[:2])).square().mean()
    loss = objective.attributes_loss(swaps, batch.pixels[2:4])
    torch.testing.assert_close(loss, wanted)
    loss.backward()
    assert swaps.grad is not None
    assert swaps.grad.abs().sum() > 0
    assert "attributes" in objective(batch, 0)


def test_landmarks_are_those_that_the_swap_was_to_have(prepared_faces):
    """A picture of its own landmarks costs little; where they lie 3 pixels beside it, that much more."""
    faces = PreparedFaces([prepared_faces], CROP_SIZE)
    records = [faces[row] for row in range(4)]
    pixels = torch.stack([record.pixels for record in records]).float() / 127.5 - 1
    wanted = torch.from_numpy(np.stack([dlib68(record.landmarks) for record in records])).float()
    objective = objective_of(landmarks_weight=1.0)
    swaps = pixels.requires_grad_()
    loss = objective.landmarks_loss(swaps, wanted)
    assert loss.item() < 1.5
    step = 3.0
    moved = objective.landmarks_loss(torch.roll(swaps, int(step), dims=-1), wanted + torch.tensor([step, 0.0]))
    assert moved.item() == pytest.approx(loss.item(), abs=0.6)
    apart = objective.landmarks_loss(swaps, wanted + torch.tensor([step, 0.0]))
    assert apart.item() == pytest.approx(100 * step / CROP_SIZE, abs=1.5)
    loss.backward()
    assert swaps.grad is not None
    assert swaps.grad.abs().sum() > 0


def test_landmarks_are_a_term_of_their_own(batch):
    assert objective_of(landmarks_weight=0.5)(batch, 0)["landmarks"] > 0


@pytest.mark.parametrize("roles", [SampleRoles.from_shares(0.5, 0), SampleRoles.from_shares(0, 0.5)])
def test_what_is_painted_in_several_steps_is_judged_inside_its_mask_whoever_the_source_is(prepared_faces, roles):
    objective = objective_of(roles=roles, adversarial_weight=0.4)
    assert "adversarial" in objective(batch_of(prepared_faces, range(4), roles), 0)
    objective.eval()  # spectral norms stay
    x0, latents = torch.randn(2, 2, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 1, 16, 16)
    mask[..., 4:12, 4:12] = 1
    x0.requires_grad_()
    losses = objective.adversarial_losses(objective.discriminator, x0, latents, mask)
    losses["adversarial"].backward()
    assert x0.grad is not None
    assert ((x0.grad != 0).any(dim=1, keepdim=True) == (mask > 0)).all()
    assert all(parameter.grad is None for parameter in trained_parameters(objective.discriminator))
    untouched = objective.adversarial_losses(objective.discriminator, x0, latents, torch.zeros_like(mask))
    assert [value.item() for value in untouched.values()] == [0, 0]


def test_without_roles_there_is_nothing_but_denoising(prepared_faces):
    plain = SampleRoles.from_shares(0, 0)
    objective = objective_of(roles=plain, adversarial_weight=0.4)
    assert objective.discriminator is None
    assert set(objective(batch_of(prepared_faces, range(2), plain), 0)) == {"loss", "denoising"}


def test_min_snr_weights_lower_the_loss_of_clean_timesteps(batch):
    plain = objective_of(timestep_sampling="uniform")(batch, 0)["denoising"]
    weighted = objective_of(timestep_sampling="uniform", snr_gamma=5.0)(batch, 0)["denoising"]
    assert 0 < weighted < plain


def test_steps_of_a_roll_out_are_the_same_in_all_processes_and_reach_every_depth():
    objective = objective_of()
    objective.config = LossConfig(num_rollout_steps=(5,))
    torch.manual_seed(1)
    drawn = [objective.draw_visited(step).tolist() for step in range(60)]
    torch.manual_seed(2)
    assert [objective.draw_visited(step).tolist() for step in range(60)] == drawn
    whole = [999, 799, 599, 399, 199]  # DDIM's trailing spacing
    assert all(timesteps == whole[: len(timesteps)] for timesteps in drawn)
    assert {len(timesteps) for timesteps in drawn} == {1, 2, 3, 4, 5}
    objective.config = LossConfig(num_rollout_steps=(4,), rollout_depth="full")
    assert objective.draw_visited(0).tolist() == [999, 749, 499, 249]
    objective.config = LossConfig(num_rollout_steps=(5,), rollout_depth="full", rollout_strength=0.4)
    assert objective.draw_visited(0).tolist() == [399, 199]  # as a swap at strength 0.4


def test_below_strength_1_a_roll_out_starts_from_what_the_hidden_part_shows(batch):
    """At the first timestep a noised reference says much of itself: other references, other predictions."""
    objective = objective_of(rollout_depth="full")
    objective.config = LossConfig(num_rollout_steps=(5,), rollout_depth="full", rollout_strength=0.2)
    latents = objective.encode_targets(batch.pixels)
    masked, mask = torch.zeros_like(latents), torch.ones_like(latents[:, :1])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))
    context = objective.context(**objective.conditions(batch), dropped=torch.zeros(len(latents), dtype=torch.bool))
    seen = []
    objective.predict = lambda noisy, timesteps, *rest: seen.append((noisy, timesteps)) or torch.zeros_like(noisy)
    for shown in (masked, masked + 1):
        objective.roll_out(latents, shown, mask, context, noise, 0, slice(0, 4))
    (first, timesteps), (second, _) = seen
    assert timesteps.tolist() == [199] * 4
    alpha = objective.alphas_cumprod[199]
    torch.testing.assert_close(first, (1 - alpha).sqrt() * noise[:4])
    torch.testing.assert_close(second - first, alpha.sqrt().expand_as(first))


def test_gradients_reach_the_first_step_of_a_roll_out_only_if_they_may(batch):
    """Of the identity loss of the last step, through all steps between."""

    def gradients(**settings) -> torch.Tensor:
        objective = objective_of(rollout_depth="full", rollout_start="target", **settings)
        losses = objective(batch, 0)
        losses["identity"].backward()
        return torch.cat([parameter.grad.flatten() for parameter in objective.unet.parameters()])

    last, whole = gradients(num_gradient_steps=1), gradients(num_gradient_steps=None)
    assert not torch.allclose(last, whole)
    recomputed = gradients(num_gradient_steps=None, rollout_checkpointing=True)
    torch.testing.assert_close(recomputed, whole, rtol=1e-4, atol=1e-7)


def test_late_timesteps_are_drawn_more_often(batch):
    latents = torch.zeros(8, 4, 16, 16)
    batch = batch.to("cpu")
    drawn = {}
    for sampling in ("uniform", "late"):
        objective = objective_of(timestep_sampling=sampling)
        numbers = []
        for start in range(0, 400, 8):
            batch.indices = torch.arange(start, start + 8)
            numbers.append(objective.draw(batch, latents).timesteps)
        drawn[sampling] = torch.cat(numbers).float().mean()
    assert drawn["uniform"] == pytest.approx(500, abs=45)  # of a uniform draw, 400 numbers: deviation 14
    assert drawn["late"] == pytest.approx(667, abs=40)


def test_context_is_dropped_for_the_drawn_samples_alone(batch):
    objective = objective_of(unconditional_probability=1.0)
    draws = objective.draw(batch, torch.zeros(8, 4, 16, 16))
    assert draws.dropped.tolist() == [False] * 4 + [True] * 4  # none of those that go through several steps
    context = objective.context(**objective.conditions(batch), dropped=draws.dropped)
    torch.testing.assert_close(context[4:], objective.conditioner.unconditional(4))
    assert not torch.allclose(context[:4], objective.conditioner.unconditional(4))


def test_validation_like_views_see_the_target_outside_the_mask(batch):
    objective = objective_of()
    latents = objective.encode_targets(batch.pixels)
    swaps = objective.decode(latents, batch.pixels, torch.zeros_like(batch.mask))
    torch.testing.assert_close(swaps, batch.pixels)


def with_references(batch: SwapBatch, seed: int = 0) -> SwapBatch:
    """The same samples with references of noise, which cover most of what they should."""
    generator = torch.Generator().manual_seed(seed)
    reference = torch.rand(batch.pixels.shape, generator=generator) * 2 - 1
    coverage = (torch.rand(batch.mask.shape, generator=generator) * 4).clamp(max=1)
    return replace(batch, reference=reference, reference_mask=coverage)


@pytest.fixture
def showing_references(tmp_path) -> FaceSwapInpaintPipeline:
    """A checkpoint like REFace's, which is to show references from now on."""
    tiny_pipeline(mask_identity=True).save_pretrained(tmp_path)
    pipeline = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
    pipeline.register_to_config(hidden_fill="reference")
    return pipeline


def test_a_checkpoint_like_refaces_learns_from_references(batch, showing_references):
    moved = moved_after_two_steps(objective_of(pipeline=showing_references), with_references(batch))
    assert moved["unet.conv_in.weight"]
    assert moved["conditioner.landmark_projection.weight"]
    assert {name for name, has_moved in moved.items() if has_moved and name.startswith(("vae.", "image_enc"))} == set()


def test_references_are_shown_as_the_pipeline_shows_them(batch, showing_references):
    objective = objective_of(pipeline=showing_references)
    samples = with_references(batch).to("cpu")

    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(index) for index in range(8)]

    got = objective.encode_masked(samples, generators())
    pipeline, side = objective.pipeline, CROP_SIZE
    fill = pipeline.prepare_fill(samples.reference / 2 + 0.5, samples.reference_mask, None, side, side)
    with torch.no_grad():
        _, expected = pipeline.prepare_mask_latents(
            samples.pixels, samples.mask, None, torch.float32, torch.device("cpu"), generators(), *fill
        )
    torch.testing.assert_close(got, expected)
    whole = objective.encode_masked(replace(samples, reference_mask=None), generators())
    assert (whole - got).abs().max() > 1e-3  # it covers everything then
    other = objective.encode_masked(with_references(batch, seed=1), generators())
    assert (other - got).abs().max() > 1e-3


def test_references_must_be_there_where_they_are_shown_and_are_left_out_elsewhere(batch, showing_references):
    with pytest.raises(ValueError, match="hidden_fill is 'reference', but the samples carry no references"):
        objective_of(pipeline=showing_references)(batch, 0)
    grey = objective_of()
    assert torch.equal(grey(with_references(batch), 0)["denoising"], grey(batch, 0)["denoising"])
