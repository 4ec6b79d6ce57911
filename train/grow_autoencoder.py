"""Grows an autoencoder to crops of twice the side. Its latents stay what they were: the first of more channels.

    accelerate launch train/grow_autoencoder.py --train_data_dir data/faces_256 --output_dir runs/vae_256_encoder \\
        --pretrained_model_name_or_path runs/vae/vae --resolution 256 --latent_channels 8

This teaches the encoder alone, which has target latents (see `LatentTargets`) and needs no decoder. Then

    accelerate launch train/train_autoencoder.py --train_data_dir data/faces_256 --output_dir runs/vae_256 \\
        --pretrained_model_name_or_path runs/vae_256_encoder/vae --decoder_only --latent_noise 0.1 \\
        --resolution 256 --crop_size 128

teaches the decoder. Stop it at any time: run the same command again and it goes on from the last saved state.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from accelerate import Accelerator
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from jsonargparse.typing import NonNegativeFloat, PositiveInt
from torch import nn
from tqdm.auto import tqdm

from faceswap_diffusion.pipelines.latents import load_autoencoder, posterior
from faceswap_diffusion.training.config import (
    CropConfig,
    OptimizationConfig,
    OutputConfig,
    TrainingConfig,
    WindowConfig,
)
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.held_out import hold_out
from faceswap_diffusion.training.data.windows import Windows
from faceswap_diffusion.training.engine.script import run_script
from faceswap_diffusion.training.engine.trainable import build_optimizer, trained_parameters
from faceswap_diffusion.training.engine.trainer import Task, Trainer
from faceswap_diffusion.training.fields import FIXED, section, setting
from faceswap_diffusion.training.models.autoencoder_growth import grow_autoencoder
from faceswap_diffusion.training.models.latent_targets import LatentTargets, fit_new_channels
from faceswap_diffusion.training.objectives.reconstruction import load_crops

SCRIPT = "grow_autoencoder.py"


@dataclass(frozen=True, kw_only=True)
class GrowthConfig:
    """Which autoencoder grows, and how."""

    pretrained_model_name_or_path: str = setting(help="autoencoder of half the resolution", resume=FIXED)
    latent_channels: int = setting(8, kind=PositiveInt, resume=FIXED)
    distill_weight: float = setting(3.0, kind=NonNegativeFloat, help="of the old channels", resume=FIXED)
    num_fitted: int = setting(32, kind=PositiveInt, help="faces that show what is missing", resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Settings of grow_autoencoder.py."""

    data: CropConfig = section("data", resolution=256, num_validation=32)
    windows: WindowConfig = section("windows", crop_size=128, recolor_probability=0.15)
    growth: GrowthConfig = section("model")
    optimization: OptimizationConfig = section(
        "optimization",
        train_batch_size=3,
        max_train_steps=1600,
        learning_rate=1.2e-3,
        lr_warmup_steps=50,
        weight_decay=0.0,
        ema_decay=0.0,
        dataloader_num_workers=0,
    )
    output: OutputConfig = section("output", checkpoints_total_limit=1, report_to="none")


class GrowthObjective(nn.Module):
    """The squared error of an encoder's scaled latents."""

    def __init__(self, distill_weight: float, vae: AutoencoderKL, targets: LatentTargets):
        super().__init__()
        self.distill_weight, self.vae = distill_weight, vae
        self.targets = (targets,)  # in a tuple: they are neither trained nor saved
        vae.decoder.requires_grad_(False)
        vae.get_submodule("post_quant_conv").requires_grad_(False)

    def forward(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """The loss of `images` (B, 3, H, W), RGB in [-1, 1]."""
        images = batch["images"]
        wanted = self.targets[0].to(images.device)(images)
        errors = (posterior(self.vae, images).mean - wanted) * self.vae.config["scaling_factor"]
        was = self.targets[0].old.config["latent_channels"]
        old, new = (part.square().mean() for part in (errors[:, :was], errors[:, was:]))
        return {"loss": self.distill_weight * old + new}


@torch.no_grad()
def unexplained(vae: AutoencoderKL, targets: LatentTargets, images: torch.Tensor) -> list[float]:
    """Squared error of each channel over the variance of its target."""
    pairs = [(posterior(vae, image).mean, targets(image)) for image in images.to(vae.device).split(1)]
    got, wanted = (torch.cat(part) for part in zip(*pairs, strict=True))
    return ((got - wanted).square().mean((0, 2, 3)) / wanted.var((0, 2, 3))).tolist()


def validate(objective: GrowthObjective, images: torch.Tensor, trainer: Trainer, step: int) -> None:
    """Measures the latents of held-out faces, and writes the autoencoder."""
    if not trainer.accelerator.is_main_process:
        return
    shares = " ".join(f"{share:.3f}" for share in unexplained(objective.vae, objective.targets[0], images))
    loss = trainer.history.last()["loss"]
    tqdm.write(f"step {step}: loss {loss:.4f}, held out: unexplained share of each channel {shares}")
    objective.vae.save_pretrained(trainer.config.output.output_dir / "vae")


def build_trainer(config: Config, accelerator: Accelerator) -> Trainer[Config]:
    data, windows, growth, optimization = config.data, config.windows, config.growth, config.optimization
    faces = PreparedFaces(data.train_data_dir, data.resolution)
    rows, held_out_rows = hold_out(len(faces), data.num_validation)
    held_out_images = load_crops(faces, held_out_rows)
    fitted_images = load_crops(faces, rows[:: max(1, len(rows) // growth.num_fitted)])
    old = load_autoencoder(growth.pretrained_model_name_or_path)
    vae = grow_autoencoder(old, growth.latent_channels)
    targets = LatentTargets(old, growth.latent_channels - old.config["latent_channels"], fitted_images)
    fit_new_channels(vae, targets, fitted_images)
    objective = GrowthObjective(growth.distill_weight, vae, targets)
    groups = [{"params": trained_parameters(vae), "lr": optimization.learning_rate, "betas": (0.9, 0.99)}]
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
