"""Options of all commands that swap faces: which part of a face, and how it is painted."""

import argparse
from typing import Any

from faceswap_diffusion.cli.options import face_choice


def add_choices(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Adds the group of options that say which part of a face to swap."""
    group = parser.add_argument_group("whose face, and which part of it")
    add = group.add_argument
    add("--region", default="face",
        help="face, head (with its hair), hair, skin, brows, eyes, nose, mouth, upper-face, lower-face, features "
        "(brows, eyes, nose and mouth), accessories (glasses and earrings, if the face parser knows them), or several "
        "joined, as eyes+brows (default: face)")  # fmt: skip
    add("--keep", action="append", default=[], metavar="REGION",
        help="what of it stays as it is, as mouth or eyes+brows; may be repeated")  # fmt: skip
    add("--source-face", type=face_choice, default="largest", metavar="FACE",
        help="in the sources: largest, or an index, 0 being leftmost (default: largest)")  # fmt: skip
    add("--occlusion", default="auto", metavar="WHICH",
        help="things in front of faces stay there: auto, off, or the folder of a "
        "network that finds them (default: auto)")  # fmt: skip
    return group


def add_target_face(group: argparse._ArgumentGroup) -> None:
    """Adds the option that says whose face of a photo to swap."""
    group.add_argument("--target-face", type=face_choice, default="largest", metavar="FACE",
        help="in TARGET: largest, all, an index, or a photo of the person to replace (default: largest)")  # fmt: skip


def add_painting_options(parser: argparse.ArgumentParser) -> None:
    """Adds the group of options that say how to paint."""
    add = parser.add_argument_group("how it is painted").add_argument
    add("--steps", type=int, metavar="N", help="denoising steps (default: the checkpoint's)")
    add("--guidance", type=float, metavar="SCALE", help="guidance scale (default: the checkpoint's)")
    add("--strength", type=float, metavar="S",
        help="in (0, 1]; below 1 a swap starts from the source's face, drawn on the target's, and takes fewer steps, "
        "if the checkpoint is shown it (default: the checkpoint's)")  # fmt: skip
    add("--identity-guidance", type=float, metavar="SCALE",
        help="in [0, 1], how far the new face is brought closer to the source for the checkpoint's recogniser "
        "(default: 1 for photos, 0 for videos)")  # fmt: skip
    add("--lora", metavar="PATH", help="a LoRA of the checkpoint, a .safetensors file or its folder")
    add("--seed", type=int, default=0, help="the same seed gives the same picture (default: 0)")
    add("--no-color-match", action="store_true", help="leave the colours as the network made them")
    add("--consent", metavar="TEXT", help="who agreed to this, and how: recorded in the picture's metadata")
    add("--only", metavar="FACES.safetensors",
        help="who agreed, a list from `identity --list` or the identity of one person: nobody else's face is swapped, "
        "neither as source nor as target")  # fmt: skip
    add("--no-skin-texture", action="store_true", help="leave the skin as smooth as the network made it")


def swap_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What the options say of [`SwapOptions`]."""
    return {
        "region": args.region,
        "keep": "+".join(args.keep) or None,
        "num_inference_steps": args.steps,
        "guidance_scale": args.guidance,
        "strength": args.strength,
        "identity_guidance_scale": args.identity_guidance,
        "color_match": not args.no_color_match,
        "skin_texture": not args.no_skin_texture,
        "seed": args.seed,
        "consent": args.consent,
    }
