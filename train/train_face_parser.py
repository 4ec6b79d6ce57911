"""Trains the small `FaceParser` on aligned crops with label maps.

    accelerate launch train/train_face_parser.py --train_data_dir PARSING --output_dir runs/face_parser

PARSING holds square pictures NAME.jpg with NAME_seg.png (indices into `masks.parsing.LABELS`). Stop it at any time:
run the same command again and it goes on from the last saved state, to the same end.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jsonargparse.typing import ClosedUnitInterval, PositiveInt
from PIL import Image
from torch import nn
from torch.utils.data import Dataset

from faceswap_diffusion.masks.parsing import LABELS, FaceParser
from faceswap_diffusion.training.config import OptimizationConfig, OutputConfig, TrainingConfig
from faceswap_diffusion.training.engine.randomness import generator_for
from faceswap_diffusion.training.engine.script import run_script
from faceswap_diffusion.training.engine.trainer import Task, Trainer, as_it_is
from faceswap_diffusion.training.fields import FIXED, section, setting

SCRIPT = "train_face_parser.py"


@dataclass(frozen=True, kw_only=True)
class LabelledConfig:
    """Which pictures are trained on."""

    train_data_dir: Path = setting(help="folder of NAME.jpg with NAME_seg.png")
    resolution: int = setting(128, kind=PositiveInt, help="side in pixels at which the parser looks", resume=FIXED)
    occlusion_probability: float = setting(
        0.3, kind=ClosedUnitInterval, help="share of faces with something before", resume=FIXED
    )
    validation_stride: int = setting(20, kind=PositiveInt, help="every n-th picture is held out", resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class ParserConfig:
    """Which parser is trained."""

    block_out_channels: tuple[int, ...] = setting((24, 48, 96, 160), kind=PositiveInt, resume=FIXED)


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Settings of train_face_parser.py."""

    data: LabelledConfig = section("data")
    model: ParserConfig = section("model")
    optimization: OptimizationConfig = section(
        "optimization",
        max_train_steps=1800,
        learning_rate=3e-3,
        lr_warmup_steps=50,
        ema_decay=0.0,
        dataloader_num_workers=0,
    )
    output: OutputConfig = section(
        "output", checkpointing_steps=200, validation_steps=200, checkpoints_total_limit=1, report_to="none"
    )


def load_labelled(folder: Path, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads pictures (N, 3, size, size) uint8 RGB and their labels (N, size, size) uint8, sorted by name."""
    label_paths = sorted(folder.glob("*_seg.png"))
    if not label_paths:
        raise ValueError(f"no label map found in {folder}: expected NAME.jpg with NAME_seg.png")
    pictures = np.empty((len(label_paths), size, size, 3), np.uint8)
    labels = np.empty((len(label_paths), size, size), np.uint8)
    for index, path in enumerate(label_paths):
        with Image.open(str(path).replace("_seg.png", ".jpg")) as picture, Image.open(path) as label:
            pictures[index] = np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BOX))
            labels[index] = np.asarray(label.resize((size, size), Image.Resampling.NEAREST))
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)


def random_affine(pixels: torch.Tensor, labels: torch.Tensor, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Flips, turns, scales and shifts pictures and labels alike, and brings both to `size`; edges are mirrored."""
    batch_size = len(pixels)
    angle = torch.randn(batch_size) * 0.12
    scale = torch.empty(batch_size).uniform_(0.85, 1.2)
    flip = torch.where(torch.rand(batch_size) < 0.5, -1.0, 1.0)
    shift = torch.randn(batch_size, 2, 1) * 0.05
    cos, sin = scale * angle.cos(), scale * angle.sin()
    rotation = torch.stack([cos * flip, -sin, sin * flip, cos], 1).view(batch_size, 2, 2)
    grid = F.affine_grid(torch.cat([rotation, shift], 2), [batch_size, 3, size, size], align_corners=False)
    moved = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    moved_labels = F.grid_sample(
        labels[:, None].float(), grid, mode="nearest", padding_mode="reflection", align_corners=False
    )
    return moved, moved_labels[:, 0].long()


def random_occlusion(pixels: torch.Tensor, labels: torch.Tensor, probability: float) -> None:
    """Lays a blob or a bar, textured with an enlarged piece of another picture, over some faces: "other"."""
    size = pixels.shape[-1]
    for index in range(len(pixels)):
        if torch.rand(()) >= probability:
            continue
        x, y = (size * (0.5 + 0.2 * torch.randn(2))).tolist()
        width, height, angle = (torch.rand(3) * torch.tensor([0.6 * size, 0.25 * size, 180])).tolist()
        shape = np.zeros((size, size), np.uint8)
        cv2.ellipse(shape, ((x, y), (8 + width, 6 + height), angle), 1, -1)
        top, left = torch.randint(size // 2, (2,)).tolist()
        piece = pixels[index - 1, :, top : top + size // 3, left : left + size // 3]
        texture = F.interpolate(piece[None], size=(size, size), mode="bilinear")[0]
        covered = torch.from_numpy(shape).bool()
        pixels[index] = torch.where(covered, texture, pixels[index])
        labels[index] = torch.where(covered, LABELS.index("other"), labels[index])


def random_colours(pixels: torch.Tensor) -> torch.Tensor:
    """Changes light, contrast, cast, saturation and noise of pictures (B, 3, H, W) in [0, 1]; some turn grey."""
    shape = (len(pixels), 1, 1, 1)
    grey = pixels.mean(1, keepdim=True)
    saturation = torch.where(torch.rand(shape) < 0.1, 0.0, torch.empty(shape).uniform_(0.4, 1.6))
    pixels = (grey + saturation * (pixels - grey)).clamp(1e-3, 1)
    pixels = pixels ** torch.exp(torch.randn(shape) * 0.35)
    mean = pixels.mean((1, 2, 3), keepdim=True)
    pixels = mean + (pixels - mean) * torch.exp(torch.randn(shape) * 0.2)
    pixels = pixels * torch.exp(torch.randn(len(pixels), 3, 1, 1) * 0.08) + torch.randn(shape) * 0.05
    return (pixels + torch.randn_like(pixels) * torch.rand(shape) * 0.05).clamp(0, 1)


def parsing_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy plus soft Dice (Milletari et al. 2016, eq. 1) averaged over labels, so that small ones count."""
    onehot = F.one_hot(labels, logits.shape[1]).permute(0, 3, 1, 2)
    probabilities = logits.softmax(1)
    overlap = (probabilities * onehot).sum((0, 2, 3))
    total = (probabilities + onehot).sum((0, 2, 3))
    return F.cross_entropy(logits, labels) + (1 - (2 * overlap + 1) / (total + 1)).mean()


def intersection_over_union(model: FaceParser, pictures: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    """IoU of every label over all held-out pixels, measured through `FaceParser.parse` at the pictures' own size."""
    confusion = np.zeros((len(LABELS), len(LABELS)), np.int64)
    for picture, wanted in zip(pictures, labels, strict=True):
        got = model.parse(np.ascontiguousarray(picture.permute(1, 2, 0).numpy()))
        np.add.at(confusion, (wanted.numpy(), got), 1)
    matched = np.diag(confusion)
    return matched / (confusion.sum(0) + confusion.sum(1) - matched)


def rows_of_step(seed: int, step: int, count: int, batch_size: int) -> torch.Tensor:
    """Which of `count` pictures a step takes: each comes once an epoch at most, in a new order."""
    steps_per_epoch = count // batch_size
    if not steps_per_epoch:
        raise ValueError(f"{count} pictures are fewer than a batch of {batch_size}: use a smaller --train_batch_size")
    epoch, position = divmod(step, steps_per_epoch)
    order = torch.randperm(count, generator=generator_for(seed, "order", epoch))
    return order[position * batch_size : (position + 1) * batch_size]


class LabelledBatches(Dataset):
    """Batches of a run, each by the numbers of its samples: augmented pictures and their labels.

    Args:
        pictures (`torch.Tensor`): (N, 3, 2S, 2S) uint8, RGB.
        labels (`torch.Tensor`): (N, 2S, 2S) uint8.
        config (`LabelledConfig`): How they are augmented, and their side S.
        seed (`int`): The run's.
        num_processes (`int`): Which share a step's pictures.
    """

    def __init__(
        self, pictures: torch.Tensor, labels: torch.Tensor, config: LabelledConfig, seed: int, num_processes: int
    ):
        self.pictures, self.labels, self.config = pictures, labels, config
        self.seed, self.num_processes = seed, num_processes

    def __getitems__(self, numbers: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Pictures (B, 3, S, S), RGB in [-1, 1], and labels (B, S, S) int64."""
        number = numbers[0] // len(numbers)
        step, rank = divmod(number, self.num_processes)
        torch.manual_seed(generator_for(self.seed, "step", number).initial_seed())
        rows = rows_of_step(self.seed, step, len(self.pictures), len(numbers) * self.num_processes)
        rows = rows.chunk(self.num_processes)[rank]
        pixels, wanted = random_affine(self.pictures[rows].float() / 255, self.labels[rows], self.config.resolution)
        random_occlusion(pixels, wanted, self.config.occlusion_probability)
        return (random_colours(pixels) * 2 - 1).contiguous(memory_format=torch.channels_last), wanted


class ParsingObjective(nn.Module):
    """The loss of a parser."""

    def __init__(self, network: FaceParser):
        super().__init__()
        self.network = network

    def forward(self, batch: tuple[torch.Tensor, torch.Tensor], step: int) -> dict[str, torch.Tensor]:
        """The loss of pictures and labels."""
        pixel_values, wanted = batch
        return {"loss": parsing_loss(self.network(pixel_values), wanted)}


def validate(network: FaceParser, pictures: torch.Tensor, labels: torch.Tensor, trainer: Trainer, step: int) -> None:
    """Measures the parser on pictures that are held out."""
    network.eval()
    scores = intersection_over_union(network, pictures, labels)
    network.train()
    table = ", ".join(f"{name} {score:.3f}" for name, score in zip(LABELS, scores, strict=True))
    loss = trainer.history.last()["loss"] if trainer.accelerator.is_main_process else 0.0
    trainer.accelerator.print(
        f"step {step}: loss {loss:.4f}, held-out IoU {table}, mean {scores.mean():.3f}", flush=True
    )


def build_trainer(config: Config, accelerator: Accelerator) -> Trainer[Config]:
    data, optimization = config.data, config.optimization
    pictures, labels = load_labelled(data.train_data_dir, 2 * data.resolution)
    held_out = torch.arange(len(pictures)) % data.validation_stride == 0
    network = FaceParser(sample_size=data.resolution, block_out_channels=config.model.block_out_channels)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    shown, num_processes = ~held_out, accelerator.num_processes
    task = Task(
        objective=ParsingObjective(network),
        optimizer=torch.optim.AdamW(
            network.parameters(), lr=optimization.learning_rate, weight_decay=optimization.weight_decay
        ),
        samples=LabelledBatches(pictures[shown], labels[shown], data, optimization.seed, num_processes),
        validate=partial(validate, network, pictures[held_out], labels[held_out]),
        collate=as_it_is,
        facts={"pictures": int(shown.sum())},
    )
    return Trainer(config, accelerator, task)


def finish(trainer: Trainer[Config]) -> None:
    network: Any = trainer.task.objective.get_submodule("network")
    network.half().save_pretrained(trainer.config.output.output_dir / "face_parser")


def main(arguments: Sequence[str] | None = None) -> None:
    run_script(Config, SCRIPT, __doc__, arguments, build_trainer, finish)


if __name__ == "__main__":
    main()
