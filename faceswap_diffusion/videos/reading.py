"""Opens whatever shows frames: video files, animated pictures, folders of pictures."""

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.stream import Disposition

from faceswap_diffusion.videos.frames import Colors, Frame, Picture, Seconds, Span, Video, VideoFacts

logger = logging.getLogger(__name__)

ARBITRARY_STARTS = ("mpegts", "mpeg")
"""Formats whose times begin anywhere; they are counted from their first."""

USUAL_RATE = Fraction(25)

WORTH_WINDING = 20
"""Seconds between two frames from which on those between are not decoded; encoders start anew every ten or so."""


def open_video(path: str | Path, frame_rate: Seconds | None = None) -> Video:
    """Opens a video.

    Args:
        path (`str | Path`): A file that FFmpeg reads, an animated picture, or a folder of pictures, one a frame.
        frame_rate (`float`, *optional*): Frames a second of a folder, which has none by itself; 25 if left out.

    Raises:
        ValueError: If it is missing, empty, damaged or shows no moving picture; if a frame rate is given for what has
            times of its own.
    """
    from faceswap_diffusion.videos.pictures import AnimatedPicture, PictureFolder, is_animated_webp

    path = Path(path)
    if path.is_dir():
        return PictureFolder(path, Fraction(frame_rate or USUAL_RATE).limit_denominator(100_000))
    if frame_rate is not None:
        raise ValueError(f"a frame rate was given for {path}, which has times of its own: leave it out")
    return AnimatedPicture(path) if is_animated_webp(path) else VideoFile(path)


class VideoFile:
    """A video that FFmpeg reads.

    Args:
        path (`str | Path`): The file.

    Raises:
        ValueError: If it is missing, empty, damaged, has no video stream or is a picture.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.container: Path | None = self.path
        with open_container(self.path) as container:
            self.facts = _facts(container, self.path)

    def digest(self) -> str:
        """SHA-256 of the file."""
        return digest_of_files([self.path])

    def frames(self, span: Span) -> Iterator[Frame]:
        """Decodes the frames of a part, in the order of their times.

        Raises:
            ValueError: If the file cannot be read any more.
        """
        with open_container(self.path) as container:
            stream = video_stream(container)
            # Several frames at once would make it a matter of chance what is made up for damaged data.
            stream.codec_context.thread_type = "SLICE"
            origin = origin_of(container, self.facts.time_base)
            first, last = span.ticks(self.facts.time_base)
            for frame in _in_order(_decode(container, stream, self.path)):
                frame.pts -= origin
                if frame.pts >= last:
                    return
                if frame.pts >= first:
                    frame.pts -= span.shift(self.facts.time_base)
                    yield frame

    def spread(self, count: int) -> Iterator[Picture]:
        """Decodes frames that are spread evenly over the file, and of a long file only what is near them.

        Args:
            count (`int`): How many at most; damaged frames are left out.

        Raises:
            ValueError: If the file cannot be read any more.
        """
        length = self.facts.end or int((self.facts.duration or count) / self.facts.time_base)
        gap = round(WORTH_WINDING / self.facts.time_base)
        with open_container(self.path) as container:
            stream = video_stream(container)
            origin = origin_of(container, self.facts.time_base)
            frames, last = _decode(container, stream, self.path), -1
            for wanted in (length * (2 * number + 1) // (2 * count) for number in range(count)):
                if wanted <= last:
                    continue
                if wanted - last > gap:
                    container.seek(wanted + origin, stream=stream)
                    frames = _decode(container, stream, self.path)
                behind = wanted + origin - 1
                frame = next((one for one in frames if not one.is_broken and one.pts + one.duration > behind), None)
                if frame is None or frame.picture is None:
                    return
                last = frame.pts - origin
                yield frame.picture


def open_container(path: Path) -> Any:
    """Opens a file by PyAV for reading.

    Raises:
        ValueError: If it is missing, empty or damaged.
    """
    try:
        if path.stat().st_size == 0 and path.is_file():
            raise ValueError(f"cannot read {path}: it is empty")
        return av.open(str(path))
    except FFmpegError as error:
        raise unreadable(path, error) from None
    except OSError as error:
        raise ValueError(f"cannot read {path}: {(error.strerror or str(error)).lower()}; check the path") from None


def unreadable(path: Path, error: Exception) -> ValueError:
    """The error for a file that FFmpeg does not read."""
    reason = getattr(error, "strerror", None) or str(error)
    return ValueError(
        f"cannot read {path}: it is no video, truncated or damaged ({reason}); use a file that a player plays"
    )


def origin_of(container: Any, time_base: Fraction) -> int:
    """What to take off a file's times so that they begin at 0, where its format lets them begin anywhere."""
    if container.format.name not in ARBITRARY_STARTS or container.start_time is None:
        return 0
    return round(Fraction(container.start_time, av.time_base) / time_base)


def display_matrix(picture: "av.VideoFrame") -> tuple[int, ...] | None:
    """The nine numbers that say how a frame is turned upright; `None` if it is."""
    data = picture.side_data.get("DISPLAYMATRIX")
    matrix = (65536, 0, 0, 0, 65536) if data is None else tuple(np.frombuffer(data, np.int32).tolist())
    return None if matrix[:5] == (65536, 0, 0, 0, 65536) else matrix


def digest_of_files(paths: Iterable[Path]) -> str:
    """SHA-256 of the content of files, one after the other.

    Raises:
        ValueError: If one cannot be read.
    """
    digest = hashlib.sha256()
    for path in paths:
        try:
            with open(path, "rb") as file:
                while block := file.read(2**20):
                    digest.update(block)
        except OSError as error:
            raise ValueError(f"cannot read {path}: {(error.strerror or str(error)).lower()}") from None
    return digest.hexdigest()


def video_stream(container: Any) -> Any:
    """The stream that a player would show; cover pictures of songs do not count.

    Raises:
        ValueError: If there is none, the file is a picture, or its codec is unknown.
    """
    name = container.name
    if "_pipe" in container.format.name or container.format.name == "image2":
        raise ValueError(f"{name} is a picture: use `faceswap-diffusion swap`, or name a video or a folder of frames")
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        raise ValueError(f"{name} has no video stream: use a file that shows moving pictures")
    stream = next((stream for stream in streams if stream.disposition & Disposition.default), streams[0])
    if stream.codec_context is None:
        raise ValueError(f"cannot read {name}: this build of FFmpeg has no decoder for its video; convert it first")
    return stream


def _facts(container: Any, path: Path) -> VideoFacts:
    """What a file says of its video, and its first frame."""
    stream, name = video_stream(container), str(path)
    picture = next((frame.picture for frame in _decode(container, stream, path) if frame.picture), None)
    if picture is None:
        raise ValueError(f"cannot read {name}: it has no frame that can be decoded; it may be truncated")
    return VideoFacts(
        name=name,
        size=(picture.width, picture.height),
        time_base=stream.time_base,
        rate=stream.average_rate or stream.guessed_rate or USUAL_RATE,
        end=_end(container, stream),
        duration=None if container.duration is None else Fraction(container.duration, av.time_base),
        pixel_format=picture.format.name,
        colors=Colors(
            *map(int, (picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc))
        ),
        matrix=display_matrix(picture),
        pixel_aspect=stream.sample_aspect_ratio or None,
        metadata=dict(container.metadata),
    )


def _end(container: Any, stream: Any) -> int | None:
    """When a stream says that it ends, in units of its time base."""
    if stream.duration is not None:
        return (stream.start_time or 0) + stream.duration - origin_of(container, stream.time_base)
    told = re.fullmatch(r"(\d+):(\d+):(\d+\.\d+)", stream.metadata.get("DURATION", ""))  # of Matroska
    if told is None:
        return None
    hours, minutes, seconds = told.groups()
    return round((3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)) / stream.time_base)


def _decode(container: Any, stream: Any, path: Path) -> Iterator[Frame]:
    """Decodes all frames; for data that cannot be decoded, a frame without a picture."""
    for packet in _packets(container, stream, path):
        if packet is None:
            yield Frame(0, 0, None, is_broken=True)
            continue
        try:
            pictures = packet.decode()
        except FFmpegError:  # of many kinds, where a header is damaged
            yield Frame(packet.pts or 0, 0, None, is_broken=True)
            continue
        for picture in pictures:
            pts = picture.pts if picture.pts is not None else picture.dts
            yield Frame(-(2**62) if pts is None else pts, picture.duration or 0, picture, bool(picture.is_corrupt))


def _packets(container: Any, stream: Any, path: Path) -> Iterator[Any]:
    """Reads a stream's packets, going on behind what is damaged, for which it yields `None`."""
    damaged = False
    while True:
        try:
            for packet in container.demux(stream):
                damaged = False
                yield packet
            return
        except InvalidDataError:
            if damaged:  # nothing could be read since
                return
            damaged = True
            yield None
        except (FFmpegError, OSError) as error:
            raise unreadable(path, error) from None


def _in_order(frames: Iterable[Frame]) -> Iterator[Frame]:
    """Gives times to frames without one, and lets them grow where they do not."""
    last, step = -1, 1
    first = True
    for frame in frames:
        if frame.picture is None:
            frame.pts = last
        else:
            if not first and frame.pts <= last:
                frame.pts = last + step
            elif first and frame.pts < -(2**61):
                frame.pts = 0
            step, last, first = frame.duration or step, frame.pts, False
        yield frame
