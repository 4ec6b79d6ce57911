"""`faceswap-diffusion faces VIDEO`: lists the tracks of a video, by whose numbers faces are chosen, with pictures."""

import argparse
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from faceswap_diffusion.cli.options import tell
from faceswap_diffusion.console import say
from faceswap_diffusion.photos.folders import is_video

if TYPE_CHECKING:
    from PIL import Image

    from faceswap_diffusion.faces.analyzer import Face
    from faceswap_diffusion.faces.tracking import TrackedFace

PICTURE_SIDE = 160  # of a track's face on the sheet, in pixels
COLUMNS = 6


@dataclass(eq=False)
class TrackSummary:
    """What is listed of a track.

    Args:
        track (`int`): Its number.
        first, last (`float`): When its face is seen first and last, in seconds.
        frames (`int`): In how many frames it is seen.
        heights (`tuple[float, float]`): Least and greatest height of the mesh in pixels.
        yaws (`tuple[float, float]`): Least and greatest yaw in degrees, to the picture's right.
        picture (`np.ndarray`): (S, S, 3) uint8 RGB, where it is seen best.
        clearness (`float`): How well it is seen there.
    """

    track: int
    first: float
    last: float
    frames: int
    heights: tuple[float, float]
    yaws: tuple[float, float]
    picture: np.ndarray
    clearness: float


def shows_frames(path: str) -> bool:
    """Whether a path is that of a video or of a folder of frames, and not of a photo."""
    return Path(path).is_dir() or is_video(path)


def run_video(args: argparse.Namespace) -> int:
    """Lists the tracks of a video, and writes a sheet of their faces."""
    from faceswap_diffusion.cli.loading import find_faces, load_swapper, tell_loading
    from faceswap_diffusion.provenance.save import check_output, save_image
    from faceswap_diffusion.videos.reading import open_video

    if args.output:
        check_output(args.output, overwrite=args.overwrite)
    open_video(args.photo)  # says early what is wrong with it
    analyzer = find_faces(args).analyzer
    tell_loading(args)
    tracker = load_swapper(args, analyzer, occlusion="off").new_tracker()
    summaries: dict[int, TrackSummary] = {}
    for rgb, seconds in upright_frames(args.photo):
        for tracked in tracker.update(rgb, seconds):
            if tracked.seen:
                add_to(summaries, rgb, tracked, seconds)
    if args.output and summaries:
        save_image(track_sheet(list(summaries.values())), args.output, provenance=None)
    if args.json:
        say(json.dumps({"video": args.photo, "tracks": [describe_track(s) for s in summaries.values()]}, indent=2))
    else:
        lines = [f"{args.photo}: {len(summaries)} track{'' if len(summaries) == 1 else 's'}"]
        tell(args, "\n".join([*lines, *(f"  {track_line(summary)}" for summary in summaries.values())]))
    return 0


def upright_frames(path: str) -> Iterator[tuple[np.ndarray, float]]:
    """Pixels (H, W, 3) uint8 RGB and time in seconds of all frames of a video that can be decoded."""
    from faceswap_diffusion.videos.colors import FrameColors
    from faceswap_diffusion.videos.frames import Span
    from faceswap_diffusion.videos.reading import open_video

    video = open_video(path)
    colors = FrameColors(video.facts, "yuv420p")
    for frame in video.frames(Span()):
        if frame.picture is not None and not frame.is_broken:
            yield colors.rgb(frame.picture), float(frame.pts * video.facts.time_base)


def add_to(summaries: dict[int, TrackSummary], rgb: np.ndarray, tracked: "TrackedFace", seconds: float) -> None:
    """Takes a face of a frame (H, W, 3) uint8 RGB into the summary of its track."""
    face = tracked.face
    height, yaw = float(np.ptp(face.landmarks[:, 1])), 0.0 if face.head_pose is None else float(face.head_pose[0])
    clearness = height * max(0.0, math.cos(math.radians(yaw)))
    known = summaries.get(tracked.track)
    if known is None:
        picture = cut_out(rgb, face)
        sizes, yaws = (height, height), (yaw, yaw)
        summaries[tracked.track] = TrackSummary(tracked.track, seconds, seconds, 1, sizes, yaws, picture, clearness)
        return
    known.last, known.frames = seconds, known.frames + 1
    known.heights = (min(known.heights[0], height), max(known.heights[1], height))
    known.yaws = (min(known.yaws[0], yaw), max(known.yaws[1], yaw))
    if clearness > known.clearness:
        known.picture, known.clearness = cut_out(rgb, face), clearness


def cut_out(rgb: np.ndarray, face: "Face") -> np.ndarray:
    """The aligned picture of a face, (S, S, 3) uint8 RGB."""
    from faceswap_diffusion.faces.alignment import crop, ffhq_matrix

    return crop(rgb, ffhq_matrix(face.landmarks68, PICTURE_SIDE), PICTURE_SIDE)


def describe_track(summary: TrackSummary) -> dict[str, Any]:
    """Turns a track into plain numbers."""
    return {
        "track": summary.track,
        "first": round(summary.first, 3),
        "last": round(summary.last, 3),
        "frames": summary.frames,
        "height": [round(height) for height in summary.heights],
        "yaw": [round(yaw, 1) for yaw in summary.yaws],
    }


def track_line(summary: TrackSummary) -> str:
    """Writes a track as one line: times, frames, size, yaw."""
    low, high = (round(height) for height in summary.heights)
    left, right = summary.yaws
    return (
        f"{summary.track}: {summary.first:.2f} to {summary.last:.2f} s, {summary.frames} "
        f"frame{'' if summary.frames == 1 else 's'}, {low} to {high} px high, yaw {left:+.0f} to {right:+.0f} degrees"
    )


def track_sheet(summaries: list[TrackSummary]) -> "Image.Image":
    """The faces of tracks with their numbers and times, row by row."""
    from PIL import Image, ImageDraw

    columns = min(COLUMNS, len(summaries))
    sheet = Image.new("RGB", (columns * PICTURE_SIDE, math.ceil(len(summaries) / columns) * PICTURE_SIDE))
    draw = ImageDraw.Draw(sheet)
    for index, summary in enumerate(summaries):
        corner = (index % columns * PICTURE_SIDE, index // columns * PICTURE_SIDE)
        sheet.paste(Image.fromarray(summary.picture), corner)
        text = f"{summary.track}: {summary.first:.1f} to {summary.last:.1f} s"
        draw.text((corner[0] + 4, corner[1] + 2), text, fill="white", stroke_width=2, stroke_fill="black")
    return sheet
