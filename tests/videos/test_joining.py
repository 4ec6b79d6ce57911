"""From frames to segments to one file: times, sound, chapters, rotation, colours and bits are what they were."""

import logging
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from faceswap_diffusion.videos.colors import FrameColors
from faceswap_diffusion.videos.encoding import (
    Encoding,
    choose_codec,
    choose_pixel_format,
    choose_quality,
    container_of,
    write_segment,
)
from faceswap_diffusion.videos.frames import Colors, Span
from faceswap_diffusion.videos.joining import Segment, join_segments
from faceswap_diffusion.videos.reading import open_video
from tests.clips import moving_face, noise, packets, pictures, times, write_clip


def encoded(video, folder: Path, codec: str, size: int = 5, span: Span = Span()) -> list[Segment]:  # noqa: B008
    """The frames of a video as they are, in segments of some frames."""
    facts = video.facts
    pixel_format = choose_pixel_format(codec, facts)
    colors = FrameColors(facts, pixel_format)
    encoding = Encoding(
        codec, choose_quality(codec, None), pixel_format, facts.size, facts.rate,
        colors.output_colors(facts.colors), facts.pixel_aspect,
    )  # fmt: skip
    frames = list(video.frames(span))
    segments = []
    for first in range(0, len(frames), size):
        part = frames[first : first + size]
        path = folder / f"{first:03d}.mkv"
        assert write_segment(path, (colors.unchanged(frame.picture) for frame in part), encoding) == len(part)
        segments.append(Segment(path, [frame.pts for frame in part]))
    return segments


def copied(path: Path, output: Path, codec: str | None = None, span: Span = Span()) -> list[Segment]:  # noqa: B008
    """Writes a video anew, joined from segments, and returns these."""
    video = open_video(path)
    segments = encoded(video, output.parent, choose_codec(codec, output), span=span)
    join_segments(segments, video.facts, video.container, span, {"title": "new"}, output, container_of(output))
    return segments


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("clip")
    return write_clip(folder / "clip.mp4", moving_face(18, (64, 48)), rotation=90, chapters=True)


def edges(chapter) -> tuple[float, float]:
    """Start and end of a chapter in seconds."""
    return float(chapter["start"] * chapter["time_base"]), float(chapter["end"] * chapter["time_base"])


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_times_and_sound_are_what_they_were(clip: Path, tmp_path: Path, suffix: str):
    copied(clip, tmp_path / f"new{suffix}")
    assert times(tmp_path / f"new{suffix}") == times(clip)
    assert packets(tmp_path / f"new{suffix}") == packets(clip)
    with av.open(str(clip)) as old, av.open(str(tmp_path / f"new{suffix}")) as new:
        assert new.streams.video[0].time_base == old.streams.video[0].time_base
        assert new.duration == pytest.approx(old.duration, abs=40_000)


def test_chapters_rotation_colors_and_metadata_are_kept(clip: Path, tmp_path: Path, caplog):
    copied(clip, tmp_path / "new.mp4")
    old, new = open_video(clip).facts, open_video(tmp_path / "new.mp4").facts
    assert (new.matrix, new.colors, new.size) == (old.matrix, Colors(1, 1, 1, 1), (64, 48))
    assert old.matrix is not None
    assert new.metadata["title"] == "new"
    with av.open(str(tmp_path / "new.mp4")) as container:
        assert next(container.decode(video=0)).rotation == 90
        told = [(*edges(chapter), chapter["metadata"]["title"]) for chapter in container.chapters()]
    assert told == [(0, 0.3, "one"), (0.3, 0.7, "two")]
    assert caplog.records == []  # nothing was left out


def test_joined_frames_are_those_of_the_segments_and_near_the_input(clip: Path, tmp_path: Path):
    segments = copied(clip, tmp_path / "new.mp4")
    assert len(segments) == 4
    parts = list(chain.from_iterable(pictures(segment.path) for segment in segments))
    new = pictures(tmp_path / "new.mp4")
    assert all(np.array_equal(a, b) for a, b in zip(new, parts, strict=True))
    errors = [np.abs(a.astype(int) - b).mean() for a, b in zip(new, pictures(clip), strict=True)]
    assert max(errors) < 3  # of 255: the clip is as detailed as 64 x 48 pixels can be


def test_a_part_takes_its_sound_and_chapters_along(clip: Path, tmp_path: Path):
    start, end = times(clip)[5], times(clip)[12]
    copied(clip, tmp_path / "new.mp4", span=Span(start, end))
    assert times(tmp_path / "new.mp4") == [time - start for time in times(clip)[5:12]]
    kept = [(time, data) for time, data in packets(clip) if start <= time < end]
    new = packets(tmp_path / "new.mp4")
    assert [data for _, data in new] == [data for _, data in kept]
    shifted = [float(time - start) for time, _ in kept]
    assert [float(time) for time, _ in new] == pytest.approx(shifted, abs=1 / 16_000)
    with av.open(str(tmp_path / "new.mp4")) as container:
        told = [edges(chapter) for chapter in container.chapters()]
    assert told == [
        pytest.approx((0, 0.3 - start), abs=1e-3), pytest.approx((0.3 - start, end - start), abs=1e-3)
    ]  # fmt: skip


@pytest.mark.parametrize(("codec", "suffix"), [("hevc", ".mp4"), ("vp9", ".webm"), ("av1", ".mkv")])
def test_other_codecs(tmp_path: Path, codec: str, suffix: str):
    clip = write_clip(tmp_path / "clip.mkv", noise(7, (64, 64)), sound=False)
    copied(clip, tmp_path / f"new{suffix}", codec)
    assert times(tmp_path / f"new{suffix}") == times(clip)
    with av.open(str(tmp_path / f"new{suffix}")) as container:
        assert container.streams.video[0].codec.canonical_name == codec


def test_ten_bits_stay_ten_and_without_loss_every_number_stays(tmp_path: Path):
    clip = write_clip(
        tmp_path / "clip.mkv", moving_face(6, (64, 48)), codec="libx265", pixel_format="yuv420p10le",
        options={"x265-params": "log-level=error"}, colors=(9, 1, 9, 1), sound=False,
    )  # fmt: skip
    copied(clip, tmp_path / "new.mp4", "h264")
    assert open_video(tmp_path / "new.mp4").facts.pixel_format == "yuv420p10le"
    assert open_video(tmp_path / "new.mp4").facts.colors == Colors(9, 1, 9, 1)
    copied(clip, tmp_path / "new.mkv", "ffv1")
    assert ten_bit_planes(tmp_path / "new.mkv") == ten_bit_planes(clip)


def ten_bit_planes(path: Path) -> list[list[int]]:
    """All numbers of the planes of a video of 10 bits; PyAV 17 makes no arrays of such frames."""
    with av.open(str(path)) as container:
        planes = [plane for frame in container.decode(video=0) for plane in frame.planes]
        rows = [np.frombuffer(memoryview(plane), np.uint16).reshape(plane.height, -1) for plane in planes]
        return [row[:, : plane.width].ravel().tolist() for row, plane in zip(rows, planes, strict=True)]


def test_odd_sizes_are_kept(tmp_path: Path):
    clip = write_clip(tmp_path / "clip.mkv", noise(3, (63, 47)), codec="ffv1", options={}, sound=False)
    copied(clip, tmp_path / "new.mp4")
    assert open_video(tmp_path / "new.mp4").facts.size == (63, 47)


def test_what_a_file_cannot_hold_is_named(clip: Path, tmp_path: Path, caplog):
    with caplog.at_level(logging.WARNING):
        copied(clip, tmp_path / "new.webm")
    assert [record.getMessage() for record in caplog.records] == [
        f"{clip}: its audio stream 1 (aac) is left out, which a webm file cannot hold: write a .mkv, or convert it "
        "beforehand"
    ]


def test_covers_and_attached_files_are_copied(tmp_path: Path):
    source = write_clip(tmp_path / "source.mkv", noise(3))
    cover = write_clip(
        tmp_path / "cover.mkv", noise(1), codec="mjpeg", pixel_format="yuvj420p", options={}, sound=False
    )
    with av.open(str(source)) as video, av.open(str(cover)) as picture:
        for name in ("cover.mp4", "font.mkv"):
            with av.open(str(tmp_path / name), "w") as container:
                copies = {stream: container.add_stream_from_template(stream, opaque=True) for stream in video.streams}
                if name == "cover.mp4":
                    copies[picture.streams[0]] = container.add_stream_from_template(picture.streams[0], opaque=True)
                    copies[picture.streams[0]].disposition = Disposition.attached_pic
                else:
                    container.add_attachment("font.ttf", "font/ttf", b"letters")
                for stream, copy in copies.items():
                    stream.container.seek(0)
                    for packet in stream.container.demux(stream):
                        if packet.size:
                            packet.stream = copy
                            container.mux_one(packet)
    copied(tmp_path / "cover.mp4", tmp_path / "new.mp4", span=Span(Fraction(1, 50)))
    copied(tmp_path / "font.mkv", tmp_path / "new.mkv")
    with av.open(str(tmp_path / "new.mp4")) as container:
        assert [stream.disposition for stream in container.streams.video] == [1, Disposition.attached_pic]
    with av.open(str(tmp_path / "new.mkv")) as container:
        assert container.streams[-1].data == b"letters"


def test_subtitles_are_copied(tmp_path: Path):
    write_subtitled(tmp_path / "clip.mkv")
    copied(tmp_path / "clip.mkv", tmp_path / "new.mkv")
    assert packets(tmp_path / "new.mkv", "subtitle") == [(Fraction(1, 10), b"Hello"), (Fraction(2, 10), b"again")]


def write_subtitled(path: Path) -> None:
    (path.parent / "lines.srt").write_text(
        "1\n00:00:00,100 --> 00:00:00,200\nHello\n\n2\n00:00:00,200 --> 00:00:00,300\nagain\n"
    )
    silent = write_clip(path.parent / "silent.mkv", noise(6), sound=False)
    names = (silent, path.parent / "lines.srt")
    with av.open(str(names[0])) as video, av.open(str(names[1])) as lines, av.open(str(path), "w") as container:
        sources = [source.streams[0] for source in (video, lines)]
        copies = [container.add_stream_from_template(source, opaque=True) for source in sources]
        for source, copy in zip(sources, copies, strict=True):
            for packet in source.container.demux(source):
                if packet.size:
                    packet.stream = copy
                    container.mux_one(packet)


@pytest.mark.parametrize(
    ("codec", "name", "message"),
    [
        ("divx", "a.mp4", r"got codec 'divx', which this build of FFmpeg cannot write; it has h264, "),
        ("ffv1", "a.mp4", r"\.mp4 files cannot hold ffv1: choose h264 or hevc or av1 or vp9, or write a \.mkv"),
        (None, "a.avi", r"cannot save a\.avi: unknown kind '\.avi'; end the name in \.mp4, "),
    ],
)
def test_codecs_that_do_not_fit_are_named_with_those_that_do(codec, name: str, message: str):
    with pytest.raises(ValueError, match=message):
        choose_codec(codec, Path(name))


@pytest.mark.parametrize(("codec", "quality"), [("h264", 52), ("vp9", -1), ("ffv1", 3)])
def test_qualities_out_of_range_are_refused(codec: str, quality: int):
    with pytest.raises(ValueError, match=f"got quality {quality}"):
        choose_quality(codec, quality)
