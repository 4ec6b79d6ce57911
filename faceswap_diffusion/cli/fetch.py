"""`faceswap-diffusion fetch`: gets model files of others."""

import argparse
import json

from faceswap_diffusion.cli.options import tell
from faceswap_diffusion.console import say
from faceswap_diffusion.weights.fetch import FETCHABLE, fetch
from faceswap_diffusion.weights.registry import MODEL_FILES

SUMMARY = "get model files of others, with which evaluate measures more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.add_argument("names", nargs="+", metavar="NAME", help=f"one or more of {', '.join(FETCHABLE)}")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Gets model files, and says where they are and under which licences."""
    paths = {name: str(fetch(name)) for name in args.names}
    if args.json:
        say(json.dumps(paths, indent=2))
    else:
        tell(args, "\n".join(f"{path}: {MODEL_FILES[name].licence}" for name, path in paths.items()))
    return 0
