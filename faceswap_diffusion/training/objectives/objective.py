"""The objective of the swap model: the loss of a batch. All trained networks are in one module."""

from dataclasses import dataclass

import torch
from diffusers.utils.torch_utils import randn_tensor

from faceswap_diffusion.faces.landmarks import NET_SIZE
from faceswap_diffusion.faces.mesh_topology import DLIB68_FROM_MESH
from faceswap_diffusion.metrics.lpips import LPIPS
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.inputs import resize
from faceswap_diffusion.pipelines.latents import channel_count, decode
from faceswap_diffusion.training.config import LossConfig
from faceswap_diffusion.training.data.augmentation import jitter_views
from faceswap_diffusion.training.data.batches import SampleRoles, SwapBatch
from faceswap_diffusion.training.data.latents import EncodedBatch
from faceswap_diffusion.training.engine.randomness import choose, draw_uniform, generator_for
from faceswap_diffusion.training.models.swap_module import SwapModule
from faceswap_diffusion.training.objectives.discriminator import PatchDiscriminator, discriminator_loss, generator_loss
from faceswap_diffusion.training.objectives.losses import (
    coarse_loss,
    identity_loss,
    masked_mse,
    min_snr_weights,
    perceptual_loss,
    prediction_target,
)
from faceswap_diffusion.training.objectives.mesh_network import MeshNetwork
from faceswap_diffusion.training.objectives.sampling import ddim_predictions, visited_timesteps


@dataclass(frozen=True)
class Draws:
    """Random draws of a batch. They depend on each sample's number, not on the batch.

    Args:
        generators (`list[torch.Generator]`): One a sample, for what is drawn later.
        noise (`torch.Tensor`): (B, C, h, w).
        timesteps (`torch.Tensor`): (B,).
        dropped (`torch.Tensor`): (B,), bool: samples without a condition.
    """

    generators: list[torch.Generator]
    noise: torch.Tensor
    timesteps: torch.Tensor
    dropped: torch.Tensor


class SwapObjective(SwapModule):
    """The loss of a batch (REFace, arXiv 2409.07269, section 3.3, and what we added).

    With an adversarial weight, a discriminator is its submodule as well.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): A whole checkpoint; it is trained in place.
        config (`LossConfig`): See there.
        roles (`SampleRoles`): Of the samples that are to come: what is denoised only once is never judged.
        identity_network (`str`): Which recogniser the embeddings of the samples are from; where the checkpoint has
            another, sources are embedded again.
        seed (`int`): The run's.
    """

    def __init__(
        self,
        pipeline: FaceSwapInpaintPipeline,
        config: LossConfig,
        roles: SampleRoles,
        identity_network: str = "sface",
        seed: int = 0,
    ):
        super().__init__(pipeline, identity_network)
        judged = (roles.num_cross_identity + roles.num_self_reconstruction) and config.adversarial_weight
        # Of latents: in pictures it sees artefacts of the autoencoder, which the UNet cannot change.
        latent_channels = channel_count(pipeline.vae)
        self.discriminator = PatchDiscriminator(latent_channels, channels=64) if judged else None
        self.config, self.seed = config, seed
        # In tuples, so that they are no submodules: they are not trained and not saved.
        self.lpips = (LPIPS().to(pipeline.vae.device),) if config.lpips_weight else ()
        self.mesh: tuple[MeshNetwork, ...] = ()
        if config.landmarks_weight:
            self.mesh = (MeshNetwork().to(pipeline.vae.device),)

    def forward(self, batch: SwapBatch | EncodedBatch, step: int) -> dict[str, torch.Tensor]:
        """Computes every term.

        Args:
            batch (`SwapBatch` or `EncodedBatch`): On the device of the networks. What is encoded already has plain
                samples only: the others need pictures.
            step (`int`): Decides how far samples are denoised, alike in all processes, which wait for one another.

        Returns:
            `dict[str, torch.Tensor]`: Scalars; `"loss"` is what to minimise.
        """
        if isinstance(batch, EncodedBatch):
            encoded, draws = batch, self.draw(batch, batch.latents)
        else:
            encoded, draws = self.encode(batch)
        num_rolled_out = batch.num_cross_identity + batch.num_self_reconstruction
        context = self.context(**encoded.conditions, dropped=draws.dropped)
        losses = {}
        if num_rolled_out < len(context):
            losses["denoising"] = self.denoising_loss(encoded, context, draws, slice(num_rolled_out, None))
        if isinstance(batch, SwapBatch) and num_rolled_out:
            losses |= self.rolled_out_losses(batch, encoded, context, draws, step)
        return {"loss": self.total(losses), **losses}

    def encode(self, batch: SwapBatch) -> tuple[EncodedBatch, Draws]:
        """Inputs of UNet and conditioner for the samples, and their random draws."""
        latents = self.encode_targets(batch.pixels)
        draws = self.draw(batch, latents)
        encoded = EncodedBatch(
            latents=latents,
            masked=self.encode_masked(batch, draws.generators),
            mask=resize(batch.mask, latents.shape[-2], latents.shape[-1]),
            **self.conditions(batch),
            indices=batch.indices,
            num_cross_identity=batch.num_cross_identity,
            num_self_reconstruction=batch.num_self_reconstruction,
        )
        return encoded, draws

    def rolled_out_losses(
        self, batch: SwapBatch, encoded: EncodedBatch, context: torch.Tensor, draws: Draws, step: int
    ) -> dict[str, torch.Tensor]:
        """The terms of samples that go through several steps."""
        num_rolled_out = batch.num_cross_identity + batch.num_self_reconstruction
        latents, masked, mask = encoded.latents, encoded.masked, encoded.mask
        x0s = self.roll_out(latents, masked, mask, context, draws.noise, step, slice(num_rolled_out))
        losses = {}
        if batch.num_self_reconstruction:
            own = slice(batch.num_cross_identity, num_rolled_out)
            losses["self_reconstruction"] = self.self_reconstruction_loss(x0s, latents, mask, own)
        if batch.num_cross_identity:
            losses |= self.cross_identity_losses(x0s, batch, encoded.identity_embeds, draws.generators)
        if self.discriminator is not None:
            losses |= self.adversarial_losses(
                self.discriminator, x0s[-1], latents[:num_rolled_out], mask[:num_rolled_out]
            )
        return losses

    def total(self, losses: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weighted sum. The discriminator's own loss says nothing about the model: its weight is 1."""
        weighted = [getattr(self.config, f"{name}_weight", 1.0) * loss for name, loss in losses.items()]
        return torch.stack(weighted).sum()

    def draw(self, batch: SwapBatch | EncodedBatch, latents: torch.Tensor) -> Draws:
        """Draws noise, timesteps and dropout of each sample; none of those that are rolled out is dropped."""
        config = self.config
        generators = [generator_for(self.seed, "noise", index) for index in batch.indices.tolist()]
        noise = randn_tensor(latents.shape, generator=generators, device=latents.device, dtype=latents.dtype)
        positions = torch.tensor([draw_uniform(generator) for generator in generators])
        if config.timestep_sampling == "late":
            positions = positions.sqrt()
        dropped = torch.tensor(
            [draw_uniform(generator) < config.unconditional_probability for generator in generators]
        )
        dropped[: batch.num_cross_identity + batch.num_self_reconstruction] = False
        timesteps = (positions * len(self.alphas_cumprod)).long()
        return Draws(generators, noise, timesteps.to(latents.device), dropped.to(latents.device))

    def denoising_loss(
        self, encoded: EncodedBatch, context: torch.Tensor, draws: Draws, chosen: slice
    ) -> torch.Tensor:
        """Squared error of the UNet's prediction on noised latents (DDPM, arXiv 2006.11239, eq. 14, or in v)."""
        parts = encoded.latents, encoded.masked, encoded.mask, context
        latents, masked, mask, context = (part[chosen] for part in parts)
        noise, timesteps = draws.noise[chosen], draws.timesteps[chosen]
        noisy = self.pipeline.scheduler.add_noise(latents, noise, timesteps)
        output = self.predict(noisy, timesteps, masked, mask, context)
        alphas = self.alphas_cumprod.to(timesteps.device)[timesteps]
        wanted = prediction_target(latents, noise, alphas, self.prediction_type)
        errors = masked_mse(output, wanted, mask, self.config.outside_weight)
        if self.config.snr_gamma is not None:
            errors = errors * min_snr_weights(alphas, self.config.snr_gamma, self.prediction_type)
        return errors.mean()

    def draw_visited(self, step: int) -> torch.Tensor:
        """Timesteps that samples are denoised through in a step."""
        config, generator = self.config, generator_for(self.seed, "step", step)
        num_steps = config.num_rollout_steps[choose(len(config.num_rollout_steps), generator)]
        num_taken = max(1, int(num_steps * config.rollout_strength))
        depth = num_taken if config.rollout_depth == "full" else 1 + choose(num_taken, generator)
        return visited_timesteps(num_steps, len(self.alphas_cumprod))[-num_taken:][:depth]

    def roll_out(
        self,
        latents: torch.Tensor,
        masked: torch.Tensor,
        mask: torch.Tensor,
        context: torch.Tensor,
        noise: torch.Tensor,
        step: int,
        rolled_out: slice,
    ) -> list[torch.Tensor]:
        """Denoises through several steps, with gradients through the last `num_gradient_steps`.

        A noised target still holds the target's face, a swap never sees that: states of the model's own making close
        this gap.

        Returns:
            `list[torch.Tensor]`: The clean latents (B', C, h, w) predicted in each step that has gradients.
        """
        latents, masked, mask, context, start = (part[rolled_out] for part in (latents, masked, mask, context, noise))
        timesteps = self.draw_visited(step).to(latents.device)
        from_target = self.config.rollout_start == "target"
        if from_target or self.config.rollout_strength < 1:
            clean = latents if from_target else masked
            start = self.pipeline.scheduler.add_noise(clean, start, timesteps[:1].expand(len(clean)))
        return ddim_predictions(
            lambda noisy, batch_timesteps: self.predict(noisy, batch_timesteps, masked, mask, context),
            start,
            timesteps,
            self.alphas_cumprod.to(latents.device),
            self.prediction_type,
            self.config.num_gradient_steps,
            self.config.rollout_checkpointing,
        )

    def self_reconstruction_loss(
        self, x0s: list[torch.Tensor], latents: torch.Tensor, mask: torch.Tensor, own: slice
    ) -> torch.Tensor:
        """Squared error of the predictions for samples that are reconstructed."""
        errors = [masked_mse(x0[own], latents[own], mask[own], self.config.outside_weight) for x0 in x0s]
        return torch.stack(errors).mean()

    def cross_identity_losses(
        self,
        x0s: list[torch.Tensor],
        batch: SwapBatch,
        identity_embeds: torch.Tensor,
        generators: list[torch.Generator],
    ) -> dict[str, torch.Tensor]:
        """Losses of swaps without ground truth: identity and LPIPS in every step, the others in the last."""
        cross = slice(batch.num_cross_identity)
        mask, target = batch.mask[cross], batch.pixels[cross]
        swaps = [self.decode(x0[cross], target, mask) for x0 in x0s]
        embeds = [self.embed_identity(jitter_views(swap, generators[cross]), mask) for swap in swaps]
        losses = {
            "identity": torch.stack([identity_loss(embed, identity_embeds[cross]).mean() for embed in embeds]).mean(),
            "coarse": coarse_loss(swaps[-1], target, mask).mean(),
        }
        if self.config.attributes_weight:
            losses["attributes"] = self.attributes_loss(swaps[-1], target)
        if self.mesh:
            losses["landmarks"] = self.landmarks_loss(swaps[-1], batch.landmarks[cross])
        if self.lpips:
            losses["lpips"] = perceptual_loss(swaps, target, self.lpips[0].distance).mean()
        return losses

    def attributes_loss(self, swaps: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Squared error between image features of swaps and of their targets.

        For encoders that see pose, expression and light but not who it is, as that of `train/train_image_encoder.py`:
        these should stay the target's. CLIP itself knows people.
        """
        return (self.clip_embeds(swaps) - self.clip_embeds(target)).square().mean()

    def landmarks_loss(self, swaps: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        """Distance of the swaps' mesh from the wanted landmarks, in hundredths of the crop's side.

        Args:
            swaps (`torch.Tensor`): (B, 3, S, S), RGB in [-1, 1], upright.
            wanted (`torch.Tensor`): (B, 68, 2), in pixels.
        """
        side = swaps.shape[-1]
        with torch.autocast(swaps.device.type, enabled=False):  # half precision cannot represent neighbouring pixels
            mesh = self.mesh[0](resize(swaps.float() / 2 + 0.5, NET_SIZE, NET_SIZE))
        points = (mesh[:, DLIB68_FROM_MESH, :2] + 0.5) * side / NET_SIZE - 0.5
        return (points - wanted).norm(dim=-1).mean() * 100 / side

    def decode(self, x0: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The picture of predicted latents inside the mask, the target around it, RGB in [-1, 1]."""
        decoded = decode(self.pipeline.vae, x0).float()
        return decoded * mask + target * (1 - mask)

    def adversarial_losses(
        self, discriminator: PatchDiscriminator, x0: torch.Tensor, latents: torch.Tensor, mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """The model's loss, and the discriminator's, which judges latents (LADD, arXiv 2403.12015, eq. 2).

        Args:
            discriminator (`PatchDiscriminator`): The judge.
            x0 (`torch.Tensor`): (B, C, h, w), predicted.
            latents (`torch.Tensor`): (B, C, h, w), of the targets, which are real, and lie around what was generated.
            mask (`torch.Tensor`): (B, 1, h, w), 1 = generated.
        """
        generated = x0 * mask + latents * (1 - mask)
        discriminator.requires_grad_(False)
        verdict = discriminator(generated)
        discriminator.requires_grad_(True)
        weights = resize(mask, verdict.shape[-2], verdict.shape[-1])
        real, fake = discriminator(torch.cat([latents, generated.detach()])).chunk(2)
        return {
            "adversarial": generator_loss(verdict, weights).mean(),
            "discriminator": discriminator_loss(real, fake, weights).mean(),
        }
