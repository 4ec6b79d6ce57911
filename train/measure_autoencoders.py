"""Compares autoencoders by what they make of held-out faces, by their size and by their speed.

    faceswap-diffusion fetch lpips_vgg16
    python train/measure_autoencoders.py --data_dir data/held_out runs/narrow/vae runs/wide/vae

prints a Markdown table with a line for each folder: bytes of the weights in float16, milliseconds that it takes to
encode and to decode one crop, PSNR, LPIPS over VGG16 at the crops' own size, and squared gradients as a share of the
originals' (1 is as sharp). The faces are those of train/prepare_faces.py; none of them may have been trained on.
"""

import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from faceswap_diffusion.metrics.lpips import LPIPS
from faceswap_diffusion.pipelines.latents import encoder_widths, load_autoencoder, posterior
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.objectives.reconstruction import load_crops, reconstruct

HEADINGS = (
    "autoencoder", "channels", "MB", "latents", "ms to encode", "ms to decode", "PSNR", "LPIPS", "gradient energy",
)  # fmt: skip


def measuring_parser() -> ArgumentParser:
    parser = ArgumentParser(prog="measure_autoencoders.py", description=__doc__)
    parser.add_argument("autoencoders", type=Path, nargs="+", help="folders of autoencoders")
    parser.add_argument("--data_dir", type=str, required=True, help="folder of prepare_faces.py")
    parser.add_argument("--resolution", type=PositiveInt, default=128, help="side of the crops in pixels")
    parser.add_argument("--num_faces", type=PositiveInt, default=64, help="how many, evenly from all of them")
    parser.add_argument("--num_timings", type=PositiveInt, default=20, help="of which the median is printed")
    return parser


def choose_crops(data_dir: str, resolution: int, num_faces: int) -> torch.Tensor:
    """Crops (N, 3, S, S), RGB in [-1, 1], evenly spaced among the faces."""
    faces = PreparedFaces([data_dir], resolution)
    stride = max(1, len(faces) // num_faces)
    return load_crops(faces, range(0, len(faces), stride)[:num_faces])


def milliseconds(work: Callable[[], object], num_timings: int) -> float:
    """Median time of a piece of work, after one time to warm up."""
    work()
    seconds = []
    for _ in range(num_timings):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return 1000 * median(seconds)


@torch.inference_mode()
def table_line(folder: Path, crops: torch.Tensor, lpips: LPIPS, num_timings: int) -> list[str]:
    """The line of an autoencoder, cell by cell."""
    vae: Any = load_autoencoder(folder, torch_dtype=torch.float32)
    latents = posterior(vae, crops[:1]).mode()
    times = [milliseconds(lambda: vae.encode(crops[:1]), num_timings)]
    times.append(milliseconds(lambda: vae.decode(latents), num_timings))
    result = reconstruct(vae, crops)
    distances = [
        lpips.distance(got, wanted) for got, wanted in zip(result.images.split(8), crops.split(8), strict=True)
    ]
    return [
        str(folder), "/".join(str(width) for width in encoder_widths(vae)),
        f"{2 * vae.num_parameters() / 1e6:.2f}", " x ".join(str(side) for side in latents.shape[1:]),
        *(f"{value:.1f}" for value in times), f"{result.psnr:.2f} dB", f"{torch.cat(distances).mean():.4f}",
        f"{result.gradient_energy:.2f}",
    ]  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = measuring_parser()
    args = parser.parse_args(arguments)
    try:
        crops, lpips = choose_crops(args.data_dir, args.resolution, args.num_faces), LPIPS()
        lines = [list(HEADINGS), ["---"] * len(HEADINGS)]
        lines += [table_line(folder, crops, lpips, args.num_timings) for folder in args.autoencoders]
    except (OSError, ValueError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print("".join(f"| {' | '.join(line)} |\n" for line in lines), end="")


if __name__ == "__main__":
    main()
