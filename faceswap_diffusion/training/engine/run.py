# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# diffusers and accelerate annotate too loosely for the checker.
"""A training run: its steps, and everything that happens between them."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, ProjectConfiguration
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from jsonargparse import ArgumentParser, Namespace
from safetensors import SafetensorError
from torch import nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.training.data.batches import StepBatches, SwapSamples, TensorBatch
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from faceswap_diffusion.training.data.latents import CachedSamples
from faceswap_diffusion.training.engine.gathering import gather_pipeline
from faceswap_diffusion.training.engine.history import History, log_pictures
from faceswap_diffusion.training.engine.interruption import StopSignal
from faceswap_diffusion.training.engine.states import TrainingParts, load_state, save_state
from faceswap_diffusion.training.engine.trainable import architecture_of, build_optimizer
from faceswap_diffusion.training.engine.validation import choose_rows, validate

STAYING = ("seed", "max_train_steps", "lr_scheduler", "lr_warmup_steps", "ema_decay", "mixed_precision")
"""Arguments that must not change between a stop and going on, or the run would not be the same run."""


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


def build_accelerator(args: Namespace) -> Accelerator:
    """The accelerator of a run, see `arguments` for what it takes."""
    accelerator = Accelerator(
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with=None if args.report_to == "none" else args.report_to,
        project_config=ProjectConfiguration(
            project_dir=str(args.output_dir), logging_dir=str(args.output_dir / "logs")
        ),
    )
    if accelerator.is_fsdp2:
        # Autocast decides what is computed in 16 bits, as in one process; FSDP's own policy would round batches, too.
        accelerator.state.fsdp_plugin.mixed_precision_policy = None
    return accelerator


@contextmanager
def leaving_together(parser: ArgumentParser, accelerator: Accelerator) -> Iterator[None]:
    """What a script does in here ends in all processes at once; what goes wrong is one line and an exit code.

    What cannot work (`ValueError`) has exit code 2, what went wrong on the way 1.

    Args:
        parser (`ArgumentParser`): Of the script.
        accelerator (`Accelerator`): Of its run.
    """
    try:
        yield
        accelerator.wait_for_everyone()  # or the first to leave takes the connection with it
        accelerator.end_training()
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except (DivergedError, OSError, SafetensorError) as error:  # a full disk has many faces
        parser.exit(1, f"{parser.prog}: {error}\n")


def global_batch_size(args: Namespace, accelerator: Accelerator) -> int:
    """Samples of one step in all processes."""
    return args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes


def prepare_networks(args: Namespace, accelerator: Accelerator, pipeline: FaceSwapInpaintPipeline) -> None:
    """Brings frozen networks to the device, and makes the settings that change how is computed and not what.

    Args:
        args (`Namespace`): See `arguments`.
        accelerator (`Accelerator`): Of the run.
        pipeline (`FaceSwapInpaintPipeline`): Changed in place.
    """
    pipeline.vae.to(accelerator.device)
    pipeline.image_encoder.to(accelerator.device)
    pipeline.set_progress_bar_config(disable=True)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = args.allow_tf32
    if args.gradient_checkpointing:
        pipeline.unet.enable_gradient_checkpointing()
        pipeline.vae.enable_gradient_checkpointing()  # losses that look at pictures pass through its decoder
    if args.enable_xformers_memory_efficient_attention:
        pipeline.unet.enable_xformers_memory_efficient_attention()
    if args.torch_compile:
        pipeline.unet.compile()


def load_validation(args: Namespace, pipeline: FaceSwapInpaintPipeline) -> tuple[list[FaceRecord], Sequence[str]]:
    """The faces that validation swaps are made of, and what their labels mean; none where no folder is given."""
    if not args.validation_data_dir:
        return [], ()
    faces = PreparedFaces(args.validation_data_dir, pipeline.config["crop_size"])
    return [faces[row] for row in choose_rows(faces.identities, args.num_validation)], faces.label_names


class Run:
    """A run, ready to take its steps.

    Args:
        args (`Namespace`): See `arguments`.
        accelerator (`Accelerator`): From `build_accelerator`.
        pipeline (`FaceSwapInpaintPipeline`): Validated with the weights trained so far.
        objective (`nn.Module`): Takes a batch and the step, returns losses by name, of which `"loss"` is minimised.
            Everything that is trained is in it.
        groups (`list[dict[str, Any]]`): Parameter groups of the optimiser. The first is the model, whose gradients are
            clipped and whose weights are averaged; others only help it.
        samples (`SwapSamples` or `CachedSamples`): What it is trained on.
        staying (`dict[str, Any]`): Settings besides `STAYING` that must not change between a stop and going on.
        save_weights (`Callable[[FaceSwapInpaintPipeline], None]`): Writes what was trained of the pipeline that it is
            given; called in the main process.
    """

    def __init__(
        self,
        args: Namespace,
        accelerator: Accelerator,
        pipeline: FaceSwapInpaintPipeline,
        objective: nn.Module,
        groups: list[dict[str, Any]],
        samples: SwapSamples | CachedSamples,
        staying: dict[str, Any],
        save_weights: Callable[[FaceSwapInpaintPipeline], None],
    ):
        self.args, self.accelerator, self.pipeline, self.samples = args, accelerator, pipeline, samples
        self.save_weights = save_weights
        self.validation_faces, self.label_names = load_validation(args, pipeline)
        self.global_batch_size = global_batch_size(args, accelerator)
        settings = {
            **{name: getattr(args, name) for name in STAYING},
            **staying,
            "global_batch_size": self.global_batch_size,
            "faces": samples.summary.fingerprint,
            "architecture": architecture_of(objective),
        }
        optimizer = build_optimizer(groups, args.weight_decay, args.use_8bit_adam)
        painted = {id(parameter) for parameter in groups[0]["params"]}
        names = [name for name, parameter in objective.named_parameters() if id(parameter) in painted]
        self.model, self.optimizer = accelerator.prepare(objective, optimizer)
        # FSDP exchanges the objective's parameters: what stays is their names.
        parameters = dict(objective.named_parameters())
        self.painted = [parameters[name] for name in names]
        self.lr_scheduler = get_scheduler(
            args.lr_scheduler,
            self.optimizer,
            num_warmup_steps=args.lr_warmup_steps,
            num_training_steps=args.max_train_steps,
        )
        self.ema = EMAModel(self.painted, args.ema_decay, use_ema_warmup=True, power=3 / 4) if args.ema_decay else None
        self.parts = TrainingParts(self.model, self.optimizer, self.lr_scheduler, self.ema, settings)
        self.history = History(args.output_dir)

    def train(self) -> int:
        """Takes all steps that are left, or as many as there are before somebody asks to stop.

        Returns:
            `int`: The number of steps that the run has taken by now.

        Raises:
            DivergedError: If the loss is no longer a number; the state before it is saved.
            StateNotSavedError: If a state cannot be written; the one before is kept.
        """
        args, accelerator = self.args, self.accelerator
        step = load_state(accelerator, args.output_dir / "states", self.parts)
        if accelerator.is_main_process:
            self.history.truncate(step)
        progress = tqdm(
            total=args.max_train_steps, initial=step, mininterval=5, disable=not accelerator.is_local_main_process
        )
        batches = iter(self.batches(step))
        with StopSignal() as stop:
            while step < args.max_train_steps:
                started = time.perf_counter()
                losses, waited = self.take_step(step, batches)
                step += 1
                seconds = time.perf_counter() - started
                speed = {"images_per_second": self.global_batch_size / seconds, "data_share": waited / seconds}
                self.report(step, losses, speed, progress)
                last, stopping = step == args.max_train_steps, stop.requested(accelerator)
                if last or step % args.validation_steps == 0:
                    self.show(step)
                # Last, so that a run that is killed before does all of this again.
                if last or stopping or step % args.checkpointing_steps == 0:
                    self.save_state(step)
                if stopping:
                    break
        return step

    def batches(self, first_step: int) -> DataLoader:
        """What this process sees from a step on."""
        args, accelerator = self.args, self.accelerator
        return DataLoader(
            self.samples,
            batch_sampler=StepBatches(
                args.train_batch_size,
                first_step,
                args.max_train_steps,
                args.gradient_accumulation_steps,
                accelerator.process_index,
                accelerator.num_processes,
            ),
            collate_fn=self.samples.collate,
            num_workers=args.dataloader_num_workers,
            pin_memory=accelerator.device.type == "cuda",
            worker_init_fn=begin_worker,
        )

    def take_step(self, step: int, batches: Iterator[TensorBatch]) -> tuple[dict[str, float], float]:
        """One step of the optimiser.

        Returns:
            `tuple[dict[str, float], float]`: The losses, means over the global batch, and the seconds without data.
        """
        args, accelerator = self.args, self.accelerator
        totals: dict[str, float] = {}
        waited = 0.0
        for _ in range(args.gradient_accumulation_steps):
            started = time.perf_counter()
            batch = next(batches).to(accelerator.device)
            waited += time.perf_counter() - started
            with accelerator.accumulate(self.model):
                with self.autocast():
                    losses = self.model(batch, step)
                for name, value in self.global_means(losses).items():
                    totals[name] = totals.get(name, 0.0) + value / args.gradient_accumulation_steps
                if not math.isfinite(totals["loss"]):
                    self.give_up(step, totals)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.painted, args.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
        totals["learning_rate"] = self.lr_scheduler.get_last_lr()[0]
        self.lr_scheduler.step()
        if self.ema is not None:
            self.ema.step(self.painted)
        return totals, waited

    def autocast(self):
        """Mixed precision for the objective, which accelerate does not bring along with FSDP.

        There it must not remember weights in 16 bits: those of a pass without gradients would serve the next one, and
        it had no gradients either.
        """
        return self.accelerator.autocast(AutocastKwargs(cache_enabled=not self.accelerator.is_fsdp2))

    def global_means(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        """Losses as numbers, means over all processes."""
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        return dict(zip(losses, self.accelerator.reduce(values, "mean").tolist(), strict=True))

    def save_state(self, step: int) -> Path:
        """Saves what is needed to go on; returns where."""
        limit = self.args.checkpoints_total_limit
        return save_state(self.accelerator, self.args.output_dir / "states", step, self.parts, limit)

    def give_up(self, step: int, losses: dict[str, float]) -> None:
        """Saves what was there before the loss went wrong, and stops."""
        folder = self.save_state(step)
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise DivergedError(
            f"the loss is no longer a number in step {step + 1} ({terms}); the state before it is in {folder}: try a "
            "lower --learning_rate, or --mixed_precision bf16 in place of fp16"
        )

    def report(self, step: int, losses: dict[str, float], speed: dict[str, float], progress: tqdm) -> None:
        """Tells history, trackers and progress bar of a step.

        Speed has a file of its own: the history of a run that was interrupted is that of one that was not.
        """
        if self.accelerator.is_main_process:
            self.history.add(step, losses)
            self.history.add_speed(step, speed)
        self.accelerator.log({**losses, **speed}, step=step)
        shown = {"loss": losses["loss"], **speed}
        progress.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)
        progress.update()

    @contextmanager
    def averaged_weights(self):
        """Puts the running average of the weights into the networks for a while."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.painted)
        self.ema.copy_to(self.painted)
        yield
        self.ema.restore(self.painted)

    def show(self, step: int) -> None:
        """Validates and writes the weights as they are by now."""
        with self.averaged_weights():
            if self.validation_faces:
                self.validate(step)
            whole = gather_pipeline(self.accelerator, self.model, self.pipeline)
            if self.accelerator.is_main_process:
                self.save_weights(whole)
        self.accelerator.wait_for_everyone()

    def validate(self, step: int) -> None:
        """Swaps among the validation faces, by all processes alike: their networks may be divided among them."""
        result = validate(self.pipeline, self.validation_faces, self.label_names, seed=self.args.seed)
        self.accelerator.log(result.values, step=step)
        if not self.accelerator.is_main_process:
            return
        self.history.add(step, result.values)
        folder = self.args.output_dir / "validation"
        folder.mkdir(parents=True, exist_ok=True)
        save_image(result.picture, folder / f"step_{step:06}.png", provenance={"step": step})
        curves = self.history.plot(self.args.output_dir / "curves.png")
        log_pictures(self.accelerator, step, {"swaps": result.picture, "curves": curves})
        described = ", ".join(f"{name} {value:.3f}" for name, value in result.values.items())
        tqdm.write(f"step {step}: {described}")


def begin_worker(worker_index: int) -> None:
    """Workers of the data loader share the cores with the networks, and leave signals to them.

    Ctrl-C and launchers ask whole groups of processes to stop. A worker that did so by itself would take the last step
    away from the run, which ends its workers when it has saved.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()
