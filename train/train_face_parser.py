"""Trains the small `FaceParser` on aligned crops with label maps.

    accelerate launch train/train_face_parser.py --train_data_dir PARSING --output_dir runs/face_parser

PARSING holds square pictures NAME.jpg with NAME_seg.png (indices into `masks.parsing.LABELS`). Stop it at any time:
run the same command again and it goes on from the last saved state, to the same end.
"""

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import set_seed
from PIL import Image

from faceswap_diffusion.masks.parsing import LABELS, FaceParser
from faceswap_diffusion.training.engine.randomness import generator_for
from faceswap_diffusion.training.engine.segmentation import train_segmentation

STAYING = ("seed", "resolution", "block_out_channels", "max_train_steps", "learning_rate", "occlusion_probability")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data_dir", type=Path, required=True, help="folder of NAME.jpg with NAME_seg.png")
    parser.add_argument(
        "--output_dir", type=Path, required=True, help="receives the states and the finished face_parser/"
    )
    parser.add_argument("--resolution", type=int, default=128, help="side in pixels at which the parser looks")
    parser.add_argument("--block_out_channels", type=int, nargs="+", default=[24, 48, 96, 160])
    parser.add_argument("--train_batch_size", type=int, default=16)
    parser.add_argument("--max_train_steps", type=int, default=1800)
    parser.add_argument("--learning_rate", type=float, default=3e-3)
    parser.add_argument(
        "--occlusion_probability", type=float, default=0.3, help="share of faces with something before"
    )
    parser.add_argument("--validation_stride", type=int, default=20, help="every n-th picture is held out")
    parser.add_argument("--checkpointing_steps", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_labelled(folder: Path, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Reads pictures (N, 3, size, size) uint8 RGB and their labels (N, size, size) uint8, sorted by name."""
    label_paths = sorted(folder.glob("*_seg.png"))
    if not label_paths:
        raise ValueError(f"no label map found in {folder}: expected NAME.jpg with NAME_seg.png")
    pictures = np.empty((len(label_paths), size, size, 3), np.uint8)
    labels = np.empty((len(label_paths), size, size), np.uint8)
    for index, path in enumerate(label_paths):
        with Image.open(str(path).replace("_seg.png", ".jpg")) as picture, Image.open(path) as label:
            pictures[index] = picture.convert("RGB").resize((size, size), Image.Resampling.BOX)
            labels[index] = label.resize((size, size), Image.Resampling.NEAREST)
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


def main() -> None:
    args = parse_args()
    accelerator = Accelerator()
    set_seed(args.seed)
    pictures, labels = load_labelled(args.train_data_dir, 2 * args.resolution)
    held_out = torch.arange(len(pictures)) % args.validation_stride == 0
    shown = torch.nonzero(~held_out)[:, 0]
    rank, num_processes = accelerator.process_index, accelerator.num_processes
    batch_size = args.train_batch_size * num_processes

    parser = FaceParser(sample_size=args.resolution, block_out_channels=tuple(args.block_out_channels))
    settings = {name: getattr(args, name) for name in STAYING}
    settings |= {"global_batch_size": batch_size, "pictures": len(shown)}

    def loss_of_step(model: torch.nn.Module, step: int) -> torch.Tensor:
        torch.manual_seed(generator_for(args.seed, "step", step * num_processes + rank).initial_seed())
        rows = shown[rows_of_step(args.seed, step, len(shown), batch_size).chunk(num_processes)[rank]]
        pixels, wanted = random_affine(pictures[rows].float() / 255, labels[rows], args.resolution)
        random_occlusion(pixels, wanted, args.occlusion_probability)
        pixel_values = (random_colours(pixels) * 2 - 1).contiguous(memory_format=torch.channels_last)
        return parsing_loss(model(pixel_values.to(accelerator.device)), wanted.to(accelerator.device))

    def measure_held_out(is_over: bool) -> str:
        scores = intersection_over_union(parser, pictures[held_out], labels[held_out])
        table = ", ".join(f"{name} {score:.3f}" for name, score in zip(LABELS, scores, strict=True))
        return f"{table}, mean {scores.mean():.3f}"

    folder = args.output_dir / "face_parser"
    train_segmentation(accelerator, parser, folder, args, settings, loss_of_step, measure_held_out)


if __name__ == "__main__":
    main()
