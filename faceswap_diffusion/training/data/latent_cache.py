"""Samples encoded once for all epochs, in shards, by several processes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from tqdm.auto import tqdm

from faceswap_diffusion.devices import available_cores, default_device
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.latents import channel_count, scale_and_shift
from faceswap_diffusion.training.command_line import flatten_section
from faceswap_diffusion.training.config import (
    CacheLatentsConfig,
    LatentsConfig,
    LossConfig,
    ReferenceConfig,
    SampleConfig,
)
from faceswap_diffusion.training.data.batches import SampleRoles
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.latents import (
    DESCRIPTION,
    STORED,
    missing_shards,
    shard_path,
)
from faceswap_diffusion.training.engine.sharding import begin_folder, write_shards
from faceswap_diffusion.training.engine.swap_training import draw_samples, load_checkpoint
from faceswap_diffusion.training.engine.trainable import select_trainable
from faceswap_diffusion.training.objectives.objective import SwapObjective
from faceswap_diffusion.writing import whole_file

BATCH_SIZE = 16
"""Samples that are encoded at a time; on a CPU one by one, which takes a third of the time."""

MAX_SHARD_BYTES = 256 * 2**20

DENOISING = SampleRoles(period=1, num_cross_identity=0, num_self_reconstruction=0)
SEEN = ("crop_size", "hidden_fill", "masked_latents", "identity_size", "mask_identity")
"""Settings of a checkpoint that decide what its networks are shown."""


def latent_settings(
    samples: SampleConfig, references: ReferenceConfig, seed: int, pipeline: FaceSwapInpaintPipeline
) -> dict[str, Any]:
    """Settings, besides the faces, that determine the encoded samples. A run must have the same.

    Args:
        samples (`SampleConfig`): How they are made.
        references (`ReferenceConfig`): How references are made wrong, where the checkpoint shows references.
        seed (`int`): The run's.
        pipeline (`FaceSwapInpaintPipeline`): The checkpoint.

    Returns:
        `dict[str, Any]`: JSON values by name; networks by first digits of a SHA-256.
    """
    config, extractor, conditioner = pipeline.config, pipeline.feature_extractor, pipeline.conditioner
    geometry = {"coefficients": conditioner.geometry_coefficients} if config["geometry_share"] else {}
    factor, shift = scale_and_shift(pipeline.vae)
    scaling = (factor, shift) if shift else (factor,)  # without a shift as in caches of before there was one
    return {
        "seed": seed,
        **flatten_section(samples),
        **(flatten_section(references, "reference_") if config["hidden_fill"] == "reference" else {}),
        **{name: config[name] for name in SEEN},
        "autoencoder": digest_of(pipeline.vae.state_dict(), *scaling),
        "image_encoder": digest_of(pipeline.image_encoder.state_dict(), extractor.image_mean, extractor.image_std),
        "recognizer": digest_of(conditioner.identity_encoder.state_dict(), conditioner.config["identity_network"]),
        "geometry": digest_of(geometry),
    }


def digest_of(tensors: Mapping[str, torch.Tensor], *facts: Any) -> str:
    """Prefix of the SHA-256 over a network's tensors and configuration."""
    digest = hashlib.sha256(json.dumps(facts).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(np.ascontiguousarray(tensor.detach().float().cpu().numpy()).data)
    return digest.hexdigest()[:16]


def cache_latents(config: CacheLatentsConfig) -> int:
    """Encodes samples, or those that an interrupted run has not encoded yet.

    Args:
        config (`CacheLatentsConfig`): Settings of train/cache_latents.py.

    Returns:
        `int`: How many samples are in the folder.

    Raises:
        ValueError: If the folder was begun otherwise, or shards would be too large.
    """
    latents, pipeline = config.latents, load_checkpoint(config.model)
    faces = PreparedFaces(config.data.train_data_dir, pipeline.config["crop_size"])
    check_shard_size(latents.shard_size, sample_bytes(pipeline))
    description = {
        **latent_settings(config.samples, config.references, latents.seed, pipeline),
        "faces": asdict(faces.summary),
        "num_samples": latents.num_samples,
        "shard_size": latents.shard_size,
        "latent_size": pipeline.config["crop_size"] // pipeline.vae_scale_factor,
    }
    begin_folder(latents.output_dir / DESCRIPTION, description, "arguments, faces and checkpoint")
    missing = missing_shards(latents.output_dir, latents.num_samples, latents.shard_size)
    num_done = latents.num_samples - sum(len(samples_of_shard(latents, number)) for number in missing)
    num_workers = latents.num_workers or available_cores()
    with tqdm(total=latents.num_samples, initial=num_done, desc="encoding", unit="sample") as progress:
        for number in write_shards(LatentShardWriter, (config,), missing, num_workers):
            progress.update(len(samples_of_shard(latents, number)))
    return latents.num_samples


def sample_bytes(pipeline: FaceSwapInpaintPipeline) -> int:
    """Size of a sample in a shard."""
    conditioner, side = pipeline.conditioner, pipeline.config["crop_size"] // pipeline.vae_scale_factor
    channels, clip_embed_dim = channel_count(pipeline.vae), conditioner.config["clip_embed_dim"]
    sizes = {
        "latents": channels * side**2, "masked": channels * side**2, "mask": side**2,
        "identity_embeds": conditioner.identity_dim, "source_clip_embeds": clip_embed_dim,
        "target_clip_embeds": clip_embed_dim, "landmarks": 2 * conditioner.config["num_landmarks"],
    }  # fmt: skip
    return sum(size * STORED[name].itemsize for name, size in sizes.items())


def check_shard_size(shard_size: int, bytes_each: int) -> None:
    """Refuses shards that are larger than `MAX_SHARD_BYTES`.

    Raises:
        ValueError: Naming the largest number that works.
    """
    if shard_size * bytes_each > MAX_SHARD_BYTES:
        raise ValueError(
            f"--shard_size {shard_size} makes files of {shard_size * bytes_each / 2**20:.0f} MB: take "
            f"{MAX_SHARD_BYTES // bytes_each} at most"
        )


def samples_of_shard(config: LatentsConfig, number: int) -> range:
    """Which samples belong to a shard."""
    return range(config.num_samples)[number * config.shard_size : (number + 1) * config.shard_size]


class LatentShardWriter:
    """Writes shard after shard.

    Args:
        config (`CacheLatentsConfig`): See `cache_latents`.
    """

    def __init__(self, config: CacheLatentsConfig):
        self.config, self.device, seed = config.latents, default_device(), config.latents.seed
        pipeline = load_checkpoint(config.model)
        faces = PreparedFaces(config.data.train_data_dir, pipeline.config["crop_size"])
        self.samples = draw_samples(config.samples, config.references, pipeline, faces, DENOISING, 1, seed)
        select_trainable(pipeline, "full")
        for network in (pipeline.vae, pipeline.image_encoder, pipeline.conditioner):
            network.to(self.device, memory_format=torch.channels_last)
        self.batch_size = 1 if self.device == "cpu" else BATCH_SIZE
        self.objective = SwapObjective(pipeline, LossConfig(), DENOISING, faces.identity_network, seed)

    def write(self, number: int) -> int:
        """Encodes the samples of a shard and writes it; returns its number."""
        numbers = samples_of_shard(self.config, number)
        starts = range(0, len(numbers), self.batch_size)
        parts = [self.encode(numbers[start : start + self.batch_size]) for start in starts]
        shard = {name: torch.cat([part[name] for part in parts]) for name in STORED}
        with whole_file(shard_path(self.config.output_dir, number)) as path:
            path.write_bytes(save(shard))  # save_file would leave a file under a name of its own when it is killed
        return number

    @torch.no_grad()
    def encode(self, numbers: Sequence[int]) -> dict[str, torch.Tensor]:
        """Encodes samples, as the loss does it."""
        batch = self.samples.collate([self.samples[number] for number in numbers]).to(self.device)
        encoded, _ = self.objective.encode(batch)
        return {name: getattr(encoded, name).to("cpu", dtype).contiguous() for name, dtype in STORED.items()}
