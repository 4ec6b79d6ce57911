"""Trains the small `AutoencoderKL` whose latents the swap model paints in.

    accelerate launch train/train_autoencoder.py --train_data_dir data/faces --output_dir runs/vae

The second stage leaves the latents as they are, so that a swap model trained on them stays valid, and teaches the
decoder alone, against a discriminator, to paint sharply what latents with small errors stand for:

    accelerate launch train/train_autoencoder.py --train_data_dir data/faces --output_dir runs/vae_sharp \\
        --pretrained_model_name_or_path runs/vae/vae --decoder_only --latent_noise 0.15 --adversarial_weight 0.1

So learns the decoder of an autoencoder that train/grow_autoencoder.py has grown, too.

The faces are those of train/prepare_faces.py. Stop it at any time: run the same command again and it goes on from the
last saved state, to the same end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import nn
from tqdm.auto import tqdm

from faceswap_diffusion.metrics.lpips import LPIPS
from faceswap_diffusion.pipelines.latents import (
    Autoencoder,
    freeze_encoder,
    load_autoencoder,
    posterior,
    scale_and_shift,
)
from faceswap_diffusion.training.config import (
    CropConfig,
    OptimizationConfig,
    OutputConfig,
    TrainingConfig,
    WindowConfig,
)
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.held_out import hold_out
from faceswap_diffusion.training.data.windows import Windows, random_window
from faceswap_diffusion.training.engine.randomness import draw_uniform, generator_for
from faceswap_diffusion.training.engine.script import run_script
from faceswap_diffusion.training.engine.trainable import build_optimizer, trained_parameters
from faceswap_diffusion.training.engine.trainer import Task, Trainer
from faceswap_diffusion.training.fields import FIXED, section, setting
from faceswap_diffusion.training.objectives.discriminator import (
    PatchDiscriminator,
    discriminator_loss,
    generator_loss,
)
from faceswap_diffusion.training.objectives.losses import reconstruction_loss
from faceswap_diffusion.training.objectives.reconstruction import load_crops, reconstruct

SCRIPT = "train_autoencoder.py"


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig:
    """Which autoencoder is trained."""

    pretrained_model_name_or_path: str | None = setting(
        None, help="autoencoder to go on from: folder or Hub id", resume=FIXED
    )
    decoder_only: bool = setting(False, help="leave the encoder, and with it the latents, alone", resume=FIXED)
    block_out_channels: tuple[int, ...] = setting((16, 32, 64), kind=PositiveInt, resume=FIXED)
    latent_channels: int = setting(4, kind=PositiveInt, resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig:
    """What the loss is made of."""

    kl_weight: float = setting(
        1e-6, kind=NonNegativeFloat, help="weight of the KL term: Stable Diffusion's", resume=FIXED
    )
    gradient_weight: float = setting(1.0, kind=NonNegativeFloat, help="of the L1 of gradients", resume=FIXED)
    color_weight: float = setting(2.0, kind=NonNegativeFloat, help="of the L1 of 8 x 8 means", resume=FIXED)
    latent_noise: float = setting(0.0, kind=NonNegativeFloat, help="share of the latents' spread", resume=FIXED)
    lpips_weight: float = setting(
        0.0, kind=NonNegativeFloat, help="needs `faceswap-diffusion fetch lpips_vgg16`", resume=FIXED
    )
    lpips_crop_size: int = setting(64, kind=PositiveInt, help="of random windows for LPIPS", resume=FIXED)
    adversarial_weight: float = setting(0.0, kind=NonNegativeFloat, help="of the discriminator", resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Settings of train_autoencoder.py."""

    data: CropConfig = section("data")
    windows: WindowConfig = section("windows")
    model: AutoencoderConfig = section("model")
    reconstruction: ReconstructionConfig = section("objective")
    optimization: OptimizationConfig = section(
        "optimization",
        train_batch_size=8,
        max_train_steps=4000,
        learning_rate=1.5e-3,
        weight_decay=0.0,
        ema_decay=0.0,
        dataloader_num_workers=0,
    )
    output: OutputConfig = section("output", checkpoints_total_limit=1, report_to="none")


def build_autoencoder(config: AutoencoderConfig, resolution: int) -> AutoencoderKL:
    num_levels = len(config.block_out_channels)
    levels: dict[str, Any] = {  # whose annotations know of one level
        "block_out_channels": config.block_out_channels,
        "down_block_types": ("DownEncoderBlock2D",) * num_levels,
        "up_block_types": ("UpDecoderBlock2D",) * num_levels,
    }
    return AutoencoderKL(
        **levels,
        latent_channels=config.latent_channels,
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
        sample_size=resolution,
    )


class AutoencoderObjective(nn.Module):
    """The losses of autoencoder and discriminator in one forward pass."""

    def __init__(self, config: ReconstructionConfig, vae: Autoencoder, decoder_only: bool = False, seed: int = 0):
        super().__init__()
        self.config, self.decoder_only, self.seed = config, decoder_only, seed
        self.vae: Any = vae
        self.noise = config.latent_noise / scale_and_shift(vae)[0]
        self.discriminator = PatchDiscriminator() if config.adversarial_weight else None
        self.lpips = (LPIPS(),) if config.lpips_weight else ()  # in a tuple: it is neither trained nor saved
        if decoder_only:
            freeze_encoder(vae)

    def reconstruct(self, images: torch.Tensor, indices: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruction through noisy latents, and the KL term. What is drawn depends on the samples' numbers."""
        latents = posterior(self.vae, images)
        generators = [generator_for(self.seed, "noise", index) for index in indices.tolist()]
        shape = (2, *latents.mean.shape[1:])
        strength = (
            self.noise * torch.tensor([draw_uniform(generator) for generator in generators])[:, None, None, None]
        )
        sampling, noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators], 1)
        noisy = latents.mean + latents.std * sampling.to(images) + (strength * noise).to(images)
        return self.vae.decode(noisy, return_dict=False)[0].float(), latents.kl().mean()

    def forward(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """The loss of `images` (B, 3, H, W), RGB in [-1, 1], with the samples' numbers as `indices`."""
        config, images, indices = self.config, batch["images"], batch["indices"]
        reconstruction, kl = self.reconstruct(images, indices)
        loss = reconstruction_loss(reconstruction, images, config.gradient_weight, config.color_weight)
        if not self.decoder_only:
            loss = loss + config.kl_weight * kl
        for lpips in self.lpips:
            seen = self.lpips_windows(torch.stack([reconstruction, images], 1), indices)
            distances = lpips.to(images.device).distance(seen[:, 0], seen[:, 1])
            loss = loss + config.lpips_weight * distances.mean()
        if self.discriminator is not None:
            loss = loss + self.adversarial_loss(self.discriminator, reconstruction, images)
        return {"loss": loss}

    def lpips_windows(self, pairs: torch.Tensor, indices: torch.Tensor) -> torch.Tensor:
        """The same window of both pictures of a pair (B, 2, 3, H, W), drawn with the samples' numbers."""
        size = min(self.config.lpips_crop_size, pairs.shape[-1])
        return torch.stack([
            random_window(pair, size, generator_for(self.seed, "window", index))
            for pair, index in zip(pairs, indices.tolist(), strict=True)
        ])  # fmt: skip

    def adversarial_loss(
        self, discriminator: PatchDiscriminator, reconstruction: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """The autoencoder's and the discriminator's; the second says nothing about the autoencoder."""
        discriminator.requires_grad_(False)
        generated = generator_loss(discriminator(reconstruction)).mean()
        discriminator.requires_grad_(True)
        real, fake = discriminator(torch.cat([images, reconstruction.detach()])).chunk(2)
        return self.config.adversarial_weight * generated + discriminator_loss(real, fake).mean()

    def parameter_groups(self, learning_rate: float) -> list[dict]:
        groups = [{"params": trained_parameters(self.vae), "lr": learning_rate, "betas": (0.9, 0.99)}]
        if self.discriminator is not None:
            groups.append({"params": list(self.discriminator.parameters()), "lr": 4e-4, "betas": (0.5, 0.99)})
        return groups


def validate(objective: AutoencoderObjective, images: torch.Tensor, trainer: Trainer, step: int) -> None:
    """Measures reconstructions of held-out faces, and writes the autoencoder."""
    if not trainer.accelerator.is_main_process:
        return
    vae, held_out = objective.vae, reconstruct(objective.vae, images)
    tqdm.write(
        f"step {step}: loss {trainer.history.last()['loss']:.4f}, held out: PSNR {held_out.psnr:.2f} dB, gradient "
        f"energy {held_out.gradient_energy:.2f}, latent std {held_out.latent_std:.3f}"
    )
    if not objective.decoder_only:
        vae.register_to_config(scaling_factor=1 / held_out.latent_std)
    vae.save_pretrained(trainer.config.output.output_dir / "vae")


def build_trainer(config: Config, accelerator: Accelerator) -> Trainer[Config]:
    data, windows, optimization = config.data, config.windows, config.optimization
    if windows.crop_size > data.resolution:
        raise ValueError(
            f"windows of {windows.crop_size} pixels are larger than crops of {data.resolution}: lower --crop_size"
        )
    faces = PreparedFaces(data.train_data_dir, data.resolution)
    rows, held_out_rows = hold_out(len(faces), data.num_validation)
    held_out_images = load_crops(faces, held_out_rows)
    started_from = config.model.pretrained_model_name_or_path
    vae = load_autoencoder(started_from) if started_from else build_autoencoder(config.model, data.resolution)
    objective = AutoencoderObjective(config.reconstruction, vae, config.model.decoder_only, optimization.seed)
    groups = objective.parameter_groups(optimization.learning_rate)
    task = Task(
        objective=objective,
        optimizer=build_optimizer(groups, optimization.weight_decay, use_8bit_adam=False),
        samples=Windows(faces, rows, windows.crop_size, windows.recolor_probability, optimization.seed),
        validate=partial(validate, objective, held_out_images),
        faces=faces.summary,
    )
    return Trainer(config, accelerator, task)


def main(arguments: Sequence[str] | None = None) -> None:
    run_script(Config, SCRIPT, __doc__, arguments, build_trainer, lambda trainer: None)


if __name__ == "__main__":
    main()
