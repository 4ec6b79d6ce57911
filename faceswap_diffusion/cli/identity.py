"""`faceswap-diffusion identity`: encodes photos of a source into a file, to swap without the photos."""

import argparse
import json
import textwrap
from typing import TYPE_CHECKING

from faceswap_diffusion.cli.loading import (
    add_checkpoint_options,
    add_face_score,
    find_faces,
    load_swapper,
    tell_loading,
)
from faceswap_diffusion.cli.options import RESPONSIBLE_USE, add_output, face_choice, tell
from faceswap_diffusion.console import say

if TYPE_CHECKING:
    from faceswap_diffusion.swapping.agreed import AgreedPeople

SUMMARY = "encode photos of a source into a file, to swap without them"
DESCRIPTION = textwrap.fill(
    "Encode photos of one person into a file that `swap` takes in their place, with the same checkpoint. "
    f"It identifies a person: keep it as safe as the photos. {RESPONSIBLE_USE}",
    79,
)


def add_arguments(identity: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = identity.add_argument
    add("photos", nargs="+", metavar="PHOTO", help="one photo or several of the same person")
    add("--list", action="store_true",
        help="write a list of who agreed for --only: each photo is of another person")  # fmt: skip
    add_output(identity, "file to write (.safetensors)")
    add("--region", default="face", help="what will be repainted, see swap (default: face)")
    add("--source-face", type=face_choice, default="largest", metavar="FACE",
        help="in the photos: largest, or an index, 0 being leftmost (default: largest)")  # fmt: skip
    add_face_score(identity)
    add_checkpoint_options(identity)
    identity.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Encodes a source and writes its identity."""
    from faceswap_diffusion.faces.selection import select_face
    from faceswap_diffusion.masks.regions import region_names
    from faceswap_diffusion.photos.loading import load_photo
    from faceswap_diffusion.swapping.identity_files import check_identity_output

    check_identity_output(args.output, args.overwrite)
    region_names(args.region)
    photos = [load_photo(path) for path in args.photos]
    tell_loading(args)
    analyzer = find_faces(args)
    for photo in photos:
        select_face(analyzer.analyze(photo.rgb), args.source_face, where=photo.name)
    swapper = load_swapper(args, analyzer, "auto")
    if args.list:
        return write_list(args, swapper.list_agreed(photos, args.source_face))
    identity = swapper.encode_source(photos, args.source_face, args.region)
    identity.save(args.output)
    shown = None if identity.texture is None else round(identity.texture.shown, 3)
    if args.json:
        report = {"output": args.output, "photos": args.photos, "region": args.region, "source_shown": shown}
        say(json.dumps(report, indent=2))
    else:
        share = "" if shown is None else f", which show {shown:.0%} of the face"
        tell(args, f"{args.output}: the identity of {len(photos)} photo{'' if len(photos) == 1 else 's'}{share}")
    return 0


def write_list(args: argparse.Namespace, people: "AgreedPeople") -> int:
    """Writes the list of who agreed."""
    people.save(args.output)
    if args.json:
        say(json.dumps({"output": args.output, "photos": args.photos, "people": people.names}, indent=2))
    else:
        tell(args, f"{args.output}: {len(people.names)} who agreed: {', '.join(people.names)}")
    return 0
