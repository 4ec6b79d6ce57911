"""`faceswap-diffusion evaluate`: measures how good swaps are."""

import argparse

from faceswap_diffusion.cli.loading import import_diffusers
from faceswap_diffusion.evaluation import command
from faceswap_diffusion.evaluation.command import DESCRIPTION as DESCRIPTION
from faceswap_diffusion.evaluation.command import EXAMPLES as EXAMPLES

SUMMARY = "measure how good swaps are"


def add_arguments(evaluate: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    command.add_arguments(evaluate)
    evaluate.add_argument(
        "--verbose",
        action="store_true",
        help="print what the libraries warn of as well, and of a failure where it was",
    )
    evaluate.set_defaults(run=run, quiet=False)


def run(args: argparse.Namespace) -> int:
    """Measures swaps."""
    command.check_extra()
    import_diffusers(args)
    return command.run(args)
