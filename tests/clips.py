"""Short videos made in code: faces that move, sound, odd times, rotations, 10 bits."""

from collections.abc import Iterable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

IMAGES = Path(__file__).parents[1] / "examples" / "images"
TARGET, SOURCE = IMAGES / "p010_selfie.jpg", IMAGES / "p001_portrait.jpg"
BASE = Fraction(1, 90_000)
UNEVEN = (3000, 4500, 3600)
"""Durations of frames in turn, in units of `BASE`."""


def moving_face(count: int, size: tuple[int, int] = (128, 128)) -> list[np.ndarray]:
    """Frames (H, W, 3) uint8 RGB in which a face moves to and fro, cut out of a photo."""
    width, height = size
    photo = (
        Image.open(TARGET)
        .convert("RGB")
        .resize((width + 16, height * (width + 16) // width), Image.Resampling.LANCZOS)
    )
    pixels = np.asarray(photo)
    offsets = [8 + round(7 * np.sin(index / 4)) for index in range(count)]
    return [np.ascontiguousarray(pixels[8 : 8 + height, x : x + width]) for x in offsets]


def noise(count: int, size: tuple[int, int] = (64, 48)) -> list[np.ndarray]:
    """Frames without a face, every pixel another one."""
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (size[1], size[0], 3), np.uint8) for _ in range(count)]


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    *,
    durations: Iterable[int] = UNEVEN,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    rotation: int = 0,
    sound: bool = True,
    chapters: bool = False,
    metadata: dict[str, str] | None = None,
    colors: Sequence[int] = (1, 1, 1, 1),
    format: str | None = None,
) -> Path:
    """Writes a video with a tone; `colors` are matrix, range, primaries and transfer as in ITU-T H.273."""
    durations = list(durations)
    with av.open(str(path), "w", format=format) as container:
        container.metadata.update(metadata or {})
        height, width = pictures[0].shape[:2]
        video: Any = container.add_stream(codec, rate=25, options={"crf": "12"} if options is None else options)
        video.width, video.height, video.pix_fmt = width, height, pixel_format
        context = video.codec_context
        context.time_base = BASE
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = colors
        if rotation:
            video.set_display_rotation(rotation)
        audio: Any = container.add_stream("aac", rate=16_000) if sound else None
        if chapters:
            edges = ((0, 300, "one"), (300, 700, "two"))
            container.set_chapters(
                [
                    {"id": i, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for i, (a, b, title) in enumerate(edges)
                ]
            )
        time = 0
        for index, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format=pixel_format, dst_colorspace=colors[0] if colors[0] != 2 else 5, dst_color_range=colors[1] or 1
            )
            frame.pts, frame.time_base = time, BASE
            time += durations[index % len(durations)]
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            container.mux([*audio.encode(tone(float(time * BASE))), *audio.encode(None)])
    return path


def tone(seconds: float, rate: int = 16_000) -> av.AudioFrame:
    """A tone of 440 Hz."""
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)
    frame = av.AudioFrame.from_ndarray(np.stack([samples, samples]).astype(np.float32), format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
    return frame


def times(path: Path) -> list[Fraction]:
    """When the frames of a video are shown, in seconds."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def pictures(path: Path) -> list[np.ndarray]:
    """The frames of a video as they are stored, all numbers of each."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray() for frame in container.decode(video=0)]


def packets(path: Path, kind: str = "audio") -> list[tuple[Fraction, bytes]]:
    """Times and bytes of the packets of a video's first stream of a kind."""
    with av.open(str(path)) as container:
        stream = next(stream for stream in container.streams if stream.type == kind)
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(stream) if packet.size]
