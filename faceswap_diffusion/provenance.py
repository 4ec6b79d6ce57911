"""The single point at which pictures are saved: whatever the model painted says so in its metadata."""

import json
import os
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo

from faceswap_diffusion import __version__

DIGITAL_SOURCE_TYPES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
COMPOSITE = DIGITAL_SOURCE_TYPES + "compositeWithTrainedAlgorithmicMedia"
"""IPTC's term for a photo into which generated pixels were composited."""
GENERATED = DIGITAL_SOURCE_TYPES + "trainedAlgorithmicMedia"
"""IPTC's term for a picture that a model made altogether."""

SOFTWARE = f"faceswap-diffusion {__version__}"

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}

NAMESPACES = {
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "fsd": "urn:faceswap-diffusion:provenance:",
}


def check_output(path: str | os.PathLike) -> Path:
    """Finds out before the work whether a picture can be saved there.

    Args:
        path (`str | os.PathLike`): Where the picture is to be saved.

    Returns:
        `Path`: The same path.

    Raises:
        ValueError: If the suffix is unknown, the path is a folder, or its folder is missing or not writable.
    """
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise ValueError(f"cannot save {path}: unknown kind {path.suffix!r}; end the name in {', '.join(FORMATS)}")
    if os.path.isdir(path):
        raise ValueError(f"cannot save {path}: it is a folder; name a file in it")
    if not os.path.isdir(path.parent):
        raise ValueError(f"cannot save {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ValueError(f"cannot save {path}: no permission to write in {path.parent}; choose another folder")
    return path


def save_image(
    image: Image.Image,
    path: str | os.PathLike,
    *,
    provenance: dict[str, Any] | None,
    digital_source_type: str = COMPOSITE,
    quality: int = 95,
) -> None:
    """Saves a picture whole or not at all, with its colour profile, its EXIF, and word that a model painted in it.

    The IPTC digital source type, the software and `provenance` go into an XMP packet, the software into EXIF too.

    Args:
        image (`PIL.Image.Image`): In mode L, RGB or RGBA; `info` may hold "icc_profile" and "exif".
        path (`str | os.PathLike`): The file; its suffix (.png, .jpg, .jpeg, .webp) tells the format.
        provenance (`dict[str, Any]`, *optional*): JSON-serialisable facts to keep (model, seed, ...); `None` for a
            picture that no model painted in, which gets no AI metadata.
        digital_source_type (`str`): `COMPOSITE` or `GENERATED`.
        quality (`int`): Of JPEG and WebP, 1 to 100.

    Raises:
        ValueError: If the picture cannot be saved there (see `check_output`), or is to be a JPEG with alpha.
    """
    path = check_output(path)
    file_format = FORMATS[path.suffix.lower()]
    if file_format == "JPEG" and image.mode == "RGBA":
        image = _without_alpha(image, path)
    packet = None if provenance is None else _xmp_packet(provenance, digital_source_type)
    partial = path.with_name(f".{path.name[:100]}.{os.getpid()}.partial")
    try:
        image.save(partial, format=file_format, **_options(image, file_format, packet, quality))
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(f"cannot save {path}: {error.strerror or error}; choose another place") from None
    finally:
        partial.unlink(missing_ok=True)


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


def _without_alpha(image: Image.Image, path: Path) -> Image.Image:
    if image.getchannel("A").histogram()[255] < image.width * image.height:
        raise ValueError(f"cannot save {path}: JPEG has no transparency and the picture has; save it as PNG or WebP")
    opaque = image.convert("RGB")
    opaque.info.update(image.info)
    return opaque


def _options(image: Image.Image, file_format: str, packet: bytes | None, quality: int) -> dict[str, Any]:
    """Keyword arguments of Pillow's writers: quality, colour profile, EXIF and XMP."""
    options: dict[str, Any] = {"icc_profile": image.info.get("icc_profile")}
    if file_format != "PNG":
        options["quality"] = quality
    if file_format == "JPEG":
        options["subsampling"] = "4:4:4"
    exif = image.getexif()
    if packet is not None:
        exif[ExifTags.Base.Software] = SOFTWARE
        options.update(_xmp_options(file_format, packet))
    if len(exif):
        options["exif"] = exif.tobytes()
    return options


def _xmp_options(file_format: str, packet: bytes) -> dict[str, Any]:
    if file_format != "PNG":
        return {"xmp": packet}
    text = PngInfo()
    text.add_itxt("XML:com.adobe.xmp", packet.decode())
    text.add_itxt("Software", SOFTWARE)
    return {"pnginfo": text}


def _xmp_packet(provenance: dict[str, Any], digital_source_type: str) -> bytes:
    """An XMP packet (ISO 16684-1, section 7) that holds the source type, the tool and the facts."""
    declarations = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in NAMESPACES.items())
    attributes = {
        "xmp:CreatorTool": SOFTWARE,
        "Iptc4xmpExt:DigitalSourceType": digital_source_type,
        "fsd:facts": json.dumps(provenance, sort_keys=True),
    }
    values = " ".join(f"{name}={quoteattr(value)}" for name, value in attributes.items())
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
        '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {declarations} {values}/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
    ).encode()
