"""Measures what a frame of a video costs, and what each stage of it.

    python benchmarks/video.py SOURCE VIDEO

The video is swapped twice in one process, and the second time counts. On a machine that others use as well, what
processors spent says more than the time that passed: its load is printed. Stages run side by side, so that their times
are longer than what they cost.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.swapping.video import VideoSwapper


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python benchmarks/video.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source")
    parser.add_argument("video")
    parser.add_argument("--checkpoint", help="folder or Hub id (default: the one in the package)")
    parser.add_argument("--end", type=float, metavar="SECONDS", help="measure the beginning only")
    parser.add_argument("--output", type=Path, metavar="JSON", help="write the figures")
    return parser


def measure_video(source: str, video: str, checkpoint: str | None = None, end: float | None = None) -> dict[str, Any]:
    """Measures one video.

    Args:
        source (`str`): Photo of who to become.
        video (`str`): Video to change.
        checkpoint (`str`, *optional*): Folder or Hub id.
        end (`float`, *optional*): Seconds of the video.

    Returns:
        `dict[str, Any]`: Seconds a frame, and what they depend on.

    Raises:
        ValueError: If a swap fails.
    """
    swapper = FaceSwapper.from_pretrained(checkpoint)
    identity, load = swapper.encode_source([source]), os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        for name in ("first.mp4", "second.mp4"):
            started, spent = time.perf_counter(), time.process_time()
            result = VideoSwapper(swapper).swap(identity, video, Path(folder) / name, end=end)
            seconds, spent = time.perf_counter() - started, time.process_time() - spent
    return {
        "frames": result.frames,
        "seconds": seconds / result.frames,
        "processor_seconds": spent / result.frames,
        "stages": {stage: total / result.frames for stage, total in result.stages.items()},
        "processors": os.cpu_count(),
        "load_before": load,
    }


def format_video(figures: dict[str, Any]) -> str:
    """The figures as lines, and what they depend on."""
    stages = ", ".join(f"{stage} {1000 * seconds:.0f}" for stage, seconds in figures["stages"].items())
    return "\n".join(
        [
            f"a frame: {figures['processor_seconds']:.3f} s of processors, {figures['seconds']:.3f} s passed",
            f"milliseconds that its stages took: {stages}",
            f"{figures['frames']} frames; {figures['processors']} processors, load before "
            f"{figures['load_before']:.2f}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes; 2 for a user's error."""
    args = build_parser().parse_args(arguments)
    try:
        figures = measure_video(args.source, args.video, args.checkpoint, args.end)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(format_video(figures) + "\n")
    if args.output:
        args.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
