"""Lists the prepared faces that nothing covers, one name a line, for train_occlusion.py to draw things on.

python train/find_clear_faces.py --train_data_dir FACES --output names.txt
"""

import argparse
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from faceswap_diffusion.masks.occlusion import OcclusionNetwork
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.pipelines.loading import load_occlusion
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces, read_description


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train_data_dir", type=Path, required=True, help="folder of prepared faces")
    parser.add_argument("--output", type=Path, required=True, help="file to write")
    parser.add_argument("--network", default="auto", help="folder of a network (default: the package's)")
    parser.add_argument("--largest_share", type=float, default=0.002, help="of a face that may seem to be covered")
    return parser.parse_args(argv)


def covered_share(network: OcclusionNetwork, face: FaceRecord) -> float:
    """Share of a face's outline that is more likely covered than not."""
    pixels = np.ascontiguousarray(face.pixels.permute(1, 2, 0).numpy())
    inside = region_mask_from_landmarks(face.landmarks, len(pixels)) > 0
    return float((network.find(pixels, face.landmarks)[inside] > 0.5).mean())


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    network = load_occlusion(args.network)
    if network is None:
        raise ValueError("no network finds no faces: give --network a folder, or leave it out")
    faces = PreparedFaces([args.train_data_dir], read_description(args.train_data_dir)["resolution"])
    records = (faces[row] for row in tqdm(range(len(faces)), mininterval=10))
    names = [face.name for face in records if covered_share(network, face) <= args.largest_share]
    args.output.write_text("".join(f"{name}\n" for name in names))


if __name__ == "__main__":
    main()
