r"""Measures a checkpoint's swaps in one go.

    python -m faceswap_diffusion.evaluation.quick --london london_identities_256.tar --turned FACES \
        --recognizer w600k=w600k_mbf.onnx --ablate 40 --output report.json --pictures sheets

`--london` takes the Face Research Lab London Set (102 people, neutral and smiling; a folder or tar file with
manifest.csv); `--turned` and `--looks` take folders that train/make_synthetic_faces.py has drawn, for choosing among
models. Prints tables in Markdown, for the model card.
"""

import argparse
import os
import platform
import resource
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from tqdm.auto import tqdm

from faceswap_diffusion import __version__
from faceswap_diffusion.evaluation.ablation import (
    CONDITIONS,
    mean_condition,
    recorded_conditions,
    removed_condition,
)
from faceswap_diffusion.evaluation.measurement import FaceMeasurer, SwapMeasurement, measure_swaps
from faceswap_diffusion.evaluation.metrics import cosines, pose_errors
from faceswap_diffusion.evaluation.protocol import PairSet, london_pairs, look_pairs, opened_folder, turned_pairs
from faceswap_diffusion.evaluation.recognizers import HELD_OUT, parse_recognizers
from faceswap_diffusion.evaluation.report import PictureSheets, format_report, write_report
from faceswap_diffusion.evaluation.summary import summarize
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.swapper import FaceSwapper

SETS = {"london": london_pairs, "turned": turned_pairs, "looks": look_pairs}


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m faceswap_diffusion.evaluation.quick",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--checkpoint", help="folder or Hub id (default: the one in the package)")
    parser.add_argument("--london", type=Path, metavar="PATH", help="person i neutral into person i+1 smiling")
    parser.add_argument("--turned", type=Path, metavar="FOLDER", help="into heads turned by 15 degrees or more")
    parser.add_argument("--looks", type=Path, metavar="FOLDER", help="person i into another look of person i+1")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N pairs of each set")
    parser.add_argument("--ablate", type=int, default=0, metavar="N", help="remove each condition in turn on N pairs")
    parser.add_argument("--recognizer", action="append", default=[], metavar="NAME=PATH", help="a held-out recogniser")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, metavar="JSON", help="write every figure, and the tables in .md beside")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="write sheets of source, target, swap")
    parser.add_argument("--device", help="cpu, cuda, ... (default: the fastest there is)")
    parser.add_argument("--dtype", help="float32, float16 or bfloat16")
    return parser


def open_sets(args: argparse.Namespace, stack: ExitStack) -> list[PairSet]:
    """The sets that were asked for; tar files stay unpacked until `stack` closes.

    Raises:
        ValueError: If none was asked for, or one is not what it should be.
    """
    asked = {name: getattr(args, name) for name in SETS if getattr(args, name)}
    if not asked:
        raise ValueError(f"nothing to measure on: give at least one of {', '.join(f'--{name}' for name in SETS)}")
    return [SETS[name](stack.enter_context(opened_folder(path))).limited(args.limit) for name, path in asked.items()]


class Evaluation:
    """One swapper, what measures it, and how.

    Args:
        swapper (`FaceSwapper`): What is measured.
        measurer (`FaceMeasurer`): What measures.
        seed (`int`): Every swap's.
        pictures (`Path`, *optional*): Folder for sheets.
    """

    def __init__(self, swapper: FaceSwapper, measurer: FaceMeasurer, seed: int = 0, pictures: Path | None = None):
        self.swapper, self.measurer, self.seed, self.pictures = swapper, measurer, seed, pictures

    def measure(self, pair_set: PairSet, label: str = "") -> list[SwapMeasurement]:
        """Swaps and measures every pair of a set."""
        name = f"{pair_set.name}{label}"
        progress = tqdm(pair_set.pairs, desc=name, unit="swap", mininterval=5)
        if self.pictures is None:
            return measure_swaps(self.swapper, self.measurer, progress, self.seed)
        sheets = PictureSheets(self.pictures, name)
        measurements = measure_swaps(self.swapper, self.measurer, progress, self.seed, sheets.add)
        sheets.flush()
        return measurements

    def summarize(self, pair_set: PairSet, measurements: list[SwapMeasurement]) -> dict[str, float]:
        """One table column."""
        gallery = [self.measurer.measure_file(path) for path in pair_set.gallery]
        return summarize(measurements, gallery, list(self.measurer.recognizers))

    def measure_and_ablate(
        self, pair_set: PairSet, num_ablated: int
    ) -> tuple[list[SwapMeasurement], dict[str, dict[str, float]]]:
        """Measures a set, and its first `num_ablated` pairs with each condition removed.

        Returns:
            `tuple`: The measurements, and a table row for `"none"` and each condition; no rows if `num_ablated` is 0.
        """
        conditioner = self.swapper.pipeline.conditioner
        if conditioner is None:
            raise ValueError("the checkpoint has no conditioner: there are no conditions to remove")
        with recorded_conditions(conditioner) as conditions:
            measurements = self.measure(pair_set)
        if not num_ablated:
            return measurements, {}
        part = pair_set.limited(num_ablated)
        rows = {"none": self.summarize(part, measurements[:num_ablated])}
        for name in CONDITIONS:
            with removed_condition(conditioner, name, mean_condition(name, conditions[name])):
                rows[name] = self.summarize(part, self.measure(part, f"_without_{name}"))
        return measurements, rows


def describe_settings(swapper: FaceSwapper, args: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    config = swapper.pipeline.config
    return {
        "checkpoint": args.checkpoint or "of the package",
        "seed": args.seed,
        "steps": config["default_num_inference_steps"],
        "guidance": config["default_guidance_scale"],
        "device": str(swapper.pipeline.device),
        "dtype": str(swapper.pipeline.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "faceswap-diffusion": __version__,
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "python": platform.python_version(),
    }


def peak_memory_megabytes() -> float:
    """Greatest resident memory of this process so far, with all that measures it."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def describe_pair(measurement: SwapMeasurement) -> dict[str, Any]:
    """One pair's figures for the JSON report."""
    pair, swap, source, target = measurement.pair, measurement.swap, measurement.source, measurement.target
    row: dict[str, Any] = {"source": pair.source.name, "target": pair.target.name, "detected": swap is not None}
    if swap is not None and source is not None and target is not None:
        for name, embedding in swap.embeddings.items():
            to_both = np.stack([source.embeddings[name], target.embeddings[name]])
            cosine_to_source, cosine_to_target = cosines(np.stack([embedding] * 2), to_both).tolist()
            row |= {f"{name}_cosine_to_source": cosine_to_source, f"{name}_cosine_to_target": cosine_to_target}
        row["pose_error"] = pose_errors(swap.head_pose[None], target.head_pose[None]).item()
    names = ("sharpness_crop", "sharpness_photo", "border_step", "seconds")
    return row | {name: getattr(measurement, name) for name in names}


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """Measures what was asked for and returns the report."""
    recognizers = parse_recognizers(args.recognizer)
    with ExitStack() as stack:
        pair_sets = open_sets(args, stack)
        swapper = FaceSwapper.from_pretrained(args.checkpoint, device=args.device, dtype=args.dtype)
        swapper.pipeline.set_progress_bar_config(disable=True)
        evaluation = Evaluation(swapper, FaceMeasurer(recognizers, MeshFaceAnalyzer()), args.seed, args.pictures)
        report: dict[str, Any] = {
            "settings": describe_settings(swapper, args),
            "recognizers": list(recognizers),
            "unavailable": {name: reason for name, reason in HELD_OUT.items() if name not in recognizers},
            "sets": {},
            "ablation": {},
            "pairs": {},
        }
        for pair_set in pair_sets:
            measurements, rows = evaluation.measure_and_ablate(pair_set, args.ablate)
            report["sets"][pair_set.name] = evaluation.summarize(pair_set, measurements)
            report["pairs"][pair_set.name] = [describe_pair(measurement) for measurement in measurements]
            if rows:
                report["ablation"][pair_set.name] = rows
    report["settings"]["peak memory (MB, with the measuring networks)"] = round(peak_memory_megabytes())
    return report


def main(arguments: list[str] | None = None) -> int:
    """Measures, prints and writes; 2 for a user's error."""
    args = build_parser().parse_args(arguments)
    try:
        report = evaluate(args)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(format_report(report) + "\n")
    if args.output:
        write_report(report, args.output)
    return 0


if __name__ == "__main__":
    sys.exit(main())
