"""Few-step students of the swap model by latent-consistency distillation (arXiv 2310.04378, 2311.05556)."""

import copy
from dataclasses import replace
from typing import cast

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from diffusers.utils.torch_utils import randn_tensor

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.inputs import resize
from faceswap_diffusion.training.config import ConsistencyConfig
from faceswap_diffusion.training.data.batches import SwapBatch
from faceswap_diffusion.training.engine.randomness import choose, generator_for
from faceswap_diffusion.training.engine.trainable import add_lora
from faceswap_diffusion.training.models.swap_module import SwapModule
from faceswap_diffusion.training.objectives.consistency import (
    consistency_function,
    guided,
    pseudo_huber,
    solver_step,
    solver_timesteps,
)
from faceswap_diffusion.training.objectives.losses import masked_mse
from faceswap_diffusion.training.objectives.sampling import ddim_predictions, visited_timesteps

LORA_LAYERS = [
    "to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2",
    "conv_shortcut", "downsamplers.0.conv", "upsamplers.0.conv", "time_emb_proj",
]  # fmt: skip
"""Layers that get additions of low rank: convolutions as well, as in diffusers' script for LCM-LoRA."""


def with_teacher_defaults(config: ConsistencyConfig, pipeline: FaceSwapInpaintPipeline) -> ConsistencyConfig:
    """Fills settings that are left out with the teacher's defaults.

    A teacher that was trained for few steps is worse on a longer way: the small model's likeness is lost there.

    Args:
        config (`ConsistencyConfig`): As it was given.
        pipeline (`FaceSwapInpaintPipeline`): The teacher.
    """
    num_steps, guidance_scale = (
        pipeline.config[f"default_{name}"] for name in ("num_inference_steps", "guidance_scale")
    )
    defaults = {"num_ddim_timesteps": num_steps, "num_rollout_steps": num_steps, "guidance_scale": guidance_scale}
    left_out = {name: value for name, value in defaults.items() if getattr(config, name) is None}
    return replace(config, **left_out)


def split_off_teacher(pipeline: FaceSwapInpaintPipeline) -> UNet2DConditionModel:
    """A frozen copy of a pipeline's UNet, for the pipeline's own to learn from."""
    return copy.deepcopy(pipeline.unet).requires_grad_(False).eval()


def make_student(
    pipeline: FaceSwapInpaintPipeline,
    output_type: str,
    lora_rank: int,
    num_ddim_timesteps: int,
    num_inference_steps: int,
) -> None:
    """Makes a few-step student of a checkpoint: its scheduler and defaults, and which parts are trained.

    All but the UNet is frozen: student and teacher share the conditions.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): Changed in place.
        output_type (`str`): `"full"`: the UNet is trained, `"lora"`: additions of low rank to it.
        lora_rank (`int`): Rank of these additions.
        num_ddim_timesteps (`int`): See `ConsistencyConfig`.
        num_inference_steps (`int`): Of a swap that names no number of steps, from now on.
    """
    for network in (pipeline.vae, pipeline.image_encoder, pipeline.conditioner):
        network.requires_grad_(False).eval()
    pipeline.unet.requires_grad_(output_type == "full").train()
    if output_type == "lora":
        add_lora(pipeline.unet, lora_rank, LORA_LAYERS)
    set_student_defaults(pipeline, num_ddim_timesteps, num_inference_steps)


def set_student_defaults(pipeline: FaceSwapInpaintPipeline, num_ddim_timesteps: int, num_inference_steps: int) -> None:
    """Gives a pipeline a `LCMScheduler` of the same noise, few steps and no guidance; see `make_student`.

    Raises:
        ValueError: If there are more steps in a swap than in the teacher's way.
    """
    if num_inference_steps > num_ddim_timesteps:
        raise ValueError(
            f"a swap of {num_inference_steps} steps needs as many solver steps, but there are {num_ddim_timesteps}: "
            "raise --num_ddim_timesteps, or lower --num_inference_steps"
        )
    scheduler = LCMScheduler.from_config(pipeline.scheduler.config, original_inference_steps=num_ddim_timesteps)
    pipeline.register_modules(scheduler=scheduler)
    pipeline.register_to_config(
        default_num_inference_steps=num_inference_steps, default_guidance_scale=1.0, default_strength=1.0
    )


class ConsistencyObjective(SwapModule):
    """The loss of a batch: the distance between the student's results from neighbouring states of the teacher.

    States are clean latents with noise, as `LCMScheduler` makes them between its steps. What is clean depends on the
    sample. Denoising samples have their own source, so that the target itself is what a swap would give. For
    cross-identity samples, with the source of another person, the clean state is unknown: a noised target would show
    the student a face that it must not generate, and a swap has no such states. There the teacher swaps first, in a
    few steps from noise, and its swap is noised.

    At the last timestep the state is pure noise, since there a swap begins (arXiv 2305.08891, section 3.3, has why it
    matters): noised latents would still carry information, and a single step has no other.

    The neighbour's end is computed by the student itself, without gradients: a running average of it is no better
    (arXiv 2310.14189, section 3.2).

    Args:
        pipeline (`FaceSwapInpaintPipeline`): The student, from `make_student`; trained in place.
        teacher (`UNet2DConditionModel`): From `split_off_teacher`.
        config (`ConsistencyConfig`): From `with_teacher_defaults`.
        identity_network (`str`): Which recogniser the embeddings of the samples are from.
        seed (`int`): The run's.

    Raises:
        ValueError: If the solver's steps do not divide the training timesteps.
    """

    def __init__(
        self,
        pipeline: FaceSwapInpaintPipeline,
        teacher: UNet2DConditionModel,
        config: ConsistencyConfig,
        identity_network: str = "sface",
        seed: int = 0,
    ):
        super().__init__(pipeline, identity_network)
        self.config, self.seed = config, seed
        self.num_ddim_timesteps = cast(int, config.num_ddim_timesteps)
        self.num_rollout_steps = cast(int, config.num_rollout_steps)
        self.guidance_scale = cast(float, config.guidance_scale)
        # In a tuple, so that it is no submodule: it is not trained and not saved.
        self.teacher = (teacher.to(pipeline.vae.device),)
        self.solver_timesteps = solver_timesteps(self.num_ddim_timesteps, len(self.alphas_cumprod))

    def forward(self, batch: SwapBatch, step: int) -> dict[str, torch.Tensor]:
        """Computes the loss.

        Args:
            batch (`SwapBatch`): On the device of the networks.
            step (`int`): Makes no difference here.

        Returns:
            `dict[str, torch.Tensor]`: Scalars: `"loss"`, and its mean over cross-identity and over denoising samples.
        """
        with torch.no_grad():
            generators = [generator_for(self.seed, "noise", index) for index in batch.indices.tolist()]
            inputs = self.inputs(batch, generators)
            noisy, timesteps = self.start(self.clean_latents(batch, inputs, generators), generators)
            earlier, earlier_timesteps = self.solve(noisy, timesteps, inputs)
            wanted = self.denoise(earlier, earlier_timesteps, inputs)
        error = masked_mse(self.denoise(noisy, timesteps, inputs), wanted, inputs[1], self.config.outside_weight)
        losses = pseudo_huber(error, self.config.huber_c)
        parts = {
            "cross_identity": losses[: batch.num_cross_identity],
            "denoising": losses[batch.num_cross_identity :],
        }
        return {"loss": losses.mean(), **{name: part.mean() for name, part in parts.items() if len(part)}}

    def inputs(self, batch: SwapBatch, generators: list[torch.Generator]) -> tuple[torch.Tensor, ...]:
        """Inputs of the UNet besides state and timestep: masked latents, mask and context."""
        masked = self.encode_masked(batch, generators)
        not_dropped = torch.zeros(len(masked), dtype=torch.bool, device=masked.device)
        context = self.context(**self.conditions(batch), dropped=not_dropped)
        return masked, resize(batch.mask, masked.shape[-2], masked.shape[-1]), context

    def clean_latents(
        self, batch: SwapBatch, inputs: tuple[torch.Tensor, ...], generators: list[torch.Generator]
    ) -> torch.Tensor:
        """Clean latents: swaps of the teacher for cross-identity samples, the targets for the others."""
        count = batch.num_cross_identity
        parts = []
        if count:
            parts.append(self.teachers_swaps([part[:count] for part in inputs], generators[:count]))
        if count < len(batch.pixels):
            parts.append(self.encode_targets(batch.pixels[count:]))
        return torch.cat(parts)

    def teachers_swaps(self, inputs: list[torch.Tensor], generators: list[torch.Generator]) -> torch.Tensor:
        """Clean latents (B', C, h, w) of the teacher's swaps from noise."""
        start = randn_tensor(inputs[0].shape, generators, inputs[0].device)
        timesteps = visited_timesteps(self.num_rollout_steps, len(self.alphas_cumprod)).to(start.device)
        alphas = self.alphas_cumprod.to(start.device)
        return ddim_predictions(
            lambda noisy, batch_timesteps: self.teach(noisy, batch_timesteps, *inputs),
            start,
            timesteps,
            alphas,
            self.prediction_type,
        )[-1]

    def start(self, latents: torch.Tensor, generators: list[torch.Generator]) -> tuple[torch.Tensor, torch.Tensor]:
        """Noises clean latents to a timestep that is drawn for each; returns states and timesteps."""
        positions = [choose(len(self.solver_timesteps), generator) for generator in generators]
        timesteps = self.solver_timesteps[positions].to(latents.device)
        noise = randn_tensor(latents.shape, generators, latents.device, latents.dtype)
        noisy = self.pipeline.scheduler.add_noise(latents, noise, timesteps)
        begins = timesteps == len(self.alphas_cumprod) - 1
        return torch.where(begins.view(-1, 1, 1, 1), noise, noisy), timesteps

    def solve(
        self, noisy: torch.Tensor, timesteps: torch.Tensor, inputs: tuple[torch.Tensor, ...]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Takes one step of the teacher's solver; returns states and timesteps."""
        skipped = len(self.alphas_cumprod) // self.num_ddim_timesteps
        earlier = (timesteps - skipped).clamp(min=0)
        output, alphas = self.teach(noisy, timesteps, *inputs), self.alphas_cumprod.to(noisy.device)
        return solver_step(output, noisy, timesteps, earlier, alphas, self.prediction_type), earlier

    def teach(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        masked: torch.Tensor,
        mask: torch.Tensor,
        context: torch.Tensor,
    ) -> torch.Tensor:
        """The teacher's output (B, C, h, w), with guidance."""
        output = self.predict(noisy, timesteps, masked, mask, context, *self.teacher)
        if self.guidance_scale <= 1:
            return output
        unconditional = self.conditioner.unconditional(len(context))
        return guided(
            output,
            self.predict(noisy, timesteps, masked, mask, unconditional, *self.teacher),
            self.guidance_scale,
        )

    def denoise(self, noisy: torch.Tensor, timesteps: torch.Tensor, inputs: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """Where the student ends (B, C, h, w), by its consistency function."""
        masked, mask, context = inputs
        output, alphas = self.predict(noisy, timesteps, masked, mask, context), self.alphas_cumprod.to(noisy.device)
        return consistency_function(output, noisy, timesteps, alphas, self.prediction_type)
