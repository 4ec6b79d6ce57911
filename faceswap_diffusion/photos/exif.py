"""EXIF data of photos. Readable tags are kept, and damaged EXIF never prevents reading a photo."""

import warnings
from typing import Any, NamedTuple

from PIL import ExifTags, Image

LAYOUT_TAGS = frozenset([
    254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 280, 281, 284, 317, 320, 322, 323, 324, 325, 330, 338,
    339, 340, 341, 347, 512, 513, 514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532, 700, 33723, 34377, 34675,
])  # fmt: skip
"""TIFF tags about the layout of pixels or about other metadata blocks. They are wrong in any other file."""

TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The operation that makes a photo upright, by EXIF orientation."""


class KeptExif(NamedTuple):
    """The readable part of a photo's EXIF.

    Args:
        orientation (`int`): 1 to 8; 1 if it is missing or not a number.
        block (`bytes`, *optional*): Everything else that can be written back, without the thumbnail.
        whole (`bool`): Whether nothing was left out.
    """

    orientation: int
    block: bytes | None
    whole: bool


def read_exif(picture: Image.Image) -> KeptExif:
    """Reads a picture's EXIF tag by tag, and skips tags that cannot be read or written back.

    Args:
        picture (`PIL.Image.Image`): The picture, loaded.
    """
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always")
        kept = _read_all(picture)
    return kept._replace(whole=kept.whole and not raised)


def _read_all(picture: Image.Image) -> KeptExif:
    try:
        found = picture.getexif()
    except Exception:  # Pillow's parser can raise anything
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
    """The readable tags of an EXIF directory and its subdirectory, and whether nothing was left out."""
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
    """Raises any exception if tags cannot be written and read back."""
    block = Image.Exif()
    for tag, value in tags.items():
        block[tag] = value
    again = Image.Exif()
    again.load(block.tobytes())
    for tag in again:
        again.get_ifd(tag) if tag in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo) else again[tag]
