"""Measures what a step of training takes: pictures a second, peak memory, and how long it waits for data.

    python benchmarks/training.py
    python benchmarks/training.py --count

Three steps are compared: samples denoised once (plain); a quarter of them rolled out instead, with the identity loss
on the last prediction; the same with gradients through all of its denoising steps. Each without and with gradient
checkpointing, and each in a process of its own, so that peaks do not mix. The small model is the one in the package;
the full-size one has REFace's architecture with random weights and is measured on an accelerator only.

Faces come from --train_data_dir, or are made up: speed and memory do not depend on what they show.

--count measures nothing: it counts the memory of both models by parameters and kept activations, without weights.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pyarrow as pa
import torch
from accelerate import Accelerator
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt
from torch.utils.data import DataLoader

from faceswap_diffusion.conversion.reface import PUBLISHED, build_empty_pipeline, build_random_pipeline
from faceswap_diffusion.faces.surface import face_surface
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.memory import peak_memory
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import load_pipeline
from faceswap_diffusion.training.command_line import build_parser
from faceswap_diffusion.training.config import LossConfig, ReferenceConfig, SampleConfig
from faceswap_diffusion.training.data.batches import SampleRoles, StepBatches, SwapBatch, SwapSamples
from faceswap_diffusion.training.data.dataset import DESCRIPTION, MEASUREMENTS, SCHEMA, PreparedFaces
from faceswap_diffusion.training.data.references import TrainingReferences
from faceswap_diffusion.training.engine.memory import count_activations, count_memory, count_parameters
from faceswap_diffusion.training.engine.trainable import build_optimizer, select_trainable, trained_parameters
from faceswap_diffusion.training.engine.trainer import begin_worker
from faceswap_diffusion.training.objectives.objective import SwapObjective
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT

CROSS_SHARE = 0.25
STEPS: dict[str, tuple[float, int | None]] = {
    "plain": (0.0, 1), "+ identity": (CROSS_SHARE, 1), "+ all steps": (CROSS_SHARE, None),
}  # fmt: skip
"""Share of rolled out samples and denoising steps with gradients, by name."""

BATCH_SIZES = {"small": 16, "full": 4}
PLANS: dict[str, tuple[str, dict[str, Any]]] = {
    "1 GPU": ("full", {}),
    "1 GPU, 8-bit Adam": ("full", {"use_8bit_adam": True}),
    "1 GPU, attention": ("attention", {}),
    "1 GPU, LoRA": ("lora", {}),
    "8 GPUs, DDP": ("full", {"strategy": "ddp"}),
    "8 GPUs, FSDP": ("full", {"strategy": "fsdp", "num_gpus": 8}),
}
"""What is trained, and arguments of `count_memory`, by name."""


@dataclass(frozen=True)
class Case:
    """One row of the table: what is measured."""

    model: str
    step: str
    checkpointing: bool


@dataclass(frozen=True)
class Measured:
    """What came out.

    Args:
        images_per_second (`float`): Of a whole step, the optimiser's part included: the median.
        peak_memory (`int`): Bytes; on an accelerator what was allocated, else what the process grew by.
        data_share (`float`): Part of the time in which the step waited for data.
    """

    images_per_second: float
    peak_memory: int
    data_share: float


@dataclass(frozen=True)
class Row:
    """A case and its measurement; none where memory did not suffice."""

    case: Case
    measured: Measured | None


def benchmark_parser() -> ArgumentParser:
    parser = build_parser("training.py", __doc__)
    parser.add_argument("--count", action="store_true", help="count memory instead of measuring anything")
    parser.add_argument("--models", type=Literal["small", "full"], nargs="+", default=["small", "full"])
    parser.add_argument(
        "--pretrained_model_name_or_path", type=str, default=str(EMBEDDED_CHECKPOINT), help="the small model"
    )
    parser.add_argument("--train_data_dir", type=str, nargs="+", help="folders of prepare_faces.py; or made up faces")
    parser.add_argument("--train_batch_size", type=PositiveInt, help="16 for the small model, 4 for the other")
    parser.add_argument("--num_steps", type=PositiveInt, default=10, help="that are timed")
    parser.add_argument("--num_warmup_steps", type=NonNegativeInt, default=3)
    parser.add_argument("--num_rollout_steps", type=PositiveInt, default=4)
    parser.add_argument("--mixed_precision", type=Literal["no", "fp16", "bf16"], default="no")
    parser.add_argument("--dataloader_num_workers", type=NonNegativeInt, default=2)
    parser.add_argument("--output_file", type=Path, help="receives the rows as JSON")
    return parser


def crop_size(args: Namespace, model: str) -> int:
    if model == "full":
        return PUBLISHED.pipeline["crop_size"]
    return load_pipeline(args.pretrained_model_name_or_path).config["crop_size"]


@contextmanager
def prepared_faces(args: Namespace, resolution: int) -> Iterator[list[str]]:
    """The folders of `--train_data_dir`, or a temporary one of made-up faces."""
    if args.train_data_dir:
        yield args.train_data_dir
        return
    with tempfile.TemporaryDirectory() as folder:
        write_made_up_faces(Path(folder), resolution)
        yield [folder]


def write_made_up_faces(folder: Path, resolution: int, count: int = 32) -> None:
    """A prepared folder with a disc for a face: as much to decode, warp and augment as in a real one."""
    random = np.random.default_rng(0)
    rows = []
    for number in range(count):
        small = random.integers(0, 256, (resolution // 8, resolution // 8, 3), np.uint8)
        from_middle = face_surface().uv - 0.5
        labels = np.zeros((resolution, resolution), np.uint8)
        center = (resolution // 2, resolution // 2)
        cv2.circle(labels, center, int(resolution * 0.35), LABELS.index("skin"), thickness=-1)
        measured = {name: random.normal(size=shape).astype(np.float32) for name, shape in MEASUREMENTS.items()}
        measured["landmarks"] = (resolution * (0.5 + 0.7 * from_middle)).astype(np.float32)
        measured["depth"] = (resolution * (from_middle**2).sum(axis=1)).astype(np.float32)
        rows.append(
            {
                "name": str(number),
                "identity": str(number),
                "image": encode(cv2.resize(small, (resolution, resolution), interpolation=cv2.INTER_CUBIC)),
                "labels": encode(labels),
                **{name: values.ravel() for name, values in measured.items()},
            }
        )
    with pa.OSFile(str(folder / "shard-00000.arrow"), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, SCHEMA))
    described = {
        "resolution": resolution, "label_names": LABELS, "identity_network": "sface", "num_faces": count,
    }  # fmt: skip
    (folder / DESCRIPTION).write_text(json.dumps(described))


def encode(pixels: np.ndarray) -> bytes:
    return cv2.imencode(".png", pixels)[1].tobytes()


def build_samples(folders: list[str], pipeline: FaceSwapInpaintPipeline, step: str, batch_size: int) -> SwapSamples:
    roles = SampleRoles.from_shares(STEPS[step][0], 0.0)
    roles.check(batch_size, batch_size)
    faces = PreparedFaces(folders, pipeline.config["crop_size"])
    drawn = TrainingReferences(faces, ReferenceConfig()) if pipeline.config["hidden_fill"] == "reference" else None
    return SwapSamples(faces, SampleConfig(mask_sets=("face",)), roles, batch_size, references=drawn)


def build_objective(
    args: Namespace, case: Case, roles: SampleRoles, pipeline: FaceSwapInpaintPipeline, identity_network: str
) -> SwapObjective:
    select_trainable(pipeline, "full")
    if case.checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.vae.enable_gradient_checkpointing()
    settings = LossConfig(
        num_rollout_steps=(args.num_rollout_steps,),
        rollout_depth="full",
        num_gradient_steps=STEPS[case.step][1],
        rollout_checkpointing=case.checkpointing,
        coarse_weight=0.0,
        adversarial_weight=0.0,
    )
    return SwapObjective(pipeline, settings, roles, identity_network)


def measure(args: Namespace, case: Case, folders: list[str]) -> Measured | None:
    """Measures a case in this process, which has done nothing before."""
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    device, batch_size = accelerator.device, args.train_batch_size or BATCH_SIZES[case.model]
    memory_before = peak_memory(device)
    if case.model == "full":
        pipeline = build_random_pipeline(PUBLISHED, device)
    else:
        pipeline = load_pipeline(args.pretrained_model_name_or_path).to(device)
    samples = build_samples(folders, pipeline, case.step, batch_size)
    roles, network = samples.roles, samples.faces.identity_network
    objective = build_objective(args, case, roles, pipeline, network)
    optimizer = build_optimizer([{"params": trained_parameters(objective), "lr": 1e-6}], 0.01, use_8bit_adam=False)
    model, optimizer = accelerator.prepare(objective, optimizer)
    num_steps = args.num_warmup_steps + args.num_steps
    batches = DataLoader(
        samples,
        batch_sampler=StepBatches(batch_size, 0, num_steps),
        collate_fn=samples.collate,
        num_workers=args.dataloader_num_workers,
        worker_init_fn=begin_worker,
    )
    iterator = iter(batches)
    try:
        times = [take_step(step, accelerator, model, optimizer, iterator) for step in range(num_steps)]
    except torch.OutOfMemoryError:
        return None
    timed = np.array(times[args.num_warmup_steps :])
    return Measured(
        images_per_second=batch_size / float(np.median(timed[:, 0])),
        peak_memory=peak_memory(device) - memory_before,
        data_share=float(timed[:, 1].sum() / timed[:, 0].sum()),
    )


def take_step(
    step: int, accelerator: Accelerator, model: Any, optimizer: Any, batches: Iterator[SwapBatch]
) -> tuple[float, float]:
    """Seconds of a step, and how many of them passed without data."""
    started = now()
    batch = next(batches).to(accelerator.device)
    arrived = now()
    accelerator.backward(model(batch, step)["loss"])
    optimizer.step()
    optimizer.zero_grad()
    return now() - started, arrived - started


def now() -> float:
    """Seconds on a clock that waits for the accelerator."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def measure_all(args: Namespace, model: str) -> list[Row]:
    """All rows of a model, each measured in a process of its own."""
    rows = []
    with prepared_faces(args, crop_size(args, model)) as folders:
        for step in STEPS:
            for checkpointing in (False, True):
                case = Case(model, step, checkpointing)
                with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                    rows.append(Row(case, pool.submit(measure, args, case, folders).result()))
                print(row_text(rows[-1], rows[0]), flush=True)
    return rows


HEADER = """| model | step | checkpointing | images/s | of the first | peak memory | of the first | waiting for data |
| --- | --- | --- | --- | --- | --- | --- | --- |"""


def row_text(row: Row, first: Row) -> str:
    case, measured, reference = row.case, row.measured, first.measured
    cells = [case.model, case.step, "yes" if case.checkpointing else "no"]
    if measured is None:
        return "| " + " | ".join([*cells, "out of memory", *[""] * 4]) + " |"
    cells.append(f"{measured.images_per_second:.2f}")
    cells.append(f"{measured.images_per_second / reference.images_per_second:.2f} x" if reference else "")
    cells.append(f"{measured.peak_memory / 1e9:.2f} GB")
    cells.append(f"{measured.peak_memory / reference.peak_memory:.2f} x" if reference else "")
    cells.append(f"{measured.data_share:.1%}")
    return "| " + " | ".join(cells) + " |"


def load_counted(args: Namespace, model: str) -> FaceSwapInpaintPipeline:
    """A model on the meta device."""
    if model == "full":
        return build_empty_pipeline(PUBLISHED)
    return load_pipeline(args.pretrained_model_name_or_path).to("meta")


def print_counts(args: Namespace) -> None:
    """Prints both tables of counted memory."""
    print("GB on each GPU that do not depend on the batch, float32\n")
    print("| model | how | weights | gradients | optimizer | running average | exchange | sum |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in args.models:
        for name, (mode, arguments) in PLANS.items():
            pipeline = load_counted(args, model)
            select_trainable(pipeline, mode)
            parts = count_memory(count_parameters(pipeline), **arguments)
            sizes = [*parts.values(), sum(parts.values())]
            print(f"| {model} | {name} | " + " | ".join(f"{size / 1e9:.2f}" for size in sizes) + " |")
    print("\nGB for each sample, float32\n")
    print("| model | a pass through the UNet | with checkpointing | decoding to a picture | with checkpointing |")
    print("| --- | --- | --- | --- | --- |")
    for model in args.models:
        kept = asdict(count_activations(load_counted(args, model)))
        print(f"| {model} | " + " | ".join(f"{size / 1e9:.3f}" for size in kept.values()) + " |")


def main(arguments: list[str] | None = None) -> None:
    parser = benchmark_parser()
    args = parser.parse_args(arguments)
    if args.count:
        print_counts(args)
        return
    rows = []
    print(HEADER)
    try:
        for model in args.models:
            if model == "full" and not torch.cuda.is_available():
                print("full: skipped, it is measured on an accelerator only; --count counts its memory")
                continue
            rows += measure_all(args, model)
    except ValueError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        sys.exit(2)
    if args.output_file:
        device = (
            torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
        )
        described = {"device": device, "torch": torch.__version__, "rows": [asdict(row) for row in rows]}
        args.output_file.write_text(json.dumps(described, indent=2))


if __name__ == "__main__":
    main()
