"""`faceswap-diffusion swap`: puts the face of one photo into another."""

import argparse
import json
import sys
import textwrap
import time
from typing import TYPE_CHECKING

from faceswap_diffusion.cli.faces import describe_face
from faceswap_diffusion.cli.loading import (
    FoundFaces,
    add_checkpoint_options,
    add_face_score,
    check_sources,
    find_faces,
    load_swapper,
    tell_loading,
)
from faceswap_diffusion.cli.options import RESPONSIBLE_USE, add_output, add_signing_options, tell
from faceswap_diffusion.cli.swap_options import add_choices, add_painting_options, add_target_face, swap_settings
from faceswap_diffusion.console import say

if TYPE_CHECKING:
    from faceswap_diffusion.photos.loading import Photo
    from faceswap_diffusion.swapping.swapper import SwapResult

EXAMPLES = """examples:
  my face onto the largest face:
    faceswap-diffusion swap me.jpg group.jpg -o out.png
  the average of two photos of me, onto the leftmost face; onto every face; onto Bob:
    faceswap-diffusion swap me1.jpg me2.jpg group.jpg -o out.png --target-face 0
    faceswap-diffusion swap me1.jpg me2.jpg group.jpg -o out.png --target-face all
    faceswap-diffusion swap me1.jpg me2.jpg group.jpg -o out.png --target-face bob.jpg
  my identity once, then swaps without my photos:
    faceswap-diffusion identity me1.jpg me2.jpg -o me.safetensors
    faceswap-diffusion swap me.safetensors group.jpg -o out.png
  the eyes and brows only; the face without its mouth:
    faceswap-diffusion swap me.jpg group.jpg -o out.png --region eyes+brows
    faceswap-diffusion swap me.jpg group.jpg -o out.png --keep mouth
  Ann onto face 1 and Bob onto face 0:
    faceswap-diffusion swap ann.jpg bob.jpg two.jpg -o out.png --map 0:1,1:0
"""
SUMMARY = "put the face of one photo into another"
DESCRIPTION = textwrap.fill(f"Put the face of SOURCE into the photo TARGET. {RESPONSIBLE_USE}", 79)


def source_to_face(text: str) -> dict[int, int]:
    """Reads `SOURCE:FACE` pairs, as in `0:1,1:0`, into the mapping from face to source that `FaceSwapper` takes."""
    try:
        pairs = [[int(number) for number in pair.split(":")] for pair in text.split(",")]
        mapping = {face: source for source, face in pairs}
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"got {text!r}; write SOURCE:FACE[,SOURCE:FACE...], as 0:1,1:0") from error
    if len(mapping) < len(pairs):
        raise argparse.ArgumentTypeError(f"got {text!r}; a face can take one source only")
    return mapping


def add_arguments(swap: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = swap.add_argument
    add("sources", nargs="+", metavar="SOURCE",
        help="photo of who to become, or what `identity` wrote; several photos are averaged, see --map")  # fmt: skip
    add("target", metavar="TARGET", help="photo to change")
    add_output(swap, "where to write the result: .png, .jpg, .webp, .tif, .avif or .bmp")
    choices = add_choices(swap)
    add_target_face(choices)
    _add_own_choices(choices)
    add_painting_options(swap)
    add_face_score(swap)
    add_checkpoint_options(swap)
    add_signing_options(swap)
    swap.set_defaults(run=run)


def _add_own_choices(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--mask", metavar="MASK",
        help="picture as large as TARGET, white where to repaint, black or transparent elsewhere, in place of "
        "--region")  # fmt: skip
    add("--add-mask", metavar="MASK", help="such a picture, white where to repaint as well")
    add("--keep-mask", metavar="MASK", help="such a picture, white where nothing is repainted")
    add("--map", type=source_to_face, metavar="S:F,...", dest="mapping",
        help="put source S onto face F of TARGET, counting from 0; the sources are then different people")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Swaps and writes the picture."""
    from faceswap_diffusion.masks.regions import region_names
    from faceswap_diffusion.photos.loading import load_photo
    from faceswap_diffusion.provenance.save import check_output
    from faceswap_diffusion.swapping.identity_files import is_identity_file

    started = time.perf_counter()
    check_output(args.output, overwrite=args.overwrite)
    for region in (args.region, *args.keep):
        region_names(region)
    sources = [path if is_identity_file(path) else load_photo(path) for path in args.sources]
    target = load_photo(args.target)
    check_output(args.output, overwrite=args.overwrite, size=target.size, has_alpha=target.is_transparent)
    tell_loading(args)
    finding = time.perf_counter()
    analyzer = find_faces(args)
    check_faces(args, analyzer, sources, target)
    loading = time.perf_counter()
    swapper = load_swapper(args, analyzer, args.occlusion, args.lora)
    swapper.pipeline.set_progress_bar_config(disable=args.quiet or None, desc="swapping", file=sys.stderr)
    swapping = time.perf_counter()
    result = swapper.swap(
        sources,
        target,
        source_face=args.source_face,
        target_face=args.target_face,
        mapping=args.mapping,
        mask_image=args.mask,
        add_mask_image=args.add_mask,
        keep_mask_image=args.keep_mask,
        **swap_settings(args),
    )
    saving = time.perf_counter()
    result.save(args.output)
    detecting = loading - finding + result.seconds["detect"]
    seconds = {"start": finding - started + swapping - loading, **result.seconds, "detect": detecting}
    report(args, result, {**seconds, "save": time.perf_counter() - saving})
    return 0


def check_faces(args: argparse.Namespace, analyzer: FoundFaces, sources: "list[Photo | str]", target: "Photo") -> None:
    """Finds the faces, so that a photo without one is known before PyTorch is loaded, which takes seconds.

    Raises:
        NoFaceFoundError: If a photo shows none, or not the one that was asked for.
    """
    from faceswap_diffusion.faces.selection import select_face

    if args.mapping is None:
        which = args.target_face if isinstance(args.target_face, int) else "largest"
        select_face(analyzer.analyze(target.rgb), which, where=target.name)
    check_sources(args, analyzer, sources)


def report(args: argparse.Namespace, result: "SwapResult", seconds: dict[str, float]) -> None:
    """Tells what was swapped, and how long each stage took."""
    if args.json:
        made = {
            "output": str(args.output),
            "faces": [describe_face(face) for face in result.faces],
            "swapped": result.swapped,
            "dropped": [{**describe_face(dropped.face), "reason": dropped.reason} for dropped in result.dropped],
            "seconds": {stage: round(value, 3) for stage, value in seconds.items()},
            "provenance": result.provenance,
        }
        say(json.dumps(made, indent=2))
    else:
        swapped, loading = ", ".join(map(str, result.swapped)), seconds["start"]
        took = f"in {sum(seconds.values()) - loading:.1f} s, after {loading:.1f} s of loading"
        tell(args, f"{args.output}: swapped face {swapped} of {len(result.faces)} {took}")
