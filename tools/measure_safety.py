"""Measures how many pictures of one face each the safety checker refuses, and what it says of them.

    python tools/measure_safety.py FOLDER...
    python tools/measure_safety.py --seeds 800000 300

With `--seeds` the faces are drawn as `tools/make_synthetic_faces.py` draws them, children among them.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from make_synthetic_faces import (  # pyright: ignore[reportMissingImports]
    INSPECTED_SIZE,
    FaceGenerator,
    check_network_files,
    check_seeds,
    find_network_dir,
)

from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.photos.folders import pictures_in
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.swapper import FaceSwapper

SHARES = (0, 0.005, 0.01, 0.05, 0.5, 0.95, 0.99, 0.995, 1)


def drawn(start: int, count: int) -> Iterator[np.ndarray]:
    """Faces of seeds, (H, W, 3) uint8 RGB."""
    check_seeds(start, count)
    network_dir = find_network_dir()
    check_network_files(network_dir)
    generator = FaceGenerator(network_dir)
    for seed in range(start, start + count):
        picture = generator.draw(generator.style(seed))
        yield cv2.resize(picture, (INSPECTED_SIZE, INSPECTED_SIZE), interpolation=cv2.INTER_AREA)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, help="each holds pictures")
    parser.add_argument("--seeds", nargs=2, type=int, metavar=("START", "COUNT"), help="of faces to draw instead")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="look at each Nth picture (default: 1)")
    parser.add_argument("--output", type=Path, help="write scores and ages there, .npz")
    args = parser.parse_args()
    torch.set_num_threads(1)
    swapper = FaceSwapper.from_pretrained(device="cpu", occlusion="off")
    checker = swapper.pipeline.safety_checker
    files = [path for folder in args.folders for path in pictures_in(folder)][:: args.every]
    pictures = drawn(*args.seeds) if args.seeds else (load_photo(path).rgb for path in files)
    scores, ages = [], []
    for picture in pictures:
        scores += checker.nsfw_scores([picture])
        if found := swapper.analyzer.analyze(picture):
            ages.append(swapper.apparent_age(picture, select_face(found)))
    explicit, young = sum(map(checker.is_explicit, scores)), sum(not age >= checker.config["min_age"] for age in ages)
    print(f"{len(scores)} pictures: {explicit} refused as explicit ({explicit / len(scores):.2%})")
    print(f"{len(ages)} faces: {young} refused as minors ({young / len(ages):.2%})")
    print("quantile  score    age")
    for share in SHARES:
        print(f"{share:8.1%} {np.quantile(scores, share):6.3f} {np.quantile(ages, share):6.1f}")
    if args.output:
        np.savez(args.output, scores=scores, ages=ages)


if __name__ == "__main__":
    main()
