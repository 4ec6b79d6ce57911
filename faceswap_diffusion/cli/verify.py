"""`faceswap-diffusion verify`: says whether pictures and videos were made here. It needs no PyTorch."""

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, Any

from faceswap_diffusion.cli.options import PROG, tell
from faceswap_diffusion.console import say

if TYPE_CHECKING:
    from faceswap_diffusion.provenance.verify import Verification

SUMMARY = "say whether pictures and videos were made with this program"
DESCRIPTION = textwrap.fill(
    "Look for what a swap leaves in a file: its metadata, its Content Credentials, and the invisible mark in the new "
    "face, which survives cropping, scaling and JPEG; of a video, in some of its frames. Exit status: 0 if all files "
    "have one of them, 3 if nothing is found in one, 2 if one cannot be read.",
    79,
)
NOTHING_FOUND = 3


def add_arguments(verify: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    verify.add_argument("files", nargs="+", metavar="FILE", help="picture or video to look at")
    verify.add_argument("--trust", metavar="PEM", help="certificates of those whose Content Credentials are trusted")
    verify.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Looks at pictures, and at all of them even if one cannot be read."""
    from faceswap_diffusion.provenance.verify import face_finder, verify

    analyzer, reports, status = face_finder(), [], 0
    for path in args.files:
        try:
            found = verify(path, analyzer, args.trust)
        except ValueError as error:
            say(f"{PROG}: error: {error}", error=True)
            status = 2
            continue
        if not found.is_marked:
            status = status or NOTHING_FOUND
        reports.append(_report(found))
        if not args.json:
            tell(args, "\n".join(found.lines()))
    if args.json:
        say(json.dumps(reports, indent=2))
    return status


def _report(found: "Verification") -> dict[str, Any]:
    """What `--json` says of a file."""
    from dataclasses import asdict

    video, credentials = found.video_mark, found.credentials
    return {
        "path": found.path,
        "is_marked": found.is_marked,
        "metadata": found.metadata,
        "credentials": None if credentials is None else asdict(credentials),
        "marks": [{**asdict(mark), "found": mark.found} for mark in found.marks],
        "video_mark": None if video is None else {**asdict(video), "found": video.found},
    }
