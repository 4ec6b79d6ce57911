"""Options that commands share, and how they report errors and results."""

import argparse
import logging
import os
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


def add_signing_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options that say who signs Content Credentials; see `provenance.signing`."""
    add = parser.add_argument_group("who signs its Content Credentials, if the extra c2pa is installed").add_argument
    add("--c2pa-cert", metavar="PEM", help="your certificate chain (default: a local one that nobody trusts)")
    add("--c2pa-key", metavar="PEM", help="its P-256 key")
    add("--c2pa-timestamp", metavar="URL", help="ask this server for the time; nothing else uses the network")


def choose_signer(args: argparse.Namespace) -> None:
    """Lets the signing options take the place of their environment variables, for processes started from here too.

    Raises:
        ValueError: If certificate and key are not given together, or cannot be read.
    """
    from faceswap_diffusion.provenance import signing

    given = {signing.CERTIFICATE: args.c2pa_cert, signing.KEY: args.c2pa_key, signing.TIME_STAMPS: args.c2pa_timestamp}
    os.environ.update({name: value for name, value in given.items() if value})
    if args.c2pa_cert or args.c2pa_key:
        signing.choose_signing()


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
