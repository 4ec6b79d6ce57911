"""Measures how long a swap takes and how much memory, as a user feels it.

    python benchmarks/latency.py SOURCE TARGET

Photo to file is a process of its own, from its start to its end; each further swap is one more call in a process that
has made one already: with photos that it has not seen, with a new target for the same source, with the same photos.
Medians of five. The machine should be idle: its load is printed, and what processors spent on further swaps, which
others disturb less.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SWAP_AGAIN = """
import json, sys, time
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.swapper import FaceSwapper
checkpoint, source, target, runs = json.loads(sys.argv[1])
swapper = FaceSwapper.from_pretrained(checkpoint)
swapper.pipeline.set_progress_bar_config(disable=True)
swapper.swap(source, target)
count = 0

def unseen(path):
    # One pixel differs from all photos before, so that nothing is remembered of it.
    global count
    count += 1
    rgb = load_photo(path).rgb.copy()
    rgb[0, 0] = [count // 256 % 256, count % 256, 0]
    return rgb

def swap_again(source, target):
    started, spent = time.perf_counter(), time.process_time()
    swapper.swap(source, target)
    return time.perf_counter() - started, time.process_time() - spent

rows = {"new_photos": [], "new_target": [], "same_photos": []}
for _ in range(runs):
    rows["new_photos"].append(swap_again(unseen(source), unseen(target)))
    swapper.swap(source, target)
    rows["new_target"].append(swap_again(source, unseen(target)))
    swapper.swap(source, target)
    rows["same_photos"].append(swap_again(source, target))
sys.stdout.write(json.dumps(rows))
"""

KINDS = {
    "new_photos": "each further swap",
    "new_target": "the same source in another target",
    "same_photos": "the same photos",
}
"""Further swaps by what is new in them."""


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/latency.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--checkpoint", help="folder or Hub id (default: the one in the package)")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the figures")
    return parser


def run_measured(command: list[str]) -> tuple[float, float, str]:
    """Runs a process to its end.

    Call it from a small process: Linux counts the caller's memory as the child's until the child's program starts, so
    that the peak is never less than the caller's own. That is why this module imports nothing.

    Returns:
        `tuple`: Its seconds, its peak resident memory in MB, and what it wrote to standard output.

    Raises:
        ValueError: If it fails; the message is the last line that it wrote to standard error.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=errors)
        # Unlike Popen.wait, wait4 reports what this process used; getrusage knows only the greatest of all children.
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        errors.seek(0)
        if process.returncode:
            lines = errors.read().strip().splitlines() or [f"exit code {process.returncode}"]
            raise ValueError(lines[-1])
        return seconds, usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10), output.read()


def measure_latency(source: str, target: str, checkpoint: str | None = None, runs: int = 5) -> dict[str, Any]:
    """Measures one pair of photos.

    Args:
        source (`str`): Photo of who to become.
        target (`str`): Photo to change.
        checkpoint (`str`, *optional*): Folder or Hub id.
        runs (`int`): Repetitions of each figure.

    Returns:
        `dict[str, Any]`: Medians in seconds and MB, the single values, and what they depend on.

    Raises:
        ValueError: If a swap fails.
    """
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        swap = ["swap", source, target, "-o", f"{folder}/swap.png", "--overwrite"]
        command = [sys.executable, "-m", "faceswap_diffusion", *swap]
        command += ["--checkpoint", checkpoint] if checkpoint else []
        single = [run_measured(command) for _ in range(runs)]
    again = run_measured([sys.executable, "-c", SWAP_AGAIN, json.dumps([checkpoint, source, target, runs])])
    photo_to_file, further = [seconds for seconds, _, _ in single], json.loads(again[2])
    return {
        "photo_to_file_seconds": statistics.median(photo_to_file),
        "further_swap_seconds": {kind: medians(runs) for kind, runs in further.items()},
        "peak_memory_mb": max(memory for _, memory, _ in [*single, again]),
        "photo_to_file_runs": photo_to_file,
        "further_swap_runs": further,
        "processors": os.cpu_count(),
        "load_before": load,
    }


def medians(runs: list[list[float]]) -> list[float]:
    """Median seconds, and median seconds of processors."""
    return [statistics.median(values) for values in zip(*runs, strict=True)]


def format_latency(figures: dict[str, Any]) -> str:
    """The figures as lines, and what they depend on."""
    further = [
        f"{KINDS[kind]}: {seconds:.2f} s, {spent:.2f} of processors"
        for kind, (seconds, spent) in figures["further_swap_seconds"].items()
    ]
    return "\n".join(
        [
            f"photo to file, process start included: {figures['photo_to_file_seconds']:.2f} s (goal <= 15 s)",
            f"{further[0]} (goal <= 0.7 s at 256 px)",
            *further[1:],
            f"peak memory: {figures['peak_memory_mb']:.0f} MB (goal <= 2000 MB)",
            f"medians of {len(figures['photo_to_file_runs'])}; {figures['processors']} processors, "
            f"load before {figures['load_before']:.2f}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes; 2 for a user's error."""
    args = build_parser().parse_args(arguments)
    try:
        figures = measure_latency(args.source, args.target, args.checkpoint, args.runs)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(format_latency(figures) + "\n")
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
