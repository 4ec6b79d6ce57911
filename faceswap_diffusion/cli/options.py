"""Options that commands share, and how they report errors and results."""

import argparse
import logging
from typing import NoReturn

from faceswap_diffusion.console import say

PROG = "faceswap-diffusion"
RESPONSIBLE_USE = (
    "Swap faces only of people who agreed to it. Every swapped picture says in its metadata that AI made it; "
    "leave that in. See 'Responsible use' in the README."
)


class OneLineParser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Prints the error without the usage text and exits with 2."""
        self.exit(2, f"{self.prog}: error: {message} (see {self.prog} --help)\n")


def common_options() -> OneLineParser:
    """What every command takes, as a parent for its parser."""
    common = OneLineParser(add_help=False)
    printed = common.add_argument_group("what is printed")
    printed.add_argument("--json", action="store_true", help="print a report in JSON on standard output")
    loudness = printed.add_mutually_exclusive_group()
    loudness.add_argument("--quiet", action="store_true", help="print errors, the report of --json, and nothing else")
    loudness.add_argument(
        "--verbose",
        action="store_true",
        help="also print warnings of the libraries, and the traceback of a failure",
    )
    return common


def add_output(parser: argparse.ArgumentParser, explanation: str) -> None:
    """Adds `--output`, which a command needs, and `--overwrite`."""
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help=explanation)
    parser.add_argument("--overwrite", action="store_true", help="replace OUT if it exists")


def face_choice(text: str) -> str | int:
    """Reads the choice of a face: an index, or a word or path as it stands."""
    return int(text) if text.lstrip("-").isdigit() else text


def set_loudness(args: argparse.Namespace) -> None:
    """Lets our own modules warn on standard error, unless `--quiet` is given."""
    level = logging.ERROR if args.quiet else logging.WARNING
    logging.basicConfig(level=level, format=f"{PROG}: warning: %(message)s")


def tell(args: argparse.Namespace, text: str, *, error: bool = False) -> None:
    """Prints lines unless `--quiet` is given."""
    if not args.quiet:
        say(text, error=error)
