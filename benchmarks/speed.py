"""Measures the seconds and the memory of a picture by precision, attention kernel, `torch.compile` and offload.

    python benchmarks/speed.py
    python benchmarks/speed.py --model full --cases float16 xformers compile

The pipeline alone, on aligned crops of noise: neither speed nor memory depends on what they show. Each case is
measured in a process of its own, so that peaks do not mix; what a machine cannot do is a row, too. The full-size
model has REFace's architecture with random weights. The machine should be idle: its load is printed.
"""

import argparse
import json
import multiprocessing
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import diffusers.utils.logging
import torch
import transformers.utils.logging

from faceswap_diffusion.conversion.reface import PUBLISHED, build_random_pipeline
from faceswap_diffusion.devices import DTYPES, available_cores, resolve_device, resolve_dtype
from faceswap_diffusion.evaluation.command import positive
from faceswap_diffusion.memory import peak_memory
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import load_pipeline
from faceswap_diffusion.versions import installed_versions
from faceswap_diffusion.weights.folders import checkpoint_folder

COMMAND = "python benchmarks/speed.py"
CASES = {
    **dict.fromkeys(DTYPES, "SDPA"),
    "xformers": "xformers",
    "channels_last": "SDPA, channels_last",
    "compile": "SDPA, UNet by torch.compile",
    "model_offload": "SDPA, model CPU offload",
    "sequential_offload": "SDPA, sequential CPU offload",
}
"""What is measured: a precision, or something else in the precision of `--dtype`."""

CUDA_CASES = ("xformers", "model_offload", "sequential_offload")
PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "xformers")


@dataclass(frozen=True)
class Settings:
    """What all cases share.

    Args:
        model (`str`): `"small"`, the model in the package; `"full"`, random weights; or a folder or Hub id.
        device (`str`): Where to compute.
        dtype (`str`): One of `DTYPES`, for cases that are none themselves.
        size (`int`): Side of the crops in pixels.
        num_inference_steps (`int`): Denoising steps.
        guidance_scale (`float`): Guidance is on above 1.
        num_images (`int`): That a call makes together.
        runs (`int`): Calls that are timed.
    """

    model: str
    device: str
    dtype: str
    size: int
    num_inference_steps: int
    guidance_scale: float
    num_images: int
    runs: int


@dataclass(frozen=True)
class Measured:
    """What came out.

    Args:
        seconds (`float`): For each picture: the median call, by the pictures that it makes.
        first_call (`float`): Seconds of the call before these, which compiles and warms up.
        peak_memory (`int`): Bytes, weights included; on CUDA what was allocated, else what the process grew by.
    """

    seconds: float
    first_call: float
    peak_memory: int


@dataclass(frozen=True)
class Row:
    """A case and what came of it.

    Args:
        case (`str`): One of `CASES`.
        dtype (`str`): One of `DTYPES`.
        outcome ([`Measured`] or `str`): A measurement, or why there is none.
    """

    case: str
    dtype: str
    outcome: Measured | str


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", help="small (in the package), full (random weights), or a checkpoint's folder or Hub id "
        "(default: full on CUDA, else small)")  # fmt: skip
    add("--cases", nargs="+", choices=CASES, default=list(CASES), metavar="CASE", help=f"of {', '.join(CASES)}")
    add("--device", help="cuda, mps or cpu (default: what is there)")
    add("--dtype", help="of xformers, compile and offload (default: float16 on CUDA, else float32)")
    add("--size", type=positive, metavar="PIXELS", help="of the crops (default: the model's)")
    add("--num_inference_steps", type=positive, metavar="N", help="(default: the model's)")
    add("--guidance_scale", type=float, metavar="SCALE", help="(default: the model's)")
    add("--num_images", type=positive, default=1, metavar="N", help="that a call makes together (default: 1)")
    add("--runs", type=positive, default=5, metavar="N", help="calls whose median is taken (default: 5)")
    add("--output", type=Path, metavar="JSON", help="write the figures, for benchmarks/render.py")
    return parser


def read_settings(args: argparse.Namespace) -> Settings:
    """Fills in what the command line leaves open.

    Raises:
        ValueError: If there is no such device, precision or checkpoint.
    """
    device = resolve_device(args.device)
    model = args.model or ("full" if device.type == "cuda" else "small")
    config = model_config(model)
    guidance_scale = config["default_guidance_scale"] if args.guidance_scale is None else args.guidance_scale
    return Settings(
        model=model,
        device=str(device),
        dtype=str(resolve_dtype(args.dtype, device)).removeprefix("torch."),
        size=args.size or config["crop_size"],
        num_inference_steps=args.num_inference_steps or config["default_num_inference_steps"],
        guidance_scale=guidance_scale,
        num_images=args.num_images,
        runs=args.runs,
    )


def model_config(model: str) -> dict[str, Any]:
    """The pipeline's settings, without its networks."""
    if model == "full":
        return PUBLISHED.pipeline
    folder = checkpoint_folder(None if model == "small" else model)
    return json.loads((folder / "model_index.json").read_text())


def case_dtype(case: str, settings: Settings) -> str:
    """The precision of a case."""
    return case if case in DTYPES else settings.dtype


def obstacle(case: str, device: torch.device) -> str | None:
    """Why a case cannot be measured on a device, `None` if nothing is known against it."""
    if case in CUDA_CASES and device.type != "cuda":
        return f"needs CUDA, and this is {device.type}"
    if case == "xformers" and find_spec("xformers") is None:
        return "xformers is not installed (pip install '.[xformers]')"
    return None


def build_pipeline(settings: Settings, case: str) -> FaceSwapInpaintPipeline:
    """Loads the model, or makes it up, and sets it up for a case."""
    device, dtype = torch.device(settings.device), DTYPES[case_dtype(case, settings)]
    offloaded = case.endswith("_offload")
    if settings.model == "full":
        torch.manual_seed(0)
        pipeline = build_random_pipeline(PUBLISHED, "cpu" if offloaded else device, dtype)
    else:
        pipeline = load_pipeline(None if settings.model == "small" else settings.model, dtype)
    pipeline.set_progress_bar_config(disable=True)
    if case == "model_offload":
        pipeline.enable_model_cpu_offload(device=device)
    elif case == "sequential_offload":
        pipeline.enable_sequential_cpu_offload(device=device)
    else:
        pipeline.to(device)
    if case == "xformers":
        pipeline.enable_xformers_memory_efficient_attention()
    if case == "channels_last":
        for network in (pipeline.unet, pipeline.vae):
            network.to(memory_format=torch.channels_last)
    if case == "compile":
        pipeline.unet.compile()
    return pipeline


def made_up_faces(size: int, pipeline: FaceSwapInpaintPipeline) -> dict[str, Any]:
    """A source and a target of noise, with a square to repaint: arguments of the pipeline."""
    num_landmarks = pipeline.conditioner.config["num_landmarks"]
    generator = torch.Generator().manual_seed(0)
    image, source_image = torch.rand(2, 1, 3, size, size, generator=generator)
    mask = torch.zeros(1, 1, size, size)
    mask[..., size // 4 : -size // 4, size // 4 : -size // 4] = 1
    reference = {"reference_image": source_image} if pipeline.config["hidden_fill"] == "reference" else {}
    return {
        **reference,  # as every swap has one, and starts from it
        "image": image,
        "source_image": source_image,
        "mask_image": mask,
        "source_mask_image": mask,
        "landmarks": torch.rand(1, num_landmarks, 2, generator=generator) * size,
    }


def time_call(pipeline: FaceSwapInpaintPipeline, settings: Settings, faces: dict[str, Any]) -> float:
    """Seconds until the pictures of a call are there: as PIL pictures, so that no device is still at work."""
    started = time.perf_counter()
    pipeline(
        **faces,
        height=settings.size,
        width=settings.size,
        num_inference_steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        num_images_per_prompt=settings.num_images,
        generator=torch.Generator().manual_seed(0),
        output_type="pil",
    )
    return time.perf_counter() - started


def measure(settings: Settings, case: str) -> Measured:
    """Measures a case in this process, which should have done nothing before."""
    device = torch.device(settings.device)
    memory_before = peak_memory(device)
    pipeline = build_pipeline(settings, case)
    faces = made_up_faces(settings.size, pipeline)
    first_call, *seconds = [time_call(pipeline, settings, faces) for _ in range(settings.runs + 1)]
    return Measured(
        seconds=statistics.median(seconds) / settings.num_images,
        first_call=first_call,
        peak_memory=peak_memory(device) - memory_before,
    )


def attempt(settings: Settings, case: str) -> Measured | str:
    """Measures a case, or says why it cannot be done here.

    Raises:
        ValueError: If the settings do not fit the model.
    """
    for library in (diffusers.utils.logging, transformers.utils.logging):
        library.set_verbosity_error()  # they advise against float16 on a CPU, which is measured here
        library.disable_progress_bar()
    try:
        return measure(settings, case)
    except ValueError:
        raise
    except torch.OutOfMemoryError:
        return "out of memory"
    except Exception as error:  # compilers and kernels fail in many ways, and not all of these errors can be pickled
        return first_line(error)


def first_line(error: Exception) -> str:
    """An error's kind and the first line of its text."""
    return ": ".join([type(error).__name__, *str(error).strip().splitlines()[:1]])


def measure_all(settings: Settings, cases: Sequence[str]) -> Iterator[Row]:
    """Measures each case in a process of its own.

    Args:
        settings ([`Settings`]): See there.
        cases (`Sequence[str]`): Of `CASES`.

    Yields:
        [`Row`]: As soon as it is there.

    Raises:
        ValueError: If the settings do not fit the model.
    """
    for case in cases:
        outcome = obstacle(case, torch.device(settings.device))
        if outcome is None:
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                try:
                    outcome = pool.submit(attempt, settings, case).result()
                except BrokenProcessPool:
                    outcome = "its process was killed, probably because memory ran out"
        yield Row(case, case_dtype(case, settings), outcome)


HEADER = """| what | dtype | seconds a picture | of the first | first call | peak memory | of the first |
| --- | --- | --- | --- | --- | --- | --- |"""


def row_text(row: Row, first: Measured | None) -> str:
    """A line of the table.

    Args:
        row ([`Row`]): To write.
        first ([`Measured`], *optional*): What ratios refer to; not needed for a row without a measurement.
    """
    cells = [CASES[row.case], row.dtype]
    if isinstance(row.outcome, str):
        cells += [f"not on this machine: {row.outcome}".replace("|", "/"), *[""] * 4]
    else:
        reference, measured = first or row.outcome, row.outcome
        cells += [f"{measured.seconds:.3g}", f"{measured.seconds / reference.seconds:.2f} x"]
        cells += [f"{measured.first_call:.3g} s", f"{measured.peak_memory / 1e9:.2f} GB"]
        cells += [f"{measured.peak_memory / reference.peak_memory:.2f} x"]
    return "| " + " | ".join(cells) + " |"


def table_lines(rows: Iterator[Row] | Sequence[Row]) -> Iterator[str]:
    """The table, line by line; ratios are to the first row that has a measurement."""
    yield HEADER
    first = None
    for row in rows:
        if first is None and isinstance(row.outcome, Measured):
            first = row.outcome
        yield row_text(row, first)


def kept(rows: Iterator[Row], into: list[Row]) -> Iterator[Row]:
    """The same rows, each of which is put into a list as it comes."""
    for row in rows:
        into.append(row)
        yield row


def rows_of(figures: dict[str, Any]) -> list[Row]:
    """The rows that `--output` wrote."""
    rows = []
    for row in figures["rows"]:
        outcome = row["outcome"]
        rows.append(Row(row["case"], row["dtype"], outcome if isinstance(outcome, str) else Measured(**outcome)))
    return rows


def describe_run(settings: Settings) -> str:
    """What the figures depend on."""
    device = torch.device(settings.device)
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} ({platform.machine()})"
    versions = installed_versions(PACKAGES)
    return "\n".join(
        [
            f"- {machine}; {available_cores()} cores, PyTorch's threads: {torch.get_num_threads()}, "
            f"load before: {os.getloadavg()[0]:.1f}",
            "- " + ", ".join(f"{name} {version}" for name, version in versions.items()),
            f"- model {settings.model} at {settings.size} px, num_inference_steps {settings.num_inference_steps}, "
            f"guidance_scale {settings.guidance_scale:g}, pictures a call: {settings.num_images}",
            f"- median of the calls after the first: {settings.runs}",
        ]
    )


def main(arguments: list[str] | None = None) -> int:
    """Measures and prints; 2 for a user's error."""
    arguments = sys.argv[1:] if arguments is None else arguments
    args = build_parser().parse_args(arguments)
    try:
        settings = read_settings(args)
        sys.stdout.write(f"    {shlex.join([*COMMAND.split(), *arguments])}\n\n{describe_run(settings)}\n\n")
        rows: list[Row] = []
        for line in table_lines(kept(measure_all(settings, args.cases), rows)):
            sys.stdout.write(line + "\n")
            sys.stdout.flush()
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    if args.output:
        figures = {
            "command": shlex.join([*COMMAND.split(), *arguments]),
            "run": describe_run(settings),
            "settings": asdict(settings),
            "rows": [asdict(row) for row in rows],
        }
        args.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
