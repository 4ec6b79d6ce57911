"""Encoders: which there are, what they take, and segments of a video written by one."""

import itertools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.codec
import av.logging
from av.error import FFmpegError

from faceswap_diffusion.videos.frames import Colors, VideoFacts

CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
"""FFmpeg's name of a container, by the suffix of its files."""

ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "medium"}),
    "hevc": ("libx265", {"preset": "medium", "x265-params": "log-level=error"}),
    "av1": ("libsvtav1", {"preset": "8"}),
    "vp9": ("libvpx-vp9", {"b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "3"}),
    "ffv1": ("ffv1", {"level": "3", "slicecrc": "1"}),
}
"""For each codec FFmpeg's encoder and its options."""

QUALITIES = {"h264": 17, "hevc": 19, "av1": 24, "vp9": 22}
"""The constant rate factor of each codec if nobody says, and no more than a trained eye can tell from the input."""

LOSSLESS = ("ffv1",)
LONGEST_DELAY = 64  # frames by which an encoder decodes one earlier than it is shown, and more
LAYOUTS = ("420", "422", "444")
"""How many numbers there are for colour, from few to many."""


@dataclass(frozen=True)
class Encoding:
    """How a video is encoded.

    Args:
        codec (`str`): A key of `ENCODERS`.
        quality (`int`, *optional*): Constant rate factor, 0 being best; `None` for a codec without loss.
        pixel_format (`str`): FFmpeg's name.
        size (`tuple[int, int]`): Width and height in pixels.
        rate (`Fraction`): Frames a second, on average.
        colors ([`Colors`]): Of its numbers.
        pixel_aspect (`Fraction`, *optional*): Width of a pixel by its height.
    """

    codec: str
    quality: int | None
    pixel_format: str
    size: tuple[int, int]
    rate: Fraction
    colors: Colors
    pixel_aspect: Fraction | None


def container_of(path: Path) -> str:
    """FFmpeg's name of the container that a file's suffix asks for.

    Raises:
        ValueError: If it is unknown.
    """
    suffix = path.suffix.lower()
    if suffix not in CONTAINERS:
        raise ValueError(f"cannot save {path}: unknown kind {path.suffix!r}; end the name in {', '.join(CONTAINERS)}")
    return CONTAINERS[suffix]


def available_codecs() -> list[str]:
    """The keys of `ENCODERS` that this build of FFmpeg has."""
    return [codec for codec, (encoder, _) in ENCODERS.items() if _has(encoder)]


def choose_codec(codec: str | None, path: Path) -> str:
    """The codec for a file.

    Args:
        codec (`str`, *optional*): A key of `ENCODERS`; VP9 for WebM and H.264 for all others if left out.
        path (`Path`): The file.

    Raises:
        ValueError: If it is unknown, not in this build, or not allowed in such a file.
    """
    container = container_of(path)
    codec = codec or ("vp9" if container == "webm" else "h264")
    known = available_codecs()
    if codec not in known:
        raise ValueError(f"got codec {codec!r}, which this build of FFmpeg cannot write; it has {', '.join(known)}")
    allowed = [name for name in known if _allows(container, name)]
    if codec not in allowed:
        raise ValueError(f"{path.suffix} files cannot hold {codec}: choose {' or '.join(allowed)}, or write a .mkv")
    return codec


def choose_quality(codec: str, quality: int | None) -> int | None:
    """The constant rate factor for a codec.

    Raises:
        ValueError: If it is out of range, or the codec has none.
    """
    if codec in LOSSLESS:
        if quality is not None:
            raise ValueError(f"got quality {quality}, and {codec} has no loss: leave it out")
        return None
    quality, worst = QUALITIES[codec] if quality is None else quality, 51 if codec in ("h264", "hevc") else 63
    if not 0 <= quality <= worst:
        raise ValueError(f"got quality {quality}: {codec} takes 0 (best) to {worst}")
    return quality


def choose_pixel_format(codec: str, facts: VideoFacts) -> str:
    """The format nearest to a video's that an encoder takes: rather more numbers and bits than fewer.

    Args:
        codec (`str`): A key of `ENCODERS`.
        facts ([`VideoFacts`]): Of the video; pictures of RGB get the usual format of videos, if their sides are even.
    """
    layout, bits = _layout(facts)
    known = {form.name for form in av.Codec(ENCODERS[codec][0], "w").video_formats or ()}
    choices = [
        (LAYOUTS.index(match[1]), int(match[2] or 8), name)
        for name in known
        if (match := re.fullmatch(r"yuv(420|422|444)p(?:(10|12)le)?", name))
    ]
    return min(choices, key=lambda choice: _loss(choice[0] - layout, choice[1] - bits))[2]


def _loss(layouts: int, bits: int) -> tuple:
    return (layouts < 0, bits < 0, abs(layouts), abs(bits))


def _layout(facts: VideoFacts) -> tuple[int, int]:
    """The index in `LAYOUTS`, and the bits."""
    form = av.VideoFormat(facts.pixel_format, 16, 16)
    bits = max((component.bits for component in form.components), default=8)
    across, down = 16 // form.chroma_width(16), 16 // form.chroma_height(16)
    is_colorless = form.is_rgb or form.has_palette or len(form.components) < 3
    layout = 0 if is_colorless or (across >= 2 and down == 2) else 1 if across == 2 else 2
    if facts.colors.is_hdr:  # it becomes standard, of which 8 bits are enough
        bits = 8
    width, height = facts.size
    if width % 2 or (height % 2 and layout == 0):  # H.264 and others halve only what is even
        layout = 2
    return layout, min(bits, 12)


def _has(encoder: str) -> bool:
    try:
        av.Codec(encoder, "w")
    except (ValueError, FFmpegError):
        return False
    return True


def _allows(container: str, codec: str) -> bool:
    """Whether files of a kind can hold a codec and are played then; FFmpeg allows more."""
    wanted = {"mp4": ("h264", "hevc", "av1", "vp9"), "mov": ("h264", "hevc"), "webm": ("vp9", "av1")}
    return codec in wanted.get(container, tuple(ENCODERS))


def write_segment(path: Path, frames: Iterable[av.VideoFrame], encoding: Encoding) -> int:
    """Encodes frames into a file of their own, which begins and ends by itself: no frame refers to another file's.

    Args:
        path (`Path`): A Matroska file.
        frames (`Iterable[av.VideoFrame]`): In the pixel format of `encoding`. Their times do not matter: they are
            numbered.
        encoding ([`Encoding`]): How.

    Returns:
        `int`: How many there were.

    Raises:
        OSError: If it cannot be written.
    """
    av.logging.set_level(av.logging.ERROR)
    count, decoded = 0, itertools.count(-LONGEST_DELAY)
    with av.open(str(path), "w", format="matroska") as container:
        stream = _add_stream(container, encoding)
        for count, picture in enumerate(frames, 1):
            picture.pts, picture.time_base = count - 1, 1 / encoding.rate
            picture.pict_type = 0  # the encoder's choice, not the source's
            _mux(container, stream.encode(picture), decoded)
        _mux(container, stream.encode(None), decoded)
    return count


def _mux(container: Any, packets: Iterable[Any], decoded: Iterator[int]) -> None:
    for packet in packets:
        packet.dts = next(decoded)  # for fewer frames than it looks ahead, libx265 makes times of decoding up
        container.mux_one(packet)


def _add_stream(container: Any, encoding: Encoding) -> Any:
    encoder, options = ENCODERS[encoding.codec]
    quality = {} if encoding.quality is None else {"crf": str(encoding.quality)}
    stream = container.add_stream(encoder, rate=encoding.rate, options={**options, **quality})
    context, colors = stream.codec_context, encoding.colors
    context.width, context.height = encoding.size
    context.pix_fmt, context.time_base = encoding.pixel_format, 1 / encoding.rate
    context.colorspace, context.color_range = colors.matrix, colors.range
    context.color_primaries, context.color_trc = colors.primaries, colors.transfer
    if encoding.pixel_aspect is not None:
        context.sample_aspect_ratio = encoding.pixel_aspect
    return stream
