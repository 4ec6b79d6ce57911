"""What a video is to the rest of the package: frames with times, and facts that hold for all of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av

Picture = av.VideoFrame
Seconds = float | Fraction


@dataclass(frozen=True)
class Colors:
    """How numbers of a video become colours, as ITU-T H.273 counts them; 2 is "not specified", of the range 0.

    Args:
        matrix (`int`): From YUV to RGB: 1 for BT.709, 5 and 6 for BT.601, 9 for BT.2020.
        range (`int`): 1 for limited, 2 for full.
        primaries (`int`): 1 for BT.709, 9 for BT.2020.
        transfer (`int`): 1 for BT.709, 16 for PQ, 18 for HLG.
    """

    matrix: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2

    @property
    def is_hdr(self) -> bool:
        """Whether it is high dynamic range, PQ or HLG."""
        return self.transfer in (16, 18)


@dataclass(frozen=True)
class VideoFacts:
    """What holds for all frames of a video.

    Args:
        name (`str`): What to call it in messages.
        size (`tuple[int, int]`): Width and height in pixels, as stored: before the rotation.
        time_base (`Fraction`): Seconds that the times of frames count.
        rate (`Fraction`): Frames a second, on average.
        end (`int`, *optional*): When the last frame ends, in units of `time_base`, if the video says so.
        duration (`Fraction`, *optional*): About how many seconds it lasts; its sound may last longer.
        pixel_format (`str`): FFmpeg's name.
        colors ([`Colors`]): Of its numbers.
        matrix (`tuple[int, ...]`, *optional*): Nine numbers of the display matrix that turns frames upright, as
            ISO 14496-12 has them, row by row.
        pixel_aspect (`Fraction`, *optional*): Width of a pixel by its height.
        metadata (`dict[str, str]`): Title, artist and so on.
    """

    name: str
    size: tuple[int, int]
    time_base: Fraction
    rate: Fraction
    end: int | None
    duration: Fraction | None
    pixel_format: str
    colors: Colors = Colors()
    matrix: tuple[int, ...] | None = None
    pixel_aspect: Fraction | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(eq=False)
class Frame:
    """One frame.

    Args:
        pts (`int`): When it is shown, in units of the video's `time_base`.
        duration (`int`): For how long, in the same units; 0 if it is not known.
        picture (`av.VideoFrame`, *optional*): As stored; `None` if it cannot be decoded.
        is_broken (`bool`): Whether it is damaged.
    """

    pts: int
    duration: int
    picture: Picture | None
    is_broken: bool = False


@dataclass(frozen=True)
class Span:
    """A part of a video.

    Args:
        start (`Fraction`): In seconds; a frame at this time belongs to it.
        end (`Fraction`, *optional*): A frame at this time does not. The video's end if left out.
    """

    start: Fraction = Fraction(0)
    end: Fraction | None = None

    def ticks(self, time_base: Fraction) -> tuple[int, float]:
        """The first time within it, and the first behind it, in units of a time base."""
        last = math.inf if self.end is None else math.ceil(self.end / time_base)
        # What begins before 0 belongs to the whole video: priming of audio, frames that an edit list hides.
        return (math.ceil(self.start / time_base) if self.start else -(2**62)), last

    def end_of(self, facts: VideoFacts) -> int | None:
        """When the last frame of the part ends, counted from its start, in units of the video's time base."""
        ends = [facts.end, None if self.end is None else round(self.end / facts.time_base)]
        known = [end for end in ends if end is not None]
        return min(known) - self.shift(facts.time_base) if known else None

    def num_frames(self, facts: VideoFacts) -> int | None:
        """About how many frames the part has, if that is known."""
        lengths = [length for length in (facts.duration, self.end) if length is not None]
        return max(round((min(lengths) - self.start) * facts.rate), 1) if lengths else None

    def shift(self, time_base: Fraction) -> int:
        """What is taken off all times, so that the part begins at 0."""
        return round(self.start / time_base)


class Video(Protocol):
    """Something that has frames, one after the other, and the same each time."""

    facts: VideoFacts
    container: Path | None
    """The file, if audio and other streams are to be had from it."""

    def frames(self, span: Span) -> Iterator[Frame]:
        """Decodes the frames of a part, in the order of their times."""
        ...

    def digest(self) -> str:
        """SHA-256 of what it is read from."""
        ...
