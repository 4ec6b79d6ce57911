"""Trains the small image encoder: a CLIP vision tower that predicts pose, expression and light, not identity.

    accelerate launch train/train_image_encoder.py --train_data_dir data/faces --output_dir runs/image_encoder

In self-supervised training source and target are one picture, so an encoder that learns along with the swap model
learns to carry the identity of the target, and a swap then gives the target again. This one is taught beforehand, on
labels that hold no identity, and frozen: its `image_embeds` ARE the standardised labels (3 head pose, 52 blendshapes,
15 light).

The faces are those of train/prepare_faces.py. Stop it at any time: run the same command again and it goes on from the
last saved state, to the same end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jsonargparse.typing import PositiveInt
from torch import nn
from torch.utils.data import Dataset, default_collate
from tqdm.auto import tqdm
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.training.config import CropConfig, OptimizationConfig, OutputConfig, TrainingConfig
from faceswap_diffusion.training.data.batches import flip
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.encoder_labels import NUM_LABELS, labels_and_mirrored
from faceswap_diffusion.training.data.held_out import hold_out
from faceswap_diffusion.training.engine.randomness import draw_uniform, generator_for, row_of_sample
from faceswap_diffusion.training.engine.script import run_script
from faceswap_diffusion.training.engine.trainable import build_optimizer
from faceswap_diffusion.training.engine.trainer import Task, Trainer
from faceswap_diffusion.training.fields import FIXED, section, setting

SCRIPT = "train_image_encoder.py"
MASKED_SHARE = 1 / 3
"""How many views show the face alone, as a masked source does."""


@dataclass(frozen=True, kw_only=True)
class ViewConfig:
    """What the encoder sees."""

    image_size: int = setting(64, kind=PositiveInt, help="side of the encoder's view in pixels", resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Settings of train_image_encoder.py."""

    data: CropConfig = section("data", num_validation=256)
    view: ViewConfig = section("view")
    optimization: OptimizationConfig = section(
        "optimization",
        train_batch_size=64,
        max_train_steps=2500,
        learning_rate=1e-3,
        lr_warmup_steps=200,
        weight_decay=0.05,
        ema_decay=0.0,
        dataloader_num_workers=0,
    )
    output: OutputConfig = section("output", checkpoints_total_limit=1, report_to="none")


class LabelledViews(Dataset):
    """Augmented views of faces with their labels: sample number k of a run."""

    def __init__(
        self,
        faces: PreparedFaces,
        rows: Sequence[int],
        labels: tuple[torch.Tensor, torch.Tensor],
        image_size: int,
        seed: int,
    ):
        self.faces, self.rows, self.labels, self.image_size, self.seed = faces, rows, labels, image_size, seed

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """A view (3, image_size, image_size), RGB around [-1, 1], and its labels (70,).

        Mirroring, and a gain and an offset for each colour channel, which change the light's labels likewise.
        """
        generator = generator_for(self.seed, "sample", index)
        row = self.rows[row_of_sample(self.seed, index, len(self.rows))]
        face = self.faces[row]
        mirrored = draw_uniform(generator) < 0.5
        wanted = self.labels[int(mirrored)][row]
        gain = 0.9 + 0.2 * draw_uniform(generator) + 0.1 * (torch.rand(3, generator=generator) - 0.5)
        offset = 0.2 * (draw_uniform(generator) - 0.5)
        view = (face.pixels.float() / 127.5 - 1) * gain[:, None, None] + offset
        if draw_uniform(generator) < MASKED_SHARE:
            view = view * torch.from_numpy(repaint_mask(face.labels, face.landmarks, "face", self.faces.label_names))
        size = (self.image_size, self.image_size)
        view = F.interpolate(flip(view, mirrored)[None], size, mode="bilinear", align_corners=False)[0]
        light = wanted[55:].view(5, 3) * gain + offset
        return {"views": view, "labels": torch.cat([wanted[:55], light.flatten()])}


class EncoderObjective(nn.Module):
    """How far the encoder's embeddings are from the standardised labels."""

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, encoder: CLIPVisionModelWithProjection, labels: torch.Tensor):
        super().__init__()
        self.encoder = encoder
        self.register_buffer("mean", labels.mean(0))
        self.register_buffer("std", labels.std(0).clamp(min=0.02))  # a blendshape that never moves is not blown up

    def standardise(self, labels: torch.Tensor) -> torch.Tensor:
        return (labels - self.mean) / self.std

    def forward(self, batch: dict[str, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """The loss of `views` (B, 3, H, W), RGB around [-1, 1], with their `labels` (B, 70)."""
        predicted = self.encoder(pixel_values=batch["views"]).image_embeds
        return {"loss": F.smooth_l1_loss(predicted.float(), self.standardise(batch["labels"]).clamp(-5, 5))}


def build_encoder(image_size: int) -> CLIPVisionModelWithProjection:
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=112, intermediate_size=336, num_hidden_layers=4, num_attention_heads=4,
            image_size=image_size, patch_size=8, projection_dim=NUM_LABELS,
        )
    )  # fmt: skip


@torch.no_grad()
def explained_variance(objective: EncoderObjective, samples: LabelledViews) -> str:
    """Median explained variance of the three groups of labels (some blendshapes hardly ever move), of one epoch."""
    held_out = default_collate([samples[index] for index in range(len(samples.rows))])
    views, labels = (held_out[name].to(objective.mean.device) for name in ("views", "labels"))
    predicted = torch.cat([objective.encoder(pixel_values=part).image_embeds for part in views.split(64)])
    wanted = objective.standardise(labels)
    explained = 1 - (predicted - wanted).square().mean(0) / wanted.var(0)
    groups = {"head pose": explained[:3], "blendshapes": explained[3:55], "light": explained[55:]}
    return ", ".join(f"{name} {values.median():.3f}" for name, values in groups.items())


def validate(objective: EncoderObjective, samples: LabelledViews, trainer: Trainer, step: int) -> None:
    """Measures the encoder on held-out faces, and writes it."""
    if not trainer.accelerator.is_main_process:
        return
    explained = explained_variance(objective, samples)
    loss = trainer.history.last()["loss"]
    tqdm.write(f"step {step}: loss {loss:.4f}, held-out explained variance {explained}")
    objective.encoder.save_pretrained(trainer.config.output.output_dir / "image_encoder")


def build_trainer(config: Config, accelerator: Accelerator) -> Trainer[Config]:
    data, size, optimization = config.data, config.view.image_size, config.optimization
    faces = PreparedFaces(data.train_data_dir, data.resolution)
    rows, held_out = hold_out(len(faces), data.num_validation)
    labels = labels_and_mirrored(faces)
    training, validation = (
        LabelledViews(faces, chosen, labels, size, optimization.seed) for chosen in (rows, held_out)
    )
    objective = EncoderObjective(build_encoder(size), torch.cat(labels))
    trained = list(objective.encoder.parameters())
    groups = [{"params": trained, "lr": optimization.learning_rate, "betas": (0.9, 0.999)}]
    task = Task(
        objective=objective,
        optimizer=build_optimizer(groups, optimization.weight_decay, use_8bit_adam=False),
        samples=training,
        validate=partial(validate, objective, validation),
        faces=faces.summary,
    )
    return Trainer(config, accelerator, task)


def finish(trainer: Trainer[Config]) -> None:
    size = {"height": trainer.config.view.image_size, "width": trainer.config.view.image_size}
    CLIPImageProcessorPil(
        size=size, crop_size=size, image_mean=[0.5] * 3, image_std=[0.5] * 3, do_center_crop=False
    ).save_pretrained(trainer.config.output.output_dir / "feature_extractor")


def main(arguments: Sequence[str] | None = None) -> None:
    run_script(Config, SCRIPT, __doc__, arguments, build_trainer, finish)


if __name__ == "__main__":
    main()
