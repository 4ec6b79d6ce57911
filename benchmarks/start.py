"""Measures how fast commands start, and which imports take longest.

    python benchmarks/start.py SOURCE TARGET

Every run is a process of its own, timed from its start to its end; figures are medians. The goals are meant for two
idle cores: the machine's load is printed.
"""

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from PIL import Image

COMMANDS = ("swap", "faces", "convert", "evaluate", "fetch", "doctor")
LIBRARIES = """
import torch
from diffusers.loaders.lora_pipeline import StableDiffusionLoraLoaderMixin
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import StableDiffusionMixin
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection
"""
"""What a swap needs of PyTorch, diffusers and transformers."""

IMPORT_TIME = re.compile(r"import time: +(\d+) \| +\d+ \| +([\w.]+)")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/start.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, default=5)
    return parser


def seconds_of(command: list[str], exit_code: int = 0) -> float:
    """Seconds of a process.

    Raises:
        ValueError: If it ends with another exit code.
    """
    started = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode != exit_code:
        raise ValueError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return seconds


def median(runs: int, measure: Callable[[], float]) -> float:
    return statistics.median(measure() for _ in range(runs))


def slowest_help(runs: int) -> float:
    """Seconds of the command whose help takes longest."""
    commands = [["--help"], *([command, "--help"] for command in COMMANDS)]
    return max(median(runs, lambda line=line: seconds_of(["-m", "faceswap_diffusion", *line])) for line in commands)


def slowest_imports(command: list[str], count: int = 10) -> list[tuple[str, float]]:
    """Packages, by two parts of their name, and the seconds that their own modules take."""
    done = subprocess.run([sys.executable, "-X", "importtime", *command], capture_output=True, text=True)
    return sum_up(done.stderr)[:count]


def sum_up(listing: str) -> list[tuple[str, float]]:
    """Adds up what `-X importtime` printed, longest first."""
    microseconds: Counter[str] = Counter()
    for own, module in IMPORT_TIME.findall(listing):
        microseconds[".".join(module.split(".")[:2])] += int(own)
    return [(package, own / 1e6) for package, own in microseconds.most_common()]


def row(what: str, seconds: float, goal: float) -> str:
    return f"{what:<42} {seconds:6.2f} s, goal {goal:5.2f} s: {'met' if seconds <= goal else 'MISSED'}"


def measure_start(source: str, target: str, runs: int) -> None:
    """Measures and prints line by line."""
    print(f"{os.cpu_count()} processors, load before {os.getloadavg()[0]:.2f}, medians of {runs}")
    with tempfile.TemporaryDirectory() as folder:
        wall, output = Path(folder, "wall.png"), str(Path(folder, "swap.png"))
        Image.new("RGB", (640, 480), (180, 170, 160)).save(wall)
        swap = ["-m", "faceswap_diffusion", "swap", source, target, "-o", output, "--overwrite"]
        no_face = ["-m", "faceswap_diffusion", "swap", source, str(wall), "-o", output, "--overwrite"]
        print(row("--help, the slowest", slowest_help(runs), 0.4))
        print(row("a photo without a face is refused", median(runs, lambda: seconds_of(no_face, exit_code=2)), 1.5))
        libraries = median(runs, lambda: seconds_of(["-c", LIBRARIES]))
        print(f"{'importing the libraries':<42} {libraries:6.2f} s")
        print(row("photo to file", median(runs, lambda: seconds_of(swap)), 1.1 * libraries))
        print("\nthe slowest imports of a swap")
        for package, seconds in slowest_imports(swap):
            print(f"  {package:<40} {seconds:6.2f} s")


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; 2 for a user's error."""
    args = build_parser().parse_args(arguments)
    try:
        measure_start(args.source, args.target, args.runs)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
