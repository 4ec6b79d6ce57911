"""Measures how fast commands start, and which imports take longest.

    python benchmarks/start.py SOURCE TARGET

Every run is a process of its own, timed from its start to its end; figures are medians. The goals are for two idle
cores: the machine's load is printed.
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
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

COMMANDS = ("swap", "identity", "faces", "convert", "evaluate", "fetch", "doctor")
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


class Taken(NamedTuple):
    """Seconds of a process from start to end, and seconds of processors, which hardly depend on the load."""

    seconds: float
    processor_seconds: float


IMPORT_TIME = re.compile(r"import time: +(\d+) \| +\d+ \| +([\w.]+)")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python benchmarks/start.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--runs", type=int, default=5)
    return parser


def run(command: list[str], exit_code: int = 0) -> Taken:
    """Runs Python in a process of its own, and measures it.

    Raises:
        ValueError: If it ends with another exit code.
    """
    with tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL, stderr=errors)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0)
        if process.returncode != exit_code:
            raise ValueError((errors.read().strip().splitlines() or [f"exit code {process.returncode}"])[-1])
    return Taken(seconds, usage.ru_utime + usage.ru_stime)


def median(runs: Sequence[Taken]) -> Taken:
    return Taken(*(statistics.median(values) for values in zip(*runs, strict=True)))


def slowest_help(runs: int) -> Taken:
    """What the command takes whose help is slowest."""
    commands = [["--help"], *([command, "--help"] for command in COMMANDS)]
    medians = [median([run(["-m", "faceswap_diffusion", *line]) for _ in range(runs)]) for line in commands]
    return max(medians)


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


def row(what: str, taken: Taken, goal: float | None = None) -> str:
    line = f"{what:<36} {taken.seconds:6.2f} s, {taken.processor_seconds:6.2f} s of processors"
    if goal is None:
        return line
    return f"{line}, goal {goal:5.2f} s: {'met' if taken.seconds <= goal else 'MISSED'}"


def measure_start(source: str, target: str, runs: int) -> None:
    """Measures and prints line by line."""
    print(f"{os.cpu_count()} processors, load before {os.getloadavg()[0]:.2f}, medians of {runs}")
    with tempfile.TemporaryDirectory() as folder:
        wall, output = Path(folder, "wall.png"), str(Path(folder, "swap.png"))
        Image.new("RGB", (640, 480), (180, 170, 160)).save(wall)
        swap = ["-m", "faceswap_diffusion", "swap", source, target, "-o", output, "--overwrite"]
        no_face = ["-m", "faceswap_diffusion", "swap", source, str(wall), "-o", output, "--overwrite"]
        print(row("--help, the slowest", slowest_help(runs), 0.4))
        print(row("a photo without a face is refused", median([run(no_face, exit_code=2) for _ in range(runs)]), 1.5))
        # In turn, so that what else the machine does slows both alike.
        libraries, swaps = zip(*((run(["-c", LIBRARIES]), run(swap)) for _ in range(runs)), strict=True)
        floor, whole = median(libraries), median(swaps)
        print(row("importing the libraries", floor))
        print(row("photo to file", whole, 1.1 * floor.seconds))
        share = whole.processor_seconds / floor.processor_seconds
        print(f"photo to file takes {whole.seconds / floor.seconds:.2f} x the imports, of processors {share:.2f} x")
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
