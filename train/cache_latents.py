# pyright: reportOperatorIssue=false
# jsonargparse makes its kinds of numbers at run time.
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
from pathlib import Path

import cv2
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import NonNegativeInt, PositiveInt

from faceswap_diffusion.devices import available_cores
from faceswap_diffusion.training.arguments import add_data_arguments, add_model_arguments, build_parser
from faceswap_diffusion.training.data.latent_cache import cache_latents


def caching_parser() -> ArgumentParser:
    parser = build_parser("cache_latents.py", __doc__)
    add_data_arguments(parser)
    add_model_arguments(parser)
    group = parser.add_argument_group("latents")
    group.add_argument("--output_dir", type=Path, required=True, help="receives the shards")
    group.add_argument("--num_samples", type=PositiveInt, required=True, help="how many; a run with more repeats them")
    group.add_argument("--shard_size", type=PositiveInt, default=1024, help="samples in a file, of 256 MB at most")
    group.add_argument("--seed", type=NonNegativeInt, default=0, help="of the run")
    group.add_argument(
        "--num_workers", type=PositiveInt, default=available_cores(), help="processes; by default one a core"
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    parser = caching_parser()
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    try:
        num_samples = cache_latents(args)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)
    print(f"{num_samples} samples in {args.output_dir}")


if __name__ == "__main__":
    main()
