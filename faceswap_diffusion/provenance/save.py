"""The only place that saves pictures. Pictures with generated content are marked in their metadata."""

import io
import json
import logging
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from faceswap_diffusion import __version__
from faceswap_diffusion.photos.exif import read_exif
from faceswap_diffusion.provenance.credentials import sign_picture
from faceswap_diffusion.provenance.facts import plain_number, read_facts
from faceswap_diffusion.writing import is_read_only, whole_file

logger = logging.getLogger(__name__)

DIGITAL_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
COMPOSITE = DIGITAL_SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a photo that contains generated pixels."""
GENERATED = DIGITAL_SOURCE_TYPES + "trainedAlgorithmicMedia"
"""IPTC's term for a picture that is completely generated."""

SOFTWARE = f"faceswap-diffusion {__version__}"

FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".avif": "AVIF",
    ".bmp": "BMP",
}  # fmt: skip
LOSSLESS = ("PNG", "TIFF", "BMP")
OPAQUE = ("JPEG", "BMP")
"""Formats without transparency."""

LARGEST_SIDES = {"JPEG": 65_500, "WEBP": 16_383, "AVIF": 32_768}
"""Maximal width and height in pixels of formats that have a limit."""

LARGEST_JPEG_EXIF = 65_533
"""Bytes in a JPEG segment, without its length field."""

XMP_TAG = 700
"""The TIFF tag of the XMP packet."""

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
    """Checks, before the work, whether a picture can be saved to a path.

    Args:
        path (`str | os.PathLike`): Where the picture will be saved.
        overwrite (`bool`): Whether an existing file may be replaced.
        size (`tuple[int, int]`, *optional*): Width and height of the picture, if known.
        has_alpha (`bool`): Whether a part of it is transparent.

    Returns:
        `Path`: The same path.

    Raises:
        ValueError: If the suffix is unknown, or the name is too long; if the path is a folder, or an existing file
            that is read-only or may not be replaced; if the folder is missing or not writable; if the format cannot
            store such a picture.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in FORMATS:
        raise ValueError(f"cannot save {path}: unknown kind {path.suffix!r}; end the name in {', '.join(FORMATS)}")
    check_place(path, overwrite)
    _check_fit(f"cannot save {path}", FORMATS[suffix], size, has_alpha)
    return path


def check_place(path: Path, overwrite: bool) -> None:
    """Finds out whether a file may be written there.

    Raises:
        ValueError: If the name is too long, the path a folder or a file that is read-only or may not be replaced, or
            its folder is missing or not writable.
    """
    folder = Path(os.path.realpath(path)).parent
    if not os.path.isdir(folder):
        raise ValueError(f"cannot save {path}: there is no folder {folder}; make it first")
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:  # for example, the name is too long
        raise ValueError(f"cannot save {path}: {error.strerror}; choose another name") from None
    if mode is not None:
        _check_replaceable(path, mode, overwrite)
    if not os.access(folder, os.W_OK):
        raise ValueError(f"cannot save {path}: no permission to write in {folder}; choose another folder")


def _check_replaceable(path: Path, mode: int, overwrite: bool) -> None:
    """Checks an existing file by its `mode`: the superuser could replace a read-only file, and should not."""
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
            f"{problem}: the picture has {size[0]} x {size[1]} pixels, and {file_format} allows {limit} per side; "
            "save it as PNG"
        )
    if has_alpha and file_format in OPAQUE:
        raise ValueError(f"{problem}: the picture is transparent and {file_format} cannot be; save it as PNG or WebP")


def is_transparent(image: Image.Image) -> bool:
    """Whether any pixel of a picture is transparent; an alpha channel that is 255 everywhere is opaque."""
    return image.mode == "RGBA" and image.getchannel("A").histogram()[255] < image.width * image.height


def save_image(
    image: Image.Image,
    path: str | os.PathLike | BinaryIO,
    *,
    provenance: dict[str, Any] | None,
    digital_source_type: str = COMPOSITE,
    quality: int = 95,
    file_format: str | None = None,
    parent: str | os.PathLike | None = None,
) -> None:
    """Saves a picture completely or not at all, with its colour profile, EXIF and AI metadata.

    The IPTC digital source type, the software and `provenance` are written to an XMP packet, and the software to EXIF
    as well. With the extra `c2pa`, PNG, JPEG and WebP also have Content Credentials. An existing file is replaced and
    keeps its permissions; if the path is a link, the file it points to is replaced. PNG, TIFF and BMP store the pixels
    exactly; JPEG, WebP and AVIF change them slightly.

    Args:
        image (`PIL.Image.Image`): In mode L, RGB or RGBA; `info` may hold "icc_profile" and "exif".
        path (`str | os.PathLike | BinaryIO`): The file. The suffix of a path (a key of `FORMATS`) selects the
            format.
        provenance (`dict[str, Any]`, *optional*): JSON-serialisable facts to store (model, seed, ...); `None` for
            a picture without generated content, which gets no AI metadata.
        digital_source_type (`str`): `COMPOSITE` or `GENERATED`.
        quality (`int`): Quality of JPEG, WebP and AVIF, 1 to 100.
        file_format (`str`, *optional*): Format for an open file: "PNG", "JPEG", "WEBP", "TIFF", "AVIF" or "BMP". If
            left out, the suffix of the file's name, or PNG if it has none.
        parent (`str | os.PathLike`, *optional*): The file that the picture was made of, which its Content Credentials
            name, with those that it has itself.

    Raises:
        ValueError: If the picture cannot be saved there (see `check_output`), or not be signed.
    """
    if isinstance(path, str | os.PathLike):
        if file_format is not None:
            raise ValueError(f"got file_format {file_format!r} for {path}: the suffix of a path selects the format")
        path = check_output(path, size=image.size, has_alpha=is_transparent(image))
        name, file_format = str(path), FORMATS[path.suffix.lower()]
        replace_file(path, _encode(image, file_format, name, provenance, digital_source_type, quality, parent))
        return
    file_format = file_format or FORMATS.get(Path(str(getattr(path, "name", ""))).suffix.lower(), "PNG")
    if file_format not in FORMATS.values():
        raise ValueError(
            f"got file_format {file_format!r}; choose one of {', '.join(dict.fromkeys(FORMATS.values()))}"
        )
    _check_fit("cannot save the picture", file_format, image.size, is_transparent(image))
    path.write(_encode(image, file_format, "the picture", provenance, digital_source_type, quality, parent))


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, see [`writing.whole_file`].

    Raises:
        ValueError: If it cannot be written.
    """
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
    parent: str | os.PathLike | None,
) -> bytes:
    """The bytes of a picture's file; `name` is used in messages."""
    if image.mode == "RGBA" and file_format in OPAQUE:
        info, image = image.info, image.convert("RGB")
        image.info.update(info)
    packet = None if provenance is None else xmp_packet(provenance, digital_source_type)
    content = io.BytesIO()
    try:
        image.save(content, format=file_format, **_options(image, file_format, name, packet, quality))
    except OSError as error:
        raise ValueError(f"cannot save {name}: {error}; choose another kind of file") from None
    if file_format == "BMP" and packet is not None:
        content.write(packet)
    if provenance is None:
        return content.getvalue()
    return sign_picture(content.getvalue(), file_format, provenance, digital_source_type, parent)


def read_provenance(path: str | os.PathLike) -> dict[str, Any] | None:
    """Reads the AI metadata that `save_image` wrote.

    Args:
        path (`str | os.PathLike`): The picture.

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
        facts = read_facts(description.get(f"{{{NAMESPACES['fsd']}}}facts", ""))
        if facts is not None:
            return {
                "digital_source_type": description.get(f"{{{NAMESPACES['Iptc4xmpExt']}}}DigitalSourceType"),
                "software": description.get(f"{{{NAMESPACES['xmp']}}}CreatorTool"),
                **facts,
            }
    return None


def _packet_after(content: bytes) -> bytes:
    """The XMP packet after a picture's data, found by its marker (ISO 16684-1, 7.3.2); empty if there is none."""
    start = content.rfind(b"<?xpacket begin=")
    return content[start:] if start >= 0 else b""


def _options(image: Image.Image, file_format: str, name: str, packet: bytes | None, quality: int) -> dict[str, Any]:
    """Keyword arguments of Pillow's writers: quality, colour profile, EXIF and XMP."""
    profile, exif = image.info.get("icc_profile"), _exif(image, packet is not None)
    if file_format == "BMP":
        if profile is not None:
            logger.warning(f"{name}: BMP cannot store the photo's colour profile; save it as PNG or TIFF to keep it")
        return {}
    options: dict[str, Any] = {"icc_profile": profile}
    if file_format not in LOSSLESS:
        options["quality"] = quality
    if file_format in ("JPEG", "AVIF"):
        options["subsampling"] = "4:4:4"
    if file_format == "JPEG" and len(exif.tobytes()) > LARGEST_JPEG_EXIF:
        logger.warning(f"{name}: the photo's EXIF is too large for JPEG and is left out; PNG and WebP keep it")
        exif = _exif(Image.new("L", (1, 1)), packet is not None)
    if file_format == "TIFF":
        return {**options, "compression": "raw", "exif": _with_packet(exif, packet)}  # LibTIFF drops inner directories
    if packet is not None:
        options.update(_xmp_options(file_format, packet))
    if len(exif):
        options["exif"] = exif.tobytes()
    return options


def _exif(image: Image.Image, generated: bool) -> Image.Exif:
    """The writable EXIF of a picture, with our name as software if it has generated content."""
    exif, block = Image.Exif(), read_exif(image).block
    if block is not None:
        exif.load(block)
    if generated:
        exif[ExifTags.Base.Software] = SOFTWARE
    return exif


def _with_packet(exif: Image.Exif, packet: bytes | None) -> Image.Exif:
    """EXIF as the tags of a TIFF file, including the XMP packet."""
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


def xmp_packet(provenance: dict[str, Any], digital_source_type: str) -> bytes:
    """An XMP packet (ISO 16684-1, section 7) with the source type, the software and the facts.

    Args:
        provenance (`dict[str, Any]`): JSON-serialisable facts.
        digital_source_type (`str`): `COMPOSITE` or `GENERATED`.
    """
    declarations = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    attributes = {
        "xmp:CreatorTool": SOFTWARE,
        "Iptc4xmpExt:DigitalSourceType": digital_source_type,
        "fsd:facts": json.dumps(provenance, sort_keys=True, default=plain_number),
    }
    values = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {declarations} {values}/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()
