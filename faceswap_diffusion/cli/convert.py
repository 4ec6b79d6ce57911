"""`faceswap-diffusion convert`: checkpoints from and to other layouts."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from faceswap_diffusion.cli.loading import import_diffusers
from faceswap_diffusion.cli.options import OneLineParser, add_output, tell
from faceswap_diffusion.console import say

if TYPE_CHECKING:
    from faceswap_diffusion.conversion.weights import ConversionReport

SUMMARY = "convert checkpoints from and to other layouts"


def add_commands(convert: argparse.ArgumentParser, common: OneLineParser) -> None:
    """Adds a command for each kind of conversion; `common` is what each of them takes besides."""
    commands = convert.add_subparsers(required=True, metavar="COMMAND", parser_class=OneLineParser)
    output = OneLineParser(add_help=False)
    add_output(output, "folder or file to write")
    saved = OneLineParser(add_help=False)
    saved.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), help="precision to save in (default: as it is)")
    saved.add_argument("--arcface", metavar="FILE", help="model_ir_se50.pth, to be the identity network")

    reface = commands.add_parser(
        "reface", parents=[common, output, saved], help="REFace's published checkpoint into a folder to swap with"
    )
    checkpoint = reface.add_mutually_exclusive_group(required=True)
    checkpoint.add_argument("checkpoint", nargs="?", metavar="CKPT", help="REFace's last.ckpt")
    checkpoint.add_argument("--from-hub", metavar="ID", help="fetch it from the Hub, as Sanoojan/REFace")
    reface.add_argument("--revision", metavar="NAME", help="branch, tag or commit of the Hub repository")
    reface.add_argument("--parser", metavar="FILE", help="79999_iter.pth, REFace's face parser, to use its masks")
    reface.set_defaults(run=run_reface)

    back = commands.add_parser(
        "diffusers-to-reface", parents=[common, output], help="a folder into a checkpoint that REFace's code loads"
    )
    back.add_argument("checkpoint", metavar="DIR", help="folder or Hub id of a checkpoint of REFace's design")
    back.set_defaults(run=run_to_reface)

    start = commands.add_parser(
        "sd-inpaint-init", parents=[common, output, saved], help="Stable Diffusion 1.x into a checkpoint to train from"
    )
    start.add_argument(
        "checkpoint", metavar="SD", help="folder in Diffusers' layout, or one .safetensors or .ckpt file"
    )
    start.add_argument("--image-encoder", metavar="DIR", help="CLIP model (default: the package's small encoder)")
    start.add_argument("--seed", type=int, default=0, help="of the fresh layers (default: 0)")
    start.set_defaults(run=run_from_stable_diffusion)


def run_reface(args: argparse.Namespace) -> int:
    """Converts REFace's checkpoint, fetching it first if asked to."""
    if args.revision and not args.from_hub:
        raise ValueError("--revision is one of a Hub repository: it needs --from-hub")
    import_diffusers(args)
    from faceswap_diffusion.conversion.download import download_reface
    from faceswap_diffusion.conversion.output import check_output
    from faceswap_diffusion.conversion.reface import convert_reface
    from faceswap_diffusion.conversion.weights import DTYPES

    check_output(args.output, args.overwrite)
    report = convert_reface(
        download_reface(args.from_hub, args.revision) if args.from_hub else args.checkpoint,
        args.output,
        dtype=DTYPES.get(args.dtype),
        parser=args.parser,
        arcface=args.arcface,
        overwrite=args.overwrite,
    )
    return _report(args, report)


def run_to_reface(args: argparse.Namespace) -> int:
    """Converts a folder into a checkpoint for REFace's own code."""
    import_diffusers(args)
    from faceswap_diffusion.conversion.reface_export import convert_to_reface

    return _report(args, convert_to_reface(args.checkpoint, args.output, overwrite=args.overwrite))


def run_from_stable_diffusion(args: argparse.Namespace) -> int:
    """Makes a checkpoint to train from."""
    import_diffusers(args)
    from faceswap_diffusion.conversion.stable_diffusion import init_from_stable_diffusion
    from faceswap_diffusion.conversion.weights import DTYPES

    report = init_from_stable_diffusion(
        args.checkpoint,
        args.output,
        arcface=args.arcface,
        image_encoder=args.image_encoder,
        seed=args.seed,
        dtype=DTYPES.get(args.dtype),
        overwrite=args.overwrite,
    )
    return _report(args, report)


def _report(args: argparse.Namespace, report: "ConversionReport") -> int:
    if args.json:
        say(json.dumps({"output": args.output, **asdict(report)}, indent=2))
    else:
        tell(args, "\n".join([f"{args.output}: converted", *report.lines()]))
    return 0
