"""The command `faceswap-diffusion evaluate`, also as `accelerate launch -m faceswap_diffusion.evaluation`."""

import argparse
import json
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faceswap_diffusion.console import ready_streams, say, say_interrupted

if TYPE_CHECKING:
    from accelerate import PartialState

    from faceswap_diffusion.evaluation.methods import Method
    from faceswap_diffusion.evaluation.protocol import PairSet
    from faceswap_diffusion.evaluation.run import Evaluation

DESCRIPTION = """Measure how good swaps are: of checkpoints, of other methods, and of baselines.

Every picture and every swap is measured once and kept in REPORT_DIR, so a run that was stopped continues where it was.
On several GPUs: accelerate launch -m faceswap_diffusion.evaluation ... (with the same arguments). In several CPU
processes: torchrun --nproc-per-node 3 -m faceswap_diffusion.evaluation ..."""

EXAMPLES = """examples:
  the model in the package on London and on turned heads, and with each condition removed:
    faceswap-diffusion evaluate --protocol london=london.tar --protocol turned=FACES --ablate 40 -o report
  swaps between two photos of the same person, where the true pixels are known, for several numbers of steps:
    faceswap-diffusion evaluate --protocol self=FACES --compare-steps 2 5 10 25 50 -o report
  faces with something drawn in front of them, which has to stay (FACES are square and bare):
    faceswap-diffusion evaluate --protocol occluded=FACES -o report
  two checkpoints on your own pairs (a CSV file with the columns source and target), three seeds:
    faceswap-diffusion evaluate --checkpoint A --checkpoint B --pairs pairs.csv --seeds 0 1 2 -o report
  finished swaps of another method on the same pairs:
    faceswap-diffusion evaluate --outputs SWAPS --pairs pairs.csv -o report
  flicker in clips that are made from the photos of a folder, with and without temporal coherence:
    faceswap-diffusion evaluate --protocol video=FACES --limit 3 -o report
  REFace's protocol (all pictures of CelebA-HQ in one folder):
    faceswap-diffusion evaluate --checkpoint A --protocol celebahq=CelebA-HQ-img -o report
"""
EXTRA_MODULES = ("jinja2", "onnxruntime", "scipy", "skimage")
PROTOCOL_NAMES = ("london", "turned", "looks", "self", "celebahq", "ffhq", "casia", "occluded", "video")


def protocol_and_path(text: str) -> tuple[str, Path]:
    """Reads `NAME=PATH`."""
    name, _, path = text.partition("=")
    if name not in PROTOCOL_NAMES or not path:
        raise argparse.ArgumentTypeError(f"got {text!r}; write NAME=PATH, NAME one of {', '.join(PROTOCOL_NAMES)}")
    return name, Path(path)


def positive(text: str) -> int:
    """Reads a number of at least 1."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}; a number of at least 1 is needed")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to a parser."""
    add = parser.add_argument
    add("--checkpoint", action="append", default=[], metavar="PATH_OR_ID",
        help="folder or Hub id; may be repeated (default without --outputs: the package's)")  # fmt: skip
    add("--outputs", action="append", default=[], type=Path, metavar="DIR",
        help="finished swaps, named SOURCE-TARGET.png or in the order of the pairs")  # fmt: skip
    add("--pairs", type=Path, metavar="CSV", help="paths in the columns source and target, relative to the file")
    add("--protocol", action="append", default=[], type=protocol_and_path, metavar="NAME=PATH",
        help=f"{', '.join(PROTOCOL_NAMES)}, with the folder or tar file of its pictures")  # fmt: skip
    add("-o", "--output", required=True, type=Path, metavar="REPORT_DIR", help="folder of the report")
    add("--seeds", nargs="+", type=int, default=[0], metavar="N", help="seeds of the swaps (default: 0)")
    add("--limit", type=positive, metavar="N", help="only the first N pairs of each set")
    add("--ablate", type=positive, metavar="N", help="also measure without each condition in turn, on N pairs")
    add("--compare-steps", nargs="+", type=positive, default=[], metavar="N",
        help="also compare these numbers of denoising steps")  # fmt: skip
    add("--steps", type=positive, metavar="N", help="denoising steps (default: the protocol's or the checkpoint's)")
    add("--guidance", type=float, metavar="SCALE", help="guidance scale (default: the protocol's or the checkpoint's)")
    add("--without-pictures", action="append", default=[], metavar="SET",
        help="show no pictures of this set on the page, for instance if they may not be published")  # fmt: skip
    add("--batch-size", type=positive, default=8, metavar="N", help="batch size of the feature networks (default: 8)")
    add("--device", help="cpu, cuda, mps (default: the fastest there is)")
    add("--dtype", help="float32, float16 or bfloat16 (default: float16 on cuda, else float32)")
    add("--json", action="store_true", help="print the report in JSON on standard output, in place of the tables")


def check_extra() -> None:
    """Checks, before anything slow is imported, whether the packages of the extra `eval` are installed.

    Raises:
        ValueError: If one is missing.
    """
    missing = [name for name in EXTRA_MODULES if find_spec(name) is None]
    if missing:
        raise ValueError(f"evaluate needs {', '.join(missing)}: pip install 'faceswap-diffusion[eval]'")


def run(args: argparse.Namespace) -> int:
    """Measures, prints the tables and writes the report."""
    if not args.pairs and not args.protocol:
        raise ValueError("nothing to measure on: give --pairs or --protocol")
    videos = [path for name, path in args.protocol if name == "video"]
    args.protocol = [(name, path) for name, path in args.protocol if name != "video"]
    for folder in videos:
        measure_videos(args, folder)
    if not args.pairs and not args.protocol:
        return 0
    with ExitStack() as stack:
        sets = open_sets(args, stack)
        outputs = find_outputs(args.outputs, sets)
        evaluate(args, sets, outputs)
    return 0


def measure_videos(args: argparse.Namespace, folder: Path) -> None:
    """Measures the protocol `video` with the first checkpoint, and prints its table."""
    from faceswap_diffusion.evaluation.description import load_networks
    from faceswap_diffusion.evaluation.video import NUM_CLIPS, evaluate_videos, video_pairs, video_table
    from faceswap_diffusion.swapping.options import SwapOptions
    from faceswap_diffusion.swapping.swapper import FaceSwapper

    pairs = video_pairs(folder, args.limit or NUM_CLIPS)
    swapper = FaceSwapper.from_pretrained(
        *args.checkpoint[:1], device=args.device, dtype=args.dtype, safety_checker=None
    )
    swapper.pipeline.set_progress_bar_config(disable=True)
    options = SwapOptions(num_inference_steps=args.steps, guidance_scale=args.guidance, seed=args.seeds[0])
    figures = evaluate_videos(swapper, load_networks(), pairs, args.output, options)
    say(json.dumps(figures, indent=2) if args.json else f"{video_table(figures)}\n\nThe figures are in {args.output}")


def open_sets(args: argparse.Namespace, stack: ExitStack) -> "list[PairSet]":
    """Opens the requested sets; tar files stay unpacked until `stack` closes.

    Raises:
        ValueError: If a set is invalid, or two sets have the same name.
    """
    from faceswap_diffusion.evaluation.occluded import opened_set
    from faceswap_diffusion.evaluation.protocol import listed_pairs

    sets = [listed_pairs(args.pairs).limited(args.limit)] if args.pairs else []
    sets += [stack.enter_context(opened_set(name, path, args.limit)) for name, path in args.protocol]
    names = [pair_set.name for pair_set in sets]
    if len({*names}) < len(names):
        raise ValueError(f"two sets have the same name ({', '.join(names)}): measure them in separate reports")
    return sets


def find_outputs(folders: list[Path], sets: "list[PairSet]") -> dict[Path, list[Path]]:
    """Finds the finished swaps in each folder, and checks that every picture can be read.

    Raises:
        ValueError: If swaps are missing, or there is more than one set.
    """
    from faceswap_diffusion.evaluation.protocol import match_outputs
    from faceswap_diffusion.evaluation.run import check_pictures

    if folders and len(sets) > 1:
        raise ValueError("--outputs needs exactly one set of pairs: give one --pairs or one --protocol")
    outputs = {folder: match_outputs(folder, sets[0]) for folder in folders}
    check_pictures(sets, outputs)
    return outputs


def evaluate(args: argparse.Namespace, sets: "list[PairSet]", outputs: dict[Path, list[Path]]) -> None:
    """Measures the sets; the main process writes and prints the report."""
    from accelerate import PartialState

    from faceswap_diffusion.devices import resolve_device
    from faceswap_diffusion.evaluation.description import load_networks
    from faceswap_diffusion.evaluation.methods import reference_methods
    from faceswap_diffusion.evaluation.run import Evaluation

    state = PartialState(cpu=resolve_device(args.device).type == "cpu")
    networks = load_networks()
    compared = compared_methods(args, outputs, state)
    methods = [*compared, *reference_methods(networks.analyzer, compared)]
    steps = sorted({*args.compare_steps})
    evaluation = Evaluation(args.output, networks, methods, args.seeds, args.batch_size, state, steps)
    ablated = evaluation.measure(sets, args.ablate or 0)
    if state.is_main_process:
        write_report(evaluation, sets, ablated, args)


def compared_methods(
    args: argparse.Namespace, outputs: dict[Path, list[Path]], state: "PartialState"
) -> "list[Method]":
    """Checkpoints and finished swaps, in the given order.

    Raises:
        ValueError: If a checkpoint cannot be loaded, or two methods have the same name.
    """
    import torch

    from faceswap_diffusion.evaluation.methods import CheckpointMethod, FinishedSwaps

    settings: dict[str, Any] = {"num_inference_steps": args.steps, "guidance_scale": args.guidance}
    settings = {name: value for name, value in settings.items() if value is not None}
    device = args.device or (state.device if torch.cuda.is_available() else None)
    names = args.checkpoint or ([] if args.outputs else [None])
    methods: list[Method] = [CheckpointMethod(name, device, args.dtype, settings) for name in names]
    methods += [FinishedSwaps(folder.name, files) for folder, files in outputs.items()]
    known = [method.name for method in methods]
    if len({*known}) < len(known):
        raise ValueError(f"two methods have the same name ({', '.join(known)}): rename a folder")
    return methods


def write_report(
    evaluation: "Evaluation", sets: "list[PairSet]", ablated: "dict[str, list[Method]]", args: argparse.Namespace
) -> None:
    """Writes all files of the report and prints the tables, the one for a model card last."""
    from faceswap_diffusion.evaluation.page import write_page
    from faceswap_diffusion.evaluation.report import build_report, card_of_first, format_report, write_data

    report, values = build_report(evaluation, sets, ablated, args.ablate)
    write_data(report, values, sets, evaluation.folder)
    path = write_page(report, values, evaluation, sets, args.without_pictures)
    if args.json:
        say(json.dumps(report, indent=2))
    else:
        say(f"{format_report(report)}\n\n{card_of_first(report)}\nThe report is at {path}")


def main(arguments: list[str] | None = None) -> int:
    """Runs the command on its own; returns 2 for errors of users, 130 if interrupted."""
    parser = argparse.ArgumentParser(
        prog="python -m faceswap_diffusion.evaluation",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_arguments(parser)
    ready_streams()
    args = parser.parse_args(arguments)
    try:
        check_extra()
        return run(args)
    except KeyboardInterrupt:
        say_interrupted("interrupted")
        return 130
    except ValueError as error:
        say(f"error: {' '.join(str(error).split())}", error=True)
        return 2
