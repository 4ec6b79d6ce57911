"""Joins encoded segments and the other streams of a video into one file, without encoding anything again."""

import errno
import heapq
import io
import logging
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.stream import Disposition

from faceswap_diffusion.videos.frames import Span, VideoFacts
from faceswap_diffusion.videos.reading import open_container, origin_of, video_stream
from faceswap_diffusion.writing import whole_file

logger = logging.getLogger(__name__)

MP4_OPTIONS = {"movflags": "+faststart", "movie_timescale": "90000"}
"""The table of contents comes first, so that players on the web can begin at once, and starts are exact."""

TIMECODE = "timecode"
"""Metadata of a stream, from which FFmpeg writes the track of a clock by itself."""


@dataclass(frozen=True)
class Segment:
    """A part of a video, encoded.

    Args:
        path (`Path`): See [`encoding.write_segment`].
        times (`list[int]`): When each of its frames is shown, growing, in units of the video's time base.
    """

    path: Path
    times: list[int]


def join_segments(
    segments: Sequence[Segment],
    facts: VideoFacts,
    source: Path | None,
    span: Span,
    metadata: dict[str, str],
    output: Path,
    container_name: str,
) -> None:
    """Joins segments, and copies audio, subtitles, data and chapters of the source packet by packet.

    Args:
        segments (`Sequence[Segment]`): In order, all encoded alike.
        facts ([`VideoFacts`]): Of the source.
        source (`Path`, *optional*): The file with the other streams.
        span ([`Span`]): The part of the source that the segments show.
        metadata (`dict[str, str]`): Of the new file.
        output (`Path`): Where to.
        container_name (`str`): FFmpeg's name of its kind.

    Raises:
        OSError: If it cannot be written.
        ValueError: If the source cannot be read any more.
    """
    options = MP4_OPTIONS if container_name in ("mp4", "mov") else {}
    with av.open(str(output), "w", format=container_name, options=options) as joined:
        joined.metadata.update(metadata)
        video = _add_video(joined, segments[0].path, facts)
        packets = _video_packets(segments, video, facts, span)
        if source is None:
            _mux(joined, packets)
        else:
            with open_container(source) as container:
                video.metadata.update(video_stream(container).metadata)
                copies = _add_copies(joined, container, container_name)
                _copy_chapters(joined, container, span)
                copied = _copied_packets(container, copies, span)
                _mux(joined, heapq.merge(packets, copied, key=_time))
    with open(output, "rb+") as file:
        os.fsync(file.fileno())


def place(file: Path, path: Path) -> None:
    """Gives a finished file its name; one that is there is replaced, and the new one there whole or not at all.

    Args:
        file (`Path`): The finished file, maybe on another disk.
        path (`Path`): Its place.
    """
    try:
        os.replace(file, os.path.realpath(path))
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with whole_file(path) as unfinished:
            shutil.copyfile(file, unfinished)


def _mux(joined: Any, packets: Iterator[Any]) -> None:
    for packet in packets:
        joined.mux_one(packet)


def _time(packet: Any) -> Fraction:
    return (packet.dts if packet.dts is not None else packet.pts) * packet.time_base


def _add_video(joined: Any, segment: Path, facts: VideoFacts) -> Any:
    with av.open(str(segment)) as container:
        video = joined.add_stream_from_template(container.streams.video[0], opaque=True)
    video.time_base = facts.time_base
    if facts.matrix is not None:
        video.set_display_matrix(facts.matrix)
    return video


def _video_packets(segments: Sequence[Segment], video: Any, facts: VideoFacts, span: Span) -> Iterator[Any]:
    """The packets of all segments in the order of decoding, with the source's times."""
    times = np.array([time for segment in segments for time in segment.times], np.int64)
    usual = round(float(np.median(np.diff(times)))) if len(times) > 1 else 1
    end = span.end_of(facts)
    end = int(times[-1]) + usual if end is None or end <= times[-1] else end
    ends = np.append(times[1:], end)
    delay = max(_reordering(segment.path) for segment in segments)
    # Decoding begins before the first frame is shown, by as many frames as the encoder has changed the order of.
    decoded = np.concatenate([times[0] + usual * np.arange(-delay, 0), times])
    number = 0
    for segment in segments:
        first, order = number, _display_order(segment.path)
        for packet, place in zip(_packets(segment.path), order, strict=True):
            packet.stream, packet.time_base = video, facts.time_base
            packet.pts, packet.dts = int(times[first + place]), int(decoded[number])
            packet.duration = int(ends[first + place]) - packet.pts
            number += 1
            if number == len(times):  # MP4 counts a track's length by decoding times and the duration of the last
                packet.duration = max(end - int(times[0]) - (packet.dts - int(decoded[0])), 1)
            yield packet


def _packets(path: Path) -> Iterator[Any]:
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.video[0]):
            if packet.size:
                yield packet


def _display_order(path: Path) -> list[int]:
    """For each packet in the order of decoding its place in the order of display."""
    shown = [packet.pts for packet in _packets(path)]
    return np.argsort(np.argsort(shown)).tolist()


def _reordering(path: Path) -> int:
    """By how many places at most a frame is decoded later than shown."""
    return max(index - place for index, place in enumerate(_display_order(path)))


def _add_copies(joined: Any, container: Any, container_name: str) -> dict[int, Any]:
    """Adds streams for all that is copied, by the index of the source's; warns of what such a file cannot hold."""
    copies = {}
    shown = video_stream(container)
    for stream in container.streams:
        if stream is shown or (stream.type == "data" and _follows_by_itself(stream, container)):
            continue
        if not _fits(stream, container_name):
            kind = stream.codec_context.name if stream.codec_context else stream.name or "unknown"
            logger.warning(
                f"{container.name}: its {stream.type} stream {stream.index} ({kind}) is left out, which a "
                f"{container_name} file cannot hold: write a .mkv, or convert it beforehand"
            )
            continue
        copies[stream.index] = _copy(joined, stream)
    return copies


def _follows_by_itself(stream: Any, container: Any) -> bool:
    """Whether a data stream of a QuickTime file holds the titles of chapters or a clock, which FFmpeg writes anew."""
    starts = [chapter["start"] * chapter["time_base"] for chapter in container.chapters()]
    times = [entry.timestamp * stream.time_base for entry in stream.index_entries]
    return TIMECODE in stream.metadata or bool(starts and times == starts)


def _copy(joined: Any, stream: Any) -> Any:
    if stream.type == "attachment":
        return joined.add_attachment(stream.metadata.get("filename", ""), stream.mimetype or "", stream.data)
    copy = joined.add_stream_from_template(stream, opaque=True)
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


def _fits(stream: Any, container_name: str) -> bool:
    """Whether a file of a kind can hold a stream, found out by beginning one."""
    try:
        with av.open(io.BytesIO(), "w", format=container_name) as trial:
            _copy(trial, stream)
            trial.start_encoding()
    except (ValueError, OSError, FFmpegError):
        return False
    return True


def _copied_packets(container: Any, copies: dict[int, Any], span: Span) -> Iterator[Any]:
    """The packets of the other streams within the part, their times counted from its start."""
    streams = [container.streams[index] for index in copies if container.streams[index].type != "attachment"]
    if not streams:
        return
    for packet in container.demux(streams):
        base = packet.time_base
        if packet.stream.disposition & Disposition.attached_pic:  # a cover has no time
            packet.pts = packet.dts = origin_of(container, base) + max(int(span.ticks(base)[0]), 0)
        if packet.size == 0 or packet.pts is None:
            continue
        origin, (first, last) = origin_of(container, base), span.ticks(base)
        if first <= packet.pts - origin < last:
            shift = origin + span.shift(base)
            packet.pts -= shift
            packet.dts = None if packet.dts is None else packet.dts - shift
            packet.stream = copies[packet.stream_index]
            yield packet


def _copy_chapters(joined: Any, container: Any, span: Span) -> None:
    chapters = []
    for chapter in container.chapters():
        base = chapter["time_base"]
        start, end = (Fraction(chapter[edge]) * base - span.start for edge in ("start", "end"))
        length = None if span.end is None else span.end - span.start
        end = end if length is None else min(end, length)
        if max(start, 0) < end:
            chapters.append({**chapter, "start": round(max(start, 0) / base), "end": round(end / base)})
    if chapters:
        joined.set_chapters(chapters)
