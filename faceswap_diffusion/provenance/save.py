"""The single point at which pictures are saved: whatever the model painted says so in its metadata."""

import io
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import numpy as np
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from faceswap_diffusion import __version__
from faceswap_diffusion.photos.exif import read_exif
from faceswap_diffusion.writing import is_read_only, whole_file

logger = logging.getLogger(__name__)

DIGITAL_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
COMPOSITE = DIGITAL_SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a photo into which generated pixels were composited."""
GENERATED = DIGITAL_SOURCE_TYPES + "trainedAlgorithmicMedia"
"""IPTC's term for a picture that a model made altogether."""

SOFTWARE = f"faceswap-diffusion {__version__}"

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF",
    ".bmp": "BMP",
}  # fmt: skip
LOSSLESS = ("PNG", "TIFF", "BMP")
OPAQUE = ("JPEG", "BMP")
"""Formats without transparency."""

LARGEST_SIDES = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 32_768}
"""Pixels that width and height may have, where a format or its writer sets a limit."""

LARGEST_JPEG_EXIF = 65_533
"""Bytes of a JPEG segment without its length."""

XMP_TAG = 700
"""Of a TIFF file."""

NAMESPACES = {
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "fsd": "urn:faceswap-diffusion:provenance:",
}


def check_output(
    path: str | os.PathLike,
    *,
    overwrite: bool = True,
    size: tuple[int, int] | None = None,
    has_alpha: bool = False,
) -> Path:
    """Finds out before the work whether a picture can be saved there.

    Args:
        path (`str | os.PathLike`): Where the picture is to be saved.
        overwrite (`bool`): Whether a file that is there may be replaced.
        size (`tuple[int, int]`, *optional*): Width and height of the picture, if they are known.
        has_alpha (`bool`): Whether a part of it is transparent.

    Returns:
        `Path`: The same path.

    Raises:
        ValueError: If the suffix is unknown, the name too long, the path a folder or a file that is read-only or may
            not be replaced, if its folder is missing or not writable, or the format cannot hold such a picture.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot save {path}: unknown kind {path.suffix!r}; end the name in {', '.join(FORMATS)}")
    _check_place(path, overwrite)
    _check_fit(f"cannot save {path}", FORMATS[suffix], size, has_alpha)
    return path


def _check_place(path: Path, overwrite: bool) -> None:
    folder = Path(os.path.realpath(path)).parent
    if not os.path.isdir(folder):
        raise ValueError(f"cannot save {path}: there is no folder {folder}; make it first")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:  # as for a name that is too long
        raise ValueError(f"cannot save {path}: {error.strerror}; choose another name") from None
    if mode is not None:
        _check_replaceable(path, mode, overwrite)
    if not os.access(folder, os.W_OK):
        raise ValueError(f"cannot save {path}: no permission to write in {folder}; choose another folder")


def _check_replaceable(path: Path, mode: int, overwrite: bool) -> None:
    """`mode` is that of the file that is there; the superuser may write to a read-only one, too, and should not."""
    if stat.S_ISDIR(mode):
        raise ValueError(f"cannot save {path}: it is a folder; name a file in it")
    if not stat.S_ISREG(mode):
        raise ValueError(f"cannot save {path}: it is a device or a pipe; name a file")
    if not overwrite:
        raise ValueError(f"{path} exists: choose another name, or pass --overwrite to replace it")
    if is_read_only(path):
        raise ValueError(f"cannot save {path}: it is read-only; choose another name, or make it writable")


def _check_fit(problem: str, file_format: str, size: tuple[int, int] | None, has_alpha: bool) -> None:
    limit = LARGEST_SIDES.get(file_format)
    if limit and size and max(size) > limit:
        raise ValueError(
            f"{problem}: {file_format} holds at most {limit} pixels a side and the picture has {size[0]} x {size[1]}; "
            "save it as PNG"
        )
    if has_alpha and file_format in OPAQUE:
        raise ValueError(f"{problem}: {file_format} has no transparency and the picture has; save it as PNG or WebP")


def is_transparent(image: Image.Image) -> bool:
    """Whether a part of a picture is transparent; an alpha channel of 255 everywhere is not."""
    return image.mode == "RGBA" and image.getchannel("A").histogram()[255] < image.width * image.height


def save_image(
    image: Image.Image,
    path: str | os.PathLike | BinaryIO,
    *,
    provenance: dict[str, Any] | None,
    digital_source_type: str = COMPOSITE,
    quality: int = 95,
    file_format: str | None = None,
) -> None:
    """Saves a picture whole or not at all, with its colour profile, its EXIF, and word that a model painted in it.

    The IPTC digital source type, the software and `provenance` go into an XMP packet, the software into EXIF too. A
    file that is there is replaced and keeps its mode; where the path is a link, the file that it leads to is.

    Args:
        image (`PIL.Image.Image`): In mode L, RGB or RGBA; `info` may hold "icc_profile" and "exif".
        path (`str | os.PathLike | BinaryIO`): The file; the suffix of a path (a key of `FORMATS`) tells the format.
        provenance (`dict[str, Any]`, *optional*): JSON-serialisable facts to keep (model, seed, ...); `None` for a
            picture that no model painted in, which gets no AI metadata.
        digital_source_type (`str`): `COMPOSITE` or `GENERATED`.
        quality (`int`): Of JPEG, WebP and AVIF, 1 to 100.
        file_format (`str`, *optional*): What is written into an open file: "PNG", "JPEG", "WEBP", "TIFF", "AVIF" or
            "BMP"; by the suffix of its name, or PNG where it has none, if left out.

    Raises:
        ValueError: If the picture cannot be saved there (see `check_output`).
    """
    if isinstance(path, str | os.PathLike):
        if file_format is not None:
            raise ValueError(f"got file_format {file_format!r} for {path}: the suffix of a path tells its format")
        path = check_output(path, size=image.size, has_alpha=is_transparent(image))
        _replace(
            path, _encode(image, FORMATS[path.suffix.lower()], str(path), provenance, digital_source_type, quality)
        )
        return
    file_format = file_format or FORMATS.get(Path(str(getattr(path, "name", ""))).suffix.lower(), "PNG")
    if file_format not in FORMATS.values():
        raise ValueError(f"got file_format {file_format!r}; choose one of {', '.join({*FORMATS.values()})}")
    _check_fit("cannot save the picture", file_format, image.size, is_transparent(image))
    path.write(_encode(image, file_format, "the picture", provenance, digital_source_type, quality))


def _replace(path: Path, content: bytes) -> None:
    try:
        with whole_file(path) as unfinished:
            unfinished.write_bytes(content)
    except OSError as error:
        raise ValueError(f"cannot save {path}: {error.strerror or error}; choose another place") from None


def _encode(
    image: Image.Image,
    file_format: str,
    name: str,
    provenance: dict[str, Any] | None,
    digital_source_type: str,
    quality: int,
) -> bytes:
    """The bytes of a picture's file; `name` is what to call it in messages."""
    if image.mode == "RGBA" and file_format in OPAQUE:
        info, image = image.info, image.convert("RGB")
        image.info.update(info)
    packet = None if provenance is None else _xmp_packet(provenance, digital_source_type)
    content = io.BytesIO()
    try:
        image.save(content, format=file_format, **_options(image, file_format, name, packet, quality))
    except OSError as error:
        raise ValueError(f"cannot save {name}: {error}; choose another kind of file") from None
    if file_format == "BMP" and packet is not None:
        content.write(packet)
    return content.getvalue()


def read_provenance(path: str | os.PathLike) -> dict[str, Any] | None:
    """Reads what `save_image` wrote about how a picture was made.

    Args:
        path (`str | os.PathLike`): A picture.

    Returns:
        `dict[str, Any]`, *optional*: "digital_source_type", "software" and the facts given to `save_image`; `None` if
        the picture has no such packet.
    """
    with Image.open(path) as image:
        packet = image.info.get("xmp")
        if image.format == "BMP":
            packet = _packet_after(Path(path).read_bytes())
    if not packet:
        return None
    try:
        root = ElementTree.fromstring(packet.rstrip(b"\x00") if isinstance(packet, bytes) else packet)
    except ElementTree.ParseError:
        return None
    for description in root.iter("{http://www.w3.org/1999/02/22-rdf-syntax-ns#}Description"):
        facts = description.get(f"{{{NAMESPACES['fsd']}}}facts")
        if facts is not None:
            return {
                "digital_source_type": description.get(f"{{{NAMESPACES['Iptc4xmpExt']}}}DigitalSourceType"),
                "software": description.get(f"{{{NAMESPACES['xmp']}}}CreatorTool"),
                **json.loads(facts),
            }
    return None


def _packet_after(content: bytes) -> bytes:
    """The XMP packet that follows a picture, if there is one, to be found by its own mark (ISO 16684-1, 7.3.2)."""
    start = content.rfind(b"<?xpacket begin=")
    return content[start:] if start >= 0 else b""


def _options(image: Image.Image, file_format: str, name: str, packet: bytes | None, quality: int) -> dict[str, Any]:
    """Keyword arguments of Pillow's writers: quality, colour profile, EXIF and XMP."""
    profile, exif = image.info.get("icc_profile"), _exif(image, packet is not None)
    if file_format == "BMP":
        if profile is not None:
            logger.warning(f"{name}: BMP keeps no colour profile; save it as PNG or TIFF to keep the photo's")
        return {}
    options: dict[str, Any] = {"icc_profile": profile}
    if file_format not in LOSSLESS:
        options["quality"] = quality
    if file_format in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"
    if file_format == "JPEG" and len(exif.tobytes()) > LARGEST_JPEG_EXIF:
        logger.warning(f"{name}: the photo's EXIF is larger than JPEG can hold and is left out; PNG and WebP keep it")
        exif = _exif(Image.new("L", (1, 1)), packet is not None)
    if file_format == "TIFF":
        return {**options, "compression": "raw", "exif": _with_packet(exif, packet)}  # LibTIFF drops inner directories
    if packet is not None:
        options.update(_xmp_options(file_format, packet))
    if len(exif):
        options["exif"] = exif.tobytes()
    return options


def _exif(image: Image.Image, painted: bool) -> Image.Exif:
    """What can be written of a picture's EXIF, with our name in it if a model painted."""
    exif, block = Image.Exif(), read_exif(image).block
    if block is not None:
        exif.load(block)
    if painted:
        exif[ExifTags.Base.Software] = SOFTWARE
    return exif


def _with_packet(exif: Image.Exif, packet: bytes | None) -> Image.Exif:
    """EXIF as the tags of a TIFF file, the XMP packet among them."""
    if packet is not None:
        exif[XMP_TAG] = packet
    return exif


def _xmp_options(file_format: str, packet: bytes) -> dict[str, Any]:
    if file_format != "PNG":
        return {"xmp": packet}
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    text.add_itxt("Software", SOFTWARE)
    return {"pnginfo": text}


def _plain_number(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _xmp_packet(provenance: dict[str, Any], digital_source_type: str) -> bytes:
    """An XMP packet (ISO 16684-1, section 7) that holds the source type, the tool and the facts."""
    declarations = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    attributes = {
        "xmp:CreatorTool": SOFTWARE,
        "Iptc4xmpExt:DigitalSourceType": digital_source_type,
        "fsd:facts": json.dumps(provenance, sort_keys=True, default=_plain_number),
    }
    values = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {declarations} {values}/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()
