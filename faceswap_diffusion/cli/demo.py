"""`faceswap-diffusion demo`: swaps in a browser."""

import argparse
import json
import signal
import sys
import textwrap
import threading
from importlib.util import find_spec

from faceswap_diffusion.cli.loading import add_checkpoint_options, import_diffusers, tell_loading
from faceswap_diffusion.cli.options import PROG, RESPONSIBLE_USE, tell
from faceswap_diffusion.console import say
from faceswap_diffusion.demo.limits import Limits

SUMMARY = "swap faces in a browser"
DESCRIPTION = textwrap.fill(
    "Serve a page on which faces are swapped, for this computer alone unless --host says otherwise. "
    f"{RESPONSIBLE_USE}",
    79,
)
EXAMPLES = """examples:
  for a browser on this computer:
    faceswap-diffusion demo
  for everybody in the network, with smaller uploads, which are deleted after five minutes:
    faceswap-diffusion demo --host 0.0.0.0 --max-megabytes 10 --keep-minutes 5
"""


def add_arguments(demo: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    add = demo.add_argument
    add("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1, this computer alone)")
    add("--port", type=int, help="port to listen on (default: the first free one from 7860 on)")
    add = demo.add_argument_group("what is taken").add_argument
    for option, metavar, limit, meaning in (
        ("--max-megabytes", "MB", Limits.megabytes, "of an uploaded file"),
        ("--max-megapixels", "MP", Limits.megapixels, "of a photo or frame"),
        ("--max-seconds", "S", Limits.seconds, "of a video"),
        ("--keep-minutes", "M", Limits.minutes, "how long uploads and results are kept"),
    ):
        add(option, type=above_zero, default=limit, metavar=metavar, help=f"{meaning} (default: {limit:g})")
    add("--max-waiting", type=int, default=Limits.waiting, metavar="N",
        help=f"swaps that wait while one is made (default: {Limits.waiting})")  # fmt: skip
    add_checkpoint_options(demo)
    demo.set_defaults(run=run)


def above_zero(text: str) -> float:
    """Reads a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}; a number above 0 is needed")
    return number


def run(args: argparse.Namespace) -> int:
    """Serves the page until it is interrupted."""
    if find_spec("gradio") is None:
        raise ValueError("the demo needs Gradio, which is not installed: pip install 'faceswap-diffusion[demo]'")
    tell_loading(args)
    import_diffusers(args)
    from faceswap_diffusion.demo.server import LOOPBACK, served
    from faceswap_diffusion.swapping.swapper import FaceSwapper

    limits = Limits(
        megabytes=args.max_megabytes,
        megapixels=args.max_megapixels,
        seconds=args.max_seconds,
        waiting=args.max_waiting,
        minutes=args.keep_minutes,
    )
    swapper = FaceSwapper.from_pretrained(
        args.checkpoint, device=args.device, dtype=args.dtype, few_steps=args.few_steps, variant=args.variant
    )
    swapper.pipeline.set_progress_bar_config(disable=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that what was uploaded is deleted
    with served(swapper, args.host, args.port, limits) as page:
        if args.host != LOOPBACK:
            tell(args, f"{PROG}: warning: whoever reaches {args.host} can use this page", error=True)
        if args.json:
            say(json.dumps({"url": page.local_url}))
        else:
            tell(args, f"The page is at {page.local_url}\nCtrl-C ends it, and deletes what was uploaded.")
        threading.Event().wait()
    return 0
