"""EXIF as photos carry it, which is often odd: what can be read of it is kept, and nothing in it stops a photo."""

import warnings
from typing import Any, NamedTuple

from PIL import ExifTags, Image

LAYOUT_TAGS = frozenset([
    254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 284, 317, 320, 322, 323, 324, 325, 330, 338,
    339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675,
])  # fmt: skip
"""Tags of a TIFF file that say how its pixels lie in it, or that hold other metadata: untrue of any other file."""

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a photo upright, by EXIF orientation."""


class KeptExif(NamedTuple):
    """What could be read of a photo's EXIF.

    Args:
        orientation (`int`): 1 to 8; 1 where it is not told, or not as a number.
        block (`bytes`, *optional*): Everything else that can be written again, without thumbnail.
        whole (`bool`): Whether nothing had to be left out.
    """

    orientation: int
    block: bytes | None
    whole: bool


def read_exif(picture: Image.Image) -> KeptExif:
    """Reads a picture's EXIF tag by tag, without those that cannot be read or written again.

    Args:
        picture (`PIL.Image.Image`): Loaded.
    """
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        kept = _read_all(picture)
    return kept._replace(whole=kept.whole and not told)


def _read_all(picture: Image.Image) -> KeptExif:
    try:
        found = picture.getexif()
    except Exception:  # Pillow's parser has no one way to fail
        return KeptExif(1, None, whole=False)
    orientation, whole = 1, True
    kept = Image.Exif()
    kept.endian = found.endian
    for tag in found:
        if tag in LAYOUT_TAGS:
            continue
        try:
            value = found[tag]
            if tag == ExifTags.Base.Orientation:
                orientation, whole = value, whole and isinstance(value, int)
            elif tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                kept[tag], is_whole = _read_directory(found, tag)
                whole = whole and is_whole
            else:
                _check_writable({tag: value})
                kept[tag] = value
        except Exception:
            whole = False
    return KeptExif(orientation if orientation in TRANSPOSITIONS else 1, kept.tobytes() if len(kept) else None, whole)


def _read_directory(exif: Image.Exif, directory: int) -> tuple[dict[int, Any], bool]:
    """The readable tags of a directory inside EXIF, with the one inside that, and whether these are all."""
    kept: dict[int, Any] = {}
    whole = True
    for tag, value in exif.get_ifd(directory).items():
        try:
            if directory == ExifTags.IFD.Exif and tag == ExifTags.IFD.Interop:
                value, is_whole = _read_directory(exif, tag)
                whole = whole and is_whole
            _check_writable({directory: {tag: value}})
            kept[tag] = value
        except Exception:
            whole = False
    return kept, whole


def _check_writable(tags: dict[int, Any]) -> None:
    """Fails, in one of many ways, if tags cannot be written, or not be read again."""
    block = Image.Exif()
    for tag, value in tags.items():
        block[tag] = value
    again = Image.Exif()
    again.load(block.tobytes())
    for tag in again:
        again.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else again[tag]
