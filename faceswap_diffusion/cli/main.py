"""The command line: swap, one by one or many; list faces, convert checkpoints, measure, fetch, examine itself."""

import argparse
import os
import traceback
from collections.abc import Sequence
from types import ModuleType

from faceswap_diffusion import __version__
from faceswap_diffusion.cli import batch, convert, demo, doctor, evaluate, faces, fetch, identity, swap, verify, video
from faceswap_diffusion.cli.options import (
    PROG,
    RESPONSIBLE_USE,
    OneLineParser,
    choose_signer,
    common_options,
    set_loudness,
)
from faceswap_diffusion.console import ready_streams, say, say_interrupted
from faceswap_diffusion.safety.refusal import RefusedError

REFUSED = 4


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the whole command line."""
    parser = OneLineParser(prog=PROG, description="Swap faces in photos by diffusion.", epilog=RESPONSIBLE_USE)
    parser.add_argument("--version", action="version", version=f"{PROG} {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=OneLineParser)
    common = common_options()

    def add(name: str, command: ModuleType, *parents: OneLineParser) -> None:
        described, examples = (getattr(command, part, None) for part in ("DESCRIPTION", "EXAMPLES"))
        command.add_arguments(
            commands.add_parser(
                name,
                parents=parents,
                help=command.SUMMARY,
                description=described,
                epilog=examples,
                formatter_class=argparse.RawDescriptionHelpFormatter,
            )
        )

    add("swap", swap, common)
    add("batch", batch, common)
    add("video", video, common)
    add("identity", identity, common)
    add("faces", faces, common)
    convert.add_commands(commands.add_parser("convert", help=convert.SUMMARY), common)
    add("evaluate", evaluate)
    add("verify", verify, common)
    add("demo", demo, common)
    add("fetch", fetch, common)
    add("doctor", doctor, common)
    return parser


def spare_cores() -> None:
    """Makes the libraries that are loaded later waste no processor time, unless the user has chosen otherwise.

    A thread that waits for work would otherwise spin, and several threads would multiply matrices that are small.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line.

    Args:
        argv (`Sequence[str]`, *optional*): The arguments; `sys.argv` if left out.

    Returns:
        `int`: Exit status: 0 done, 1 unexpected failure, 2 something is wrong with what was given, 3 `verify`
            found nothing, 4 the safety checker refused, 130 interrupted.
    """
    ready_streams()
    spare_cores()
    args = build_parser().parse_args(argv)
    set_loudness(args)
    try:
        if hasattr(args, "c2pa_cert"):
            choose_signer(args)
        return args.run(args)
    except KeyboardInterrupt:
        say_interrupted(f"{PROG}: interrupted")
        return 130
    except Exception as error:
        if args.verbose:
            traceback.print_exc()
        is_users = isinstance(error, ValueError | FileNotFoundError | IsADirectoryError | PermissionError)
        message = " ".join(str(error).split()) or type(error).__name__
        hint = "" if is_users or args.verbose else f" ({type(error).__name__}; --verbose shows where)"
        say(f"{PROG}: error: {message}{hint}", error=True)
        if isinstance(error, RefusedError):
            return REFUSED
        return 2 if is_users else 1
