"""Measures what the safety checker adds to a swap.

    python benchmarks/safety.py SOURCE TARGET

Figures are seconds of one core, the least of several swaps of photos that come for the first time.
"""

import argparse
import time

import numpy as np
import torch

from faceswap_diffusion import FaceSwapper
from faceswap_diffusion.photos.loading import load_photo


def seconds(swapper: FaceSwapper, source: np.ndarray, target: np.ndarray, repeats: int) -> float:
    """Of processors, for a swap."""
    taken = []
    for number in range(repeats):
        source, target = source.copy(), target.copy()
        source[0, 0], target[0, 0] = number, number  # nothing is known of them
        began = time.process_time()
        swapper.swap(source, target)
        taken.append(time.process_time() - began)
    return min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source, target = load_photo(args.source).rgb, load_photo(args.target).rgb
    for name in ("auto", None, "auto", None):
        swapper = FaceSwapper.from_pretrained(device="cpu", safety_checker=name)
        swapper.pipeline.set_progress_bar_config(disable=True)
        taken = seconds(swapper, source, target, args.repeats)
        print(f"{'with' if name else 'without'} the safety checker: {taken:.2f} s")


if __name__ == "__main__":
    main()
