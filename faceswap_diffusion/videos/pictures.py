"""Pictures as videos: folders of them, and animated ones that FFmpeg does not read."""

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from faceswap_diffusion.photos.loading import Photo, load_photo
from faceswap_diffusion.videos.frames import Colors, Frame, Span, VideoFacts
from faceswap_diffusion.videos.reading import digest_of_files

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".heif")
SRGB = Colors(matrix=1, range=1, primaries=1, transfer=13)
"""What a video made of pictures says of its colours: BT.709, with the curve of sRGB."""

MILLISECOND = Fraction(1, 1000)
UNTIMED = 100  # milliseconds that browsers give to frames without a duration


def natural(path: Path) -> list[str | int]:
    """A key to sort names as people count: frame2 before frame10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"(\d+)", path.name)]


class PictureFolder:
    """A folder of pictures of one size, sorted by name as people count.

    Args:
        folder (`Path`): Files that are no pictures, by their suffix, do not count.
        rate (`Fraction`): Frames a second.

    Raises:
        ValueError: If there is no picture in it, or the first cannot be read.
    """

    container: Path | None = None

    def __init__(self, folder: Path, rate: Fraction):
        pictures = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        self.paths = sorted(pictures, key=natural)
        if not self.paths:
            raise ValueError(
                f"{folder} has no pictures in it ({', '.join(SUFFIXES)}): name a video, or another folder"
            )
        first, count = load_photo(self.paths[0]), len(self.paths)
        self.facts = VideoFacts(str(folder), first.size, 1 / rate, rate, count, count / rate, "rgb24", SRGB)

    def digest(self) -> str:
        """SHA-256 of all pictures."""
        return digest_of_files(self.paths)

    def frames(self, span: Span) -> Iterator[Frame]:
        """Reads the pictures of a part. One that cannot be read is broken, and the one before it is shown on.

        Raises:
            ValueError: If a picture has another size.
        """
        first, last = span.ticks(self.facts.time_base)
        shown = load_photo(self.paths[0])
        for index, path in enumerate(self.paths):
            if not first <= index < last:
                continue
            read = self._read(path)
            shown = shown if read is None else read
            yield Frame(index - span.shift(self.facts.time_base), 1, _picture(shown.rgb), is_broken=read is None)

    def _read(self, path: Path) -> Photo | None:
        try:
            photo = load_photo(path)
        except ValueError:
            return None
        if photo.size != self.facts.size:
            (width, height), (wanted_width, wanted_height) = photo.size, self.facts.size
            raise ValueError(
                f"{path} has {width} x {height} pixels, and the frames before it {wanted_width} x {wanted_height}: "
                "bring all to one size"
            )
        return photo


class AnimatedPicture:
    """An animated picture that Pillow reads; what is transparent becomes white.

    Args:
        path (`Path`): The file.
    """

    container: Path | None = None

    def __init__(self, path: Path):
        self.path = path
        with Image.open(path) as picture:
            lengths = [_length(frame) for frame in ImageSequence.Iterator(picture)]
            size = picture.size
        end = sum(lengths)
        rate = Fraction(1000 * len(lengths), end).limit_denominator(1000)
        self.facts = VideoFacts(str(path), size, MILLISECOND, rate, end, Fraction(end, 1000), "rgb24", SRGB)

    def digest(self) -> str:
        """SHA-256 of the file."""
        return digest_of_files([self.path])

    def frames(self, span: Span) -> Iterator[Frame]:
        """Decodes the frames of a part."""
        first, last = span.ticks(MILLISECOND)
        time = 0
        with Image.open(self.path) as picture:
            for frame in ImageSequence.Iterator(picture):
                length = _length(frame)
                if first <= time < last:
                    yield Frame(time - span.shift(MILLISECOND), length, _picture(_on_white(frame)))
                time += length


def is_animated_webp(path: Path) -> bool:
    """Whether a file is an animated WebP."""
    try:
        with Image.open(path, formats=["WEBP"]) as picture:
            return bool(getattr(picture, "is_animated", False))
    except (OSError, ValueError):
        return False


def _length(frame: Image.Image) -> int:
    frame.load()  # some formats tell it no sooner
    return int(frame.info.get("duration") or UNTIMED)


def _on_white(frame: Image.Image) -> np.ndarray:
    white = Image.new("RGBA", frame.size, "white")
    return np.asarray(Image.alpha_composite(white, frame.convert("RGBA")).convert("RGB"))


def _picture(rgb: np.ndarray) -> av.VideoFrame:
    return av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
