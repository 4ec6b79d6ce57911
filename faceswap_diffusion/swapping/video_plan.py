"""What is to be done with a video, read and checked before the work, without PyTorch."""

import logging
import math
import os
import shutil
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from faceswap_diffusion.provenance.save import check_place
from faceswap_diffusion.videos.camera import record_camera
from faceswap_diffusion.videos.colors import FrameColors
from faceswap_diffusion.videos.encoding import (
    Encoding,
    choose_codec,
    choose_pixel_format,
    choose_quality,
)
from faceswap_diffusion.videos.frames import Seconds, Span, Video
from faceswap_diffusion.videos.reading import open_video

logger = logging.getLogger(__name__)

FEWEST, MOST = 4, 240  # frames in a segment


@dataclass(frozen=True)
class VideoPlan:
    """What is to be done with a video.

    Args:
        video ([`Video`]): The video to change.
        output (`Path`): Where to write the new one.
        span ([`Span`]): The part of it.
        encoding ([`Encoding`]): How it is written.
        work_dir (`Path`): Where finished parts are kept until all are there.
        every (`int`, *optional*): Of which frames a preview sheet shows one.
        strict (`bool`): Whether a broken frame ends the work.
        allow_empty (`bool`): Whether a video without a face to swap is written as it is.
        segment_seconds (`float`): How long the parts are that are written whole or not at all.
        recording (`Path`, *optional*): What a camera saw, to be removed at the end.
    """

    video: Video
    output: Path
    span: Span
    encoding: Encoding
    work_dir: Path
    every: int | None
    strict: bool
    allow_empty: bool
    segment_seconds: Seconds
    recording: Path | None = None

    @property
    def frames_per_segment(self) -> int:
        """How many frames the parts have that are written whole or not at all."""
        return min(max(round(self.segment_seconds * self.video.facts.rate), FEWEST), MOST)

    @property
    def sheet(self) -> Path | None:
        """Where the preview sheet is written: beside the video, under its name."""
        return self.output.with_suffix(".png") if self.every else None

    @property
    def colors(self) -> FrameColors:
        """How frames become pixels and back."""
        return FrameColors(self.video.facts, self.encoding.pixel_format)

    def settings(self) -> dict[str, str | int | None]:
        """All of it that finished parts depend on."""
        encoding = self.encoding
        return {
            "start": str(self.span.start),
            "end": None if self.span.end is None else str(self.span.end),
            "frame rate": str(self.video.facts.rate),
            "codec": encoding.codec,
            "quality": encoding.quality,
            "pixel format": encoding.pixel_format,
            "every": self.every,
            "frames in a part": self.frames_per_segment,
        }


def plan_video(
    video: str | os.PathLike | int,
    output: str | os.PathLike,
    *,
    start: Seconds = 0,
    end: Seconds | None = None,
    frame_rate: Seconds | None = None,
    codec: str | None = None,
    quality: int | None = None,
    every: int | None = None,
    work_dir: str | os.PathLike | None = None,
    strict: bool = False,
    allow_empty: bool = False,
    segment_seconds: Seconds = 2,
    overwrite: bool = True,
) -> VideoPlan:
    """Opens a video and checks what is to be done with it.

    Args:
        video (`str | os.PathLike | int`): The video to change: a file, an animated picture, a folder of frames, or the
            index of a camera, from which as much is recorded as `end` says.
        output (`str | os.PathLike`): Where to write the new one; ends in a key of `CONTAINERS`.
        start (`float`): Of the part to be taken, in seconds.
        end (`float`, *optional*): Where the part ends, in seconds; at the end of the video if left out.
        frame_rate (`float`, *optional*): Frames a second of a folder of frames; 25 if left out.
        codec (`str`, *optional*): A key of `ENCODERS`; H.264 if left out, and VP9 for WebM.
        quality (`int`, *optional*): Constant rate factor, 0 being best; see `QUALITIES`.
        every (`int`, *optional*): Also write a preview sheet, a PNG beside the output, of every so many frames.
        work_dir (`str | os.PathLike`, *optional*): Where finished parts are kept; beside the output if left out.
        strict (`bool`): Whether a broken frame ends the work; else it is left as it is.
        allow_empty (`bool`): Whether a video without a face to swap is written as it is; else that is an error.
        segment_seconds (`float`): How long the parts are that are written whole or not at all: what is lost at most if
            the run is stopped.
        overwrite (`bool`): Whether what is there under the names of the outputs may be replaced.

    Returns:
        [`VideoPlan`]: To be given to `VideoSwapper.run`.

    Raises:
        ValueError: If the video cannot be read, has no video stream; if the output is
            the video, or cannot be written; for a codec that is not in this build of FFmpeg, and for other settings
            that do not fit.
    """
    output = Path(output)
    codec = choose_codec(codec, output)
    quality = choose_quality(codec, quality)
    check_place(output, overwrite)
    recording = _recording(video, output, end) if isinstance(video, int) else None
    path = Path(video) if recording is None else recording  # pyright: ignore[reportArgumentType]
    opened = open_video(path, frame_rate)
    if output.exists() and os.path.samefile(output, path):
        raise ValueError(f"{output} is the video itself: name another output")
    facts = opened.facts
    if facts.colors.is_hdr:
        logger.warning(
            f"{facts.name} is of high dynamic range (HDR), which the model does not know: it is converted to standard "
            "range (BT.709), all of it"
        )
    pixel_format = choose_pixel_format(codec, facts)
    colors = FrameColors(facts, pixel_format).output_colors(facts.colors)
    encoding = Encoding(codec, quality, pixel_format, facts.size, facts.rate, colors, facts.pixel_aspect)
    plan = VideoPlan(
        opened,
        output,
        _span(start, end, opened),
        encoding,
        Path(work_dir) if work_dir else output.with_name(f"{output.name}.parts"),
        every,
        strict,
        allow_empty,
        segment_seconds,
        recording,
    )
    if every is not None and every < 1:
        raise ValueError(f"got every {every}: a preview sheet shows every 1st, 2nd, ... frame")
    if plan.sheet is not None:
        check_place(plan.sheet, overwrite)
    _check_work_dir(plan.work_dir)
    return plan


def _recording(camera: int, output: Path, end: Seconds | None) -> Path:
    """What a camera sees, or has seen before a run was stopped."""
    path = output.with_name(f"{output.name}.camera.mkv")
    if path.exists():
        return path
    if end is None:
        raise ValueError(f"camera {camera} does not end by itself: say after how many seconds (end, --end)")
    record_camera(camera, end, path)
    return path


def _span(start: Seconds, end: Seconds | None, video: Video) -> Span:
    facts = video.facts
    length = math.inf if facts.duration is None else float(facts.duration)
    if not 0 <= start < length:
        raise ValueError(f"got start {float(start):g}: {facts.name} lasts from 0 to {length:.3f} seconds")
    if end is not None and end <= start:
        raise ValueError(f"got start {float(start):g} and end {float(end):g}: the end has to come after the start")
    exact = (Fraction(value).limit_denominator(1_000_000) for value in (start, end or 0))
    first, last = exact
    return Span(first, None if end is None else last)


def _check_work_dir(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder: name another work folder")
    above = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not os.access(above, os.W_OK):
        raise ValueError(f"cannot write in {above}: no permission; name another work folder")
    if shutil.disk_usage(above).free == 0:
        raise ValueError(f"the disk of {above} is full: free some space, or name another work folder")
