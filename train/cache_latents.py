"""Encodes training samples once, so that many epochs of the plain denoising loss cost no autoencoder and no pictures.

    python train/cache_latents.py --config train/recipes/small_samples.yaml --train_data_dir data/faces \\
        --num_samples 100000 --output_dir data/latents
    accelerate launch train/train_faceswap.py --config train/recipes/small_samples.yaml \\
        --config train/recipes/small_plain.yaml --latents_dir data/latents --output_dir runs/plain

Checkpoint, autoencoder, seed and everything that decides how samples are made have to be the same in both.

Stop the script at any time, by any means: run the same command again and it goes on with the shards that are missing,
to the same files.
"""

import sys

import cv2
import torch

from faceswap_diffusion.training.command_line import parse_config
from faceswap_diffusion.training.config import CacheLatentsConfig
from faceswap_diffusion.training.data.latent_cache import cache_latents

SCRIPT = "cache_latents.py"


def main(arguments: list[str] | None = None) -> None:
    config = parse_config(CacheLatentsConfig, SCRIPT, __doc__, arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        num_samples = cache_latents(config)
    except ValueError as error:
        print(f"{SCRIPT}: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{num_samples} samples in {config.latents.output_dir}")


if __name__ == "__main__":
    main()
