"""Samples that are already encoded, as far as the plain denoising loss needs them, and their folders."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch.utils.data import Dataset

from faceswap_diffusion.training.data.batches import TensorBatch
from faceswap_diffusion.training.data.dataset import FacesSummary
from faceswap_diffusion.training.engine.randomness import draw_uniform, generator_for

DESCRIPTION = "latents.json"
"""The file of a folder of latents that describes its shards."""

SPATIAL = ("latents", "masked", "mask")
"""What of a sample is cut to the window."""

CONDITIONS = ("identity_embeds", "source_clip_embeds", "target_clip_embeds", "landmarks")
"""What of a sample the UNet's context is made of."""

STORED = {
    "latents": torch.float16,
    "masked": torch.float16,
    "mask": torch.float16,
    "identity_embeds": torch.float16,
    "source_clip_embeds": torch.float16,
    "target_clip_embeds": torch.float16,
    "landmarks": torch.float32,  # half precision knows pixels of large crops by eighths
}
"""Tensors of a shard, the samples one after the other, and their types."""

WINDOW_JITTER = 3.0  # latents in each direction, so that borders of windows say nothing about faces


@dataclass
class EncodedBatch(TensorBatch):
    """B samples as UNet and conditioner get them, in the order of a [`SwapBatch`].

    Args:
        latents (`torch.Tensor`): (B, C, h, w), scaled, of the targets.
        masked (`torch.Tensor`): (B, C, h, w), scaled, of the targets with their faces hidden.
        mask (`torch.Tensor`): (B, 1, h, w), 1 = repaint.
        identity_embeds (`torch.Tensor`): (B, D), of the sources.
        source_clip_embeds (`torch.Tensor`): (B, E), what the image encoder sees of the sources.
        target_clip_embeds (`torch.Tensor`): (B, E), what it sees of the targets.
        landmarks (`torch.Tensor`): (B, 68, 2), of the targets, in pixels of the crops.
        indices (`torch.Tensor`): (B,), numbers of the samples in the run.
        num_cross_identity (`int`): See [`SwapBatch`].
        num_self_reconstruction (`int`): See [`SwapBatch`].
    """

    latents: torch.Tensor
    masked: torch.Tensor
    mask: torch.Tensor
    identity_embeds: torch.Tensor
    source_clip_embeds: torch.Tensor
    target_clip_embeds: torch.Tensor
    landmarks: torch.Tensor
    indices: torch.Tensor
    num_cross_identity: int = 0
    num_self_reconstruction: int = 0

    @property
    def conditions(self) -> dict[str, torch.Tensor]:
        """Inputs of the context, see `SwapModule.context`."""
        return {name: getattr(self, name) for name in CONDITIONS}


class CachedSamples(Dataset):
    """Samples that train/cache_latents.py encoded. Where a run has more, they come again, with other noise.

    Args:
        folder (`Path`): Which it wrote.
        window (`int`, *optional*): Side of the window around each mask, in latents; the whole crop if left out.

    Attributes:
        description (`dict[str, Any]`): What the folder says of itself.
        summary ([`FacesSummary`]): The faces that the samples were made of.
        fingerprint (`str`): SHA-256 over the description.

    Raises:
        ValueError: If the folder holds no latents, or not all, or the window is larger than they are.
    """

    def __init__(self, folder: Path, window: int | None = None):
        self.folder, self.window = folder, window
        self.description = read_description(folder)
        self.summary = FacesSummary(
            **{**self.description["faces"], "folders": (*self.description["faces"]["folders"],)}
        )
        self.fingerprint = hashlib.sha256(json.dumps(self.description, sort_keys=True).encode()).hexdigest()
        side = self.description["latent_size"]
        if window is not None and window > side:
            raise ValueError(f"--latent_window {window} is larger than the {side} x {side} latents of {folder}")
        self._shards: dict[int, Any] = {}

    def __len__(self) -> int:
        """Number of samples."""
        return self.description["num_samples"]

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Reads the sample of a number: the tensors of an `EncodedBatch`, without the batch's dimension."""
        number, row = divmod(index % len(self), self.description["shard_size"])
        shard = self._shard(number)
        sample = {name: shard.get_slice(name)[row].float() for name in STORED}
        if self.window is not None:
            top, left = draw_window(sample["mask"][0], self.window, self.description["seed"], index)
            for name in SPATIAL:
                sample[name] = sample[name][:, top : top + self.window, left : left + self.window].contiguous()
        return {**sample, "indices": torch.tensor(index)}

    def collate(self, samples: list[dict[str, torch.Tensor]]) -> EncodedBatch:
        """Puts samples into a batch."""
        stacked: dict[str, Any] = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
        return EncodedBatch(**stacked)

    def _shard(self, number: int) -> Any:
        """A shard, mapped into memory when it is first asked for: each process of a loader has its own."""
        if number not in self._shards:
            self._shards[number] = safe_open(shard_path(self.folder, number), "pt")
        return self._shards[number]


def read_description(folder: Path) -> dict[str, Any]:
    """Reads the description of a folder of latents.

    Args:
        folder (`Path`): The folder.

    Raises:
        ValueError: If it holds no latents, or not all of them.
    """
    path = folder / DESCRIPTION
    if not path.exists():
        raise ValueError(f"{folder} holds no latents: make them of prepared faces with train/cache_latents.py")
    description = json.loads(path.read_text(encoding="utf-8"))
    missing = missing_shards(folder, description["num_samples"], description["shard_size"])
    if missing:
        raise ValueError(
            f"{folder} lacks {len(missing)} shard(s), the first is {shard_path(folder, missing[0]).name}: run "
            "cache_latents.py again with the same arguments"
        )
    return description


def check_settings(cached: CachedSamples, wanted: dict[str, Any]) -> None:
    """Refuses samples that differ from those that the run would draw and encode itself.

    Args:
        cached ([`CachedSamples`]): The samples.
        wanted (`dict[str, Any]`): What the run has, of the description's keys.

    Raises:
        ValueError: Naming the first difference.
    """
    for name, value in json.loads(json.dumps(wanted)).items():
        found = cached.description[name]
        if found != value:
            raise ValueError(
                f"{cached.folder} was made with {name} {found}, the run has {value}: give the run the same, or encode "
                "samples again with train/cache_latents.py"
            )


def missing_shards(folder: Path, num_samples: int, shard_size: int) -> list[int]:
    """Numbers of the shards that are still to be written."""
    return [number for number in range(-(-num_samples // shard_size)) if not shard_path(folder, number).exists()]


def shard_path(folder: Path, number: int) -> Path:
    """Where a shard is."""
    return folder / f"latents-{number:05}.safetensors"


def draw_window(mask: torch.Tensor, window: int, seed: int, index: int) -> tuple[int, int]:
    """Where the window around a sample's mask begins: near the middle of what is repainted, with some jitter.

    Args:
        mask (`torch.Tensor`): (h, w), 1 = repaint.
        window (`int`): Its side.
        seed (`int`): The run's.
        index (`int`): The sample's number in the run.

    Returns:
        `tuple[int, int]`: Its first row and its first column.
    """
    generator = generator_for(seed, "window", index)
    begins = []
    for side, hidden in zip(mask.shape, (mask.amax(1), mask.amax(0)), strict=True):
        places = hidden.nonzero().float()
        middle = places.mean().item() if len(places) else (side - 1) / 2
        wanted = round(middle - (window - 1) / 2 + WINDOW_JITTER * (2 * draw_uniform(generator) - 1))
        begins.append(min(max(wanted, 0), side - window))
    return begins[0], begins[1]
