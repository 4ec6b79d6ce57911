"""`faceswap-diffusion video`: puts a face into a video."""

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from faceswap_diffusion.cli.loading import (
    add_checkpoint_options,
    add_face_score,
    check_sources,
    find_faces,
    load_swapper,
    tell_loading,
)
from faceswap_diffusion.cli.options import PROG, RESPONSIBLE_USE, add_output, add_signing_options, face_choice, tell
from faceswap_diffusion.cli.swap import source_to_face
from faceswap_diffusion.cli.swap_options import add_choices, add_painting_options, swap_settings
from faceswap_diffusion.console import say

if TYPE_CHECKING:
    from faceswap_diffusion.swapping.options import SwapOptions
    from faceswap_diffusion.swapping.swapper import FaceSwapper
    from faceswap_diffusion.swapping.video import Progress, VideoResult
    from faceswap_diffusion.swapping.video_plan import VideoPlan

EXAMPLES = """examples:
  my face onto the largest face of each shot, with the sound, chapters and subtitles of the video:
    faceswap-diffusion video me.jpg holiday.mp4 -o out.mp4
  ten seconds of it, and a sheet that shows every 25th frame (out.png):
    faceswap-diffusion video me.jpg holiday.mp4 -o out.mp4 --start 1:05 --end 1:15 --every 25
  onto Bob only; onto all; Ann onto track 1 and Cem onto track 0:
    faceswap-diffusion video me.jpg holiday.mp4 -o out.mp4 --face bob.jpg
    faceswap-diffusion video me.jpg holiday.mp4 -o out.mp4 --face all
    faceswap-diffusion video ann.jpg cem.jpg holiday.mp4 -o out.mp4 --map 0:1,1:0
  it was stopped, by whatever: the same command goes on where it was.
"""
SUMMARY = "put a face into a video"
DESCRIPTION = textwrap.fill(f"Put the face of SOURCE into VIDEO. {RESPONSIBLE_USE}", 79)

SMOOTHED = ("mesh", "tone", "masks", "pixels", "fade")
"""The switches of [`CoherenceOptions`], which is not imported before it is needed: it imports PyTorch."""


def seconds(text: str) -> float:
    """Reads a time: seconds, or minutes and seconds, or hours, minutes and seconds, parted by colons."""
    try:
        parts = [float(part) for part in text.split(":")]
    except ValueError:
        parts = []
    if not 1 <= len(parts) <= 3 or min(parts) < 0:
        raise argparse.ArgumentTypeError(f"got {text!r}; write seconds as 65.5, or minutes and seconds as 1:05.5")
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def add_arguments(video: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = video.add_argument
    add("sources", nargs="+", metavar="SOURCE",
        help="photo of who to become, or what `identity` wrote; several photos are averaged, see --map")  # fmt: skip
    add("video", type=face_choice, metavar="VIDEO",
        help="video to change: a file that FFmpeg reads, GIF and animated WebP too, a folder of frames, or the number "
        "of a camera, of which as much is recorded as --end says")  # fmt: skip
    add_output(video, "where to write the result: .mp4, .mov, .mkv or .webm")
    _add_choices(add_choices(video))
    _add_encoding(video)
    _add_work(video)
    add_painting_options(video)
    add_face_score(video)
    add_checkpoint_options(video)
    add_signing_options(video)
    video.set_defaults(run=run)


def _add_choices(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--start", type=seconds, default=0.0, metavar="TIME", help="begin there, as 65.5 or 1:05.5 (default: 0)")
    add("--end", type=seconds, metavar="TIME", help="end there (default: the end of the video)")
    add("--face", type=face_choice, default="largest", metavar="FACE",
        help="in VIDEO: largest (of each shot), all, the number of a track, or a photo of the person to replace "
        "(default: largest)")  # fmt: skip
    add("--map", "--mapping", type=source_to_face, metavar="S:T,...", dest="mapping",
        help="put source S onto track T of VIDEO, counting from 0; the sources are then different people")  # fmt: skip


def _add_encoding(video: argparse.ArgumentParser) -> None:
    add = video.add_argument_group("how it is written").add_argument
    add("--codec", help="h264, hevc, av1, vp9 or ffv1, which has no loss (default: h264; for .webm vp9)")
    add("--quality", type=int, metavar="CRF",
        help="constant rate factor: 0 is best, 17 looks like the input (default: the codec's)")  # fmt: skip
    add("--every", type=int, metavar="N", help="also write a sheet of every Nth frame, a PNG with the name of OUT")
    add("--frame-rate", type=float, metavar="R", help="frames a second of a folder of pictures (default: 25)")


def _add_work(video: argparse.ArgumentParser) -> None:
    add = video.add_argument_group("what happens on the way").add_argument
    add("--work-dir", metavar="DIR",
        help="where finished parts are kept until all are there (default: OUT.parts); if it was stopped, the same "
        "command goes on with them")  # fmt: skip
    add("--strict", action="store_true", help="stop at a damaged frame, and do not leave it as it is")
    add("--allow-empty", action="store_true", help="write the video even if it has no face to swap")
    add("--unsmoothed", nargs="+", default=[], choices=SMOOTHED, metavar="WHAT",
        help=f"what not to smooth along a track, of {', '.join(SMOOTHED)} (default: nothing)")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Swaps and writes the video."""
    from faceswap_diffusion.photos.loading import load_photo
    from faceswap_diffusion.swapping.identity_files import is_identity_file
    from faceswap_diffusion.swapping.options import SwapOptions
    from faceswap_diffusion.swapping.video_plan import plan_video

    options = SwapOptions(**swap_settings(args))
    plan = plan_video(
        args.video,
        args.output,
        start=args.start,
        end=args.end,
        frame_rate=args.frame_rate,
        codec=args.codec,
        quality=args.quality,
        every=args.every,
        work_dir=args.work_dir,
        strict=args.strict,
        allow_empty=args.allow_empty,
        overwrite=args.overwrite,
    )
    sources = [path if is_identity_file(path) else load_photo(path) for path in args.sources]
    tell_loading(args)
    analyzer = find_faces(args)
    check_sources(args, analyzer, sources)
    swapper = load_swapper(args, analyzer.analyzer, args.occlusion, args.lora)
    report(args, swap(args, swapper, sources, plan, options))
    return 0


def swap(
    args: argparse.Namespace, swapper: "FaceSwapper", sources: list, plan: "VideoPlan", options: "SwapOptions"
) -> "VideoResult":
    """Swaps, with a progress bar; where it is interrupted, says that it can go on."""
    from faceswap_diffusion.swapping.coherence import CoherenceOptions
    from faceswap_diffusion.swapping.video import VideoSwapper

    coherence = CoherenceOptions(**dict.fromkeys(args.unsmoothed, False))
    videos = VideoSwapper(swapper, options, face=args.face, mapping=args.mapping, coherence=coherence)
    try:
        with progress_bar(args) as progress:
            return videos.run(sources, plan, progress, args.source_face)
    except KeyboardInterrupt:
        tell(args, f"{PROG}: the parts that are done are in {plan.work_dir}; the same command goes on", error=True)
        raise


@contextmanager
def progress_bar(args: argparse.Namespace) -> "Iterator[Progress]":
    """One bar that counts frames and tells the time left."""
    from tqdm import tqdm

    with tqdm(desc="swapping", unit="frame", file=sys.stderr, disable=args.quiet or None) as bar:

        def progress(done: int, total: int | None) -> None:
            if (
                bar.total is None and bar.n == 0 and done
            ):  # there from a run before; the time left does not follow from it
                bar.initial = bar.n = done
                bar.last_print_n = done
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def report(args: argparse.Namespace, result: "VideoResult") -> None:
    """Tells what was swapped, and what was not."""
    if args.json:
        made = {
            "output": os.fspath(result.output),
            "frames": result.frames,
            "swapped": result.swapped,
            "broken": result.broken,
            "unchanged": result.unchanged,
            "resumed": result.resumed,
            "seconds": round(result.seconds, 3),
            "stages": {stage: round(value, 3) for stage, value in result.stages.items()},
            "provenance": result.provenance,
        }
        say(json.dumps(made, indent=2))
        return
    text = f"{result.output}: swapped {result.swapped} of {result.frames} frames in {result.seconds:.1f} s"
    resumed = f" ({result.resumed} frames were there already)" if result.resumed else ""
    tell(args, text + resumed)
    if result.broken:
        tell(args, f"{PROG}: {_count(result.broken)} damaged; they are as they were", error=True)
    if result.unchanged:
        tell(args, f"{PROG}: {_count(result.unchanged)} without the region; they are as they were", error=True)


def _count(times: list[float]) -> str:
    return f"{len(times)} frame(s), the first at {times[0]:.2f} s, were"
