"""What a video's container says of how the video was made: the same facts as those of photos, in its own fields."""

import json
import os
import struct
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faceswap_diffusion.provenance.facts import plain_number, read_facts
from faceswap_diffusion.provenance.save import COMPOSITE, SOFTWARE, xmp_packet
from faceswap_diffusion.videos.reading import open_container

FACTS = "description"
"""The field of the facts, in JSON. All kinds of files have it, and what a video had there goes to `FORMER`."""

FORMER = "synopsis"
NOTICE = "comment"
OF_THE_FILE = ("major_brand", "minor_version", "compatible_brands", "encoder", "handler_name")
"""What says how a file was written, and not what it shows."""

XMP_BOX = uuid.UUID("be7acfcb-97a9-42e8-9c71-999491e3afac")
"""The box of an MP4 or QuickTime file that holds an XMP packet (ISO 16684-3, 2.1)."""


def video_metadata(former: Mapping[str, str], provenance: Mapping[str, Any] | None) -> dict[str, str]:
    """The metadata of a new video.

    Args:
        former (`Mapping[str, str]`): Of the video that it was made of; title, artist and so on are kept.
        provenance (`Mapping[str, Any]`, *optional*): JSON-serialisable facts; `None` if no model painted in it.

    Returns:
        `dict[str, str]`: With the notice that it is made with AI, and the facts, unless no model painted in it.
    """
    kept = {key.lower(): value for key, value in former.items() if key.lower() not in OF_THE_FILE}
    if provenance is None:
        return kept
    facts = {"digital_source_type": COMPOSITE, "software": SOFTWARE, **provenance}
    notice = f"Made with AI by {SOFTWARE}: faces in it were swapped ({COMPOSITE})"
    former_notice = kept.get(NOTICE)
    if FACTS in kept:
        kept[FORMER] = kept[FACTS]
    return {
        **kept,
        NOTICE: f"{notice}. {former_notice}" if former_notice else notice,
        FACTS: json.dumps(facts, sort_keys=True, default=plain_number),
    }


def append_xmp(path: Path, provenance: Mapping[str, Any]) -> None:
    """Adds the XMP packet that photos have to the end of an MP4 or QuickTime file, for programs that look for it.

    Args:
        path (`Path`): The file, not in use yet.
        provenance (`Mapping[str, Any]`): The facts.
    """
    content = XMP_BOX.bytes + xmp_packet(dict(provenance), COMPOSITE)
    with open(path, "ab") as file:
        file.write(struct.pack(">I4s", 8 + len(content), b"uuid") + content)
        file.flush()
        os.fsync(file.fileno())


def read_video_provenance(path: str | os.PathLike) -> dict[str, Any] | None:
    """Reads the AI metadata of a video that was made here.

    Args:
        path (`str | os.PathLike`): The video.

    Returns:
        `dict[str, Any]`, *optional*: As `read_provenance` for photos; `None` if it has no such facts.
    """
    with open_container(Path(path)) as container:
        fields = {key.lower(): value for key, value in container.metadata.items()}
    facts = read_facts(fields.get(FACTS, ""))
    return facts if facts is not None and {"digital_source_type", "software"} <= facts.keys() else None
