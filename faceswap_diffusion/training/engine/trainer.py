"""The training of any network: its steps, and everything that happens between them."""

import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import cv2
import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, send_to_device
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm.auto import tqdm

from faceswap_diffusion.training.command_line import fixed_settings, save_config
from faceswap_diffusion.training.config import OptimizationConfig, TrainingConfig
from faceswap_diffusion.training.data.batches import StepBatches
from faceswap_diffusion.training.data.dataset import FacesSummary
from faceswap_diffusion.training.engine.history import History
from faceswap_diffusion.training.engine.interruption import StopSignal
from faceswap_diffusion.training.engine.states import TrainingParts, load_state, save_state
from faceswap_diffusion.training.engine.trainable import architecture_of

Config = TypeVar("Config", bound=TrainingConfig)


class DivergedError(RuntimeError):
    """The loss is no longer a number."""


@dataclass(frozen=True)
class Task:
    """What the trainer does not know of a network: what is trained, on what, towards what.

    Args:
        objective (`nn.Module`): Takes a batch on the device and the step, returns losses by name, of which `"loss"` is
            minimised. Everything that is trained is in it, and through it alone do gradients of processes become one.
        optimizer (`torch.optim.Optimizer`): Of parameters of `objective`. Its first group is the network, whose
            gradients are clipped and whose weights are averaged; others only help it.
        samples (`Dataset`): Sample number k of the run.
        validate (`Callable[[Trainer, int], None]`): Called with the averaged weights, in all processes: tells how good
            the network is by now, and writes it.
        collate (`Callable`): Makes a batch of samples.
        facts (`dict[str, Any]`): JSON values besides fixed settings that must not change between a stop and going on,
            fingerprints of data for one.
        faces ([`FacesSummary`], *optional*): What samples are made of; its fingerprint must not change, either.
    """

    objective: nn.Module
    optimizer: torch.optim.Optimizer
    samples: Dataset
    validate: Callable[["Trainer", int], None]
    collate: Callable[[list[Any]], Any] = default_collate
    facts: dict[str, Any] = field(default_factory=dict)
    faces: FacesSummary | None = None


def global_batch_size(config: OptimizationConfig, accelerator: Accelerator) -> int:
    """Samples of one step in all processes."""
    return config.train_batch_size * config.gradient_accumulation_steps * accelerator.num_processes


class Trainer(Generic[Config]):
    """A run, ready to take its steps.

    Args:
        config (`TrainingConfig`): Settings, and the script's own around them.
        accelerator (`Accelerator`): From `script.build_accelerator`.
        task ([`Task`]): What is trained.
    """

    def __init__(self, config: Config, accelerator: Accelerator, task: Task):
        self.config, self.accelerator, self.task = config, accelerator, task
        optimization = config.optimization
        self.global_batch_size = global_batch_size(optimization, accelerator)
        settings = {
            **fixed_settings(config),
            **task.facts,
            **({} if task.faces is None else {"faces": task.faces.fingerprint}),
            "global_batch_size": self.global_batch_size,
            "architecture": architecture_of(task.objective),
        }
        trained = {id(parameter) for parameter in task.optimizer.param_groups[0]["params"]}
        names = [name for name, parameter in task.objective.named_parameters() if id(parameter) in trained]
        self.rates = [(group["lr"], group["weight_decay"]) for group in task.optimizer.param_groups]
        self.model, self.optimizer = accelerator.prepare(task.objective, task.optimizer)
        # FSDP exchanges the objective's parameters: what stays is their names.
        parameters = dict(task.objective.named_parameters())
        self.averaged = [parameters[name] for name in names]
        self.lr_scheduler = get_scheduler(
            optimization.lr_scheduler,
            self.optimizer,
            num_warmup_steps=optimization.lr_warmup_steps,
            num_training_steps=optimization.max_train_steps,
        )
        self.ema = None
        if optimization.ema_decay:
            self.ema = EMAModel(self.averaged, optimization.ema_decay, use_ema_warmup=True, power=3 / 4)
        self.parts = TrainingParts(self.model, self.optimizer, self.lr_scheduler, self.ema, settings)
        self.history = History(config.output.output_dir)

    def train(self) -> int:
        """Takes all steps that are left, or those up to a request to stop.

        Returns:
            `int`: The number of steps that the run has taken by now.

        Raises:
            DivergedError: If the loss is no longer a number; the state before it is saved.
            StateNotSavedError: If a state cannot be written; the one before is kept.
            ValueError: If the run has already taken more steps than `max_train_steps`.
        """
        output, last_step = self.config.output, self.config.optimization.max_train_steps
        step = self.resume()
        progress = tqdm(
            total=last_step, initial=step, mininterval=5, disable=not self.accelerator.is_local_main_process
        )
        batches = iter(self.batches(step))
        with StopSignal() as stop:
            while step < last_step:
                started = time.perf_counter()
                losses, waited = self.take_step(step, batches)
                step += 1
                seconds = time.perf_counter() - started
                speed = {"images_per_second": self.global_batch_size / seconds, "data_share": waited / seconds}
                self.report(step, losses, speed, progress)
                last, stopping = step == last_step, stop.requested(self.accelerator)
                if last or step % output.validation_steps == 0:
                    self.validate(step)
                # Last, so that a run that is killed before does all of this again.
                if last or stopping or step % output.checkpointing_steps == 0:
                    self.save_state(step)
                if stopping:
                    break
        return step

    def resume(self) -> int:
        """Goes back to the newest state, if there is one; returns the number of steps taken by then."""
        folder, last_step = self.config.output.output_dir / "states", self.config.optimization.max_train_steps
        step = load_state(self.accelerator, folder, self.parts)
        if step > last_step:
            raise ValueError(
                f"{folder.parent} has taken {step} steps already, --max_train_steps {last_step} is less: give at "
                f"least {step}, or remove later states"
            )
        if step:
            self.renew_rates()
        if self.accelerator.is_main_process:
            self.history.truncate(step)
            save_config(self.config, self.config.output.output_dir)
        return step

    def renew_rates(self) -> None:
        """Puts learning rates, schedule and weight decay in force as they are set now, not as a state has them."""
        scheduler = self.lr_scheduler
        scheduler.base_lrs = [rate for rate, _ in self.rates]
        rates = [
            rate * factor(scheduler.last_epoch)
            for rate, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
        ]
        for group, (base, weight_decay), rate in zip(self.optimizer.param_groups, self.rates, rates, strict=True):
            group.update({"initial_lr": base, "weight_decay": weight_decay, "lr": rate})
        scheduler._last_lr = rates

    def batches(self, first_step: int) -> DataLoader:
        """What this process sees from a step on."""
        optimization, accelerator = self.config.optimization, self.accelerator
        return DataLoader(
            self.task.samples,
            batch_sampler=StepBatches(
                optimization.train_batch_size,
                first_step,
                optimization.max_train_steps,
                optimization.gradient_accumulation_steps,
                accelerator.process_index,
                accelerator.num_processes,
            ),
            collate_fn=self.task.collate,
            num_workers=optimization.dataloader_num_workers,
            pin_memory=accelerator.device.type == "cuda",
            worker_init_fn=begin_worker,
        )

    def take_step(self, step: int, batches: Iterator[Any]) -> tuple[dict[str, float], float]:
        """One step of the optimiser.

        Returns:
            `tuple[dict[str, float], float]`: Losses, means over the global batch, norm of the gradients and learning
            rate, and the seconds without data.
        """
        accelerator, num_accumulated = self.accelerator, self.config.optimization.gradient_accumulation_steps
        values: dict[str, float] = {}
        waited = 0.0
        for _ in range(num_accumulated):
            started = time.perf_counter()
            batch = send_to_device(next(batches), accelerator.device)
            waited += time.perf_counter() - started
            with accelerator.accumulate(self.model):
                with self.autocast():
                    losses = self.model(batch, step)
                for name, value in self.global_means(losses).items():
                    values[name] = values.get(name, 0.0) + value / num_accumulated
                if not math.isfinite(values["loss"]):
                    self.give_up(step, values)
                accelerator.backward(losses["loss"])
                if accelerator.sync_gradients:
                    values |= self.clip_gradients()
                self.optimizer.step()
                self.optimizer.zero_grad()
        values["learning_rate"] = float(self.lr_scheduler.get_last_lr()[0])
        self.lr_scheduler.step()
        if self.ema is not None:
            self.ema.step(self.averaged)
        return values, waited

    def clip_gradients(self) -> dict[str, float]:
        """Clips the gradients of the network; returns their norm before."""
        norm = self.accelerator.clip_grad_norm_(self.averaged, self.config.optimization.max_grad_norm)
        whole = norm.full_tensor() if isinstance(norm, DTensor) else torch.as_tensor(norm)
        return {"grad_norm": whole.item()}

    def autocast(self):
        """Mixed precision for the objective, which accelerate does not bring along with FSDP.

        There it must not remember weights in 16 bits: those of a pass without gradients would serve the next one, and
        it had no gradients either.
        """
        return self.accelerator.autocast(AutocastKwargs(cache_enabled=not self.accelerator.is_fsdp2))

    def global_means(self, losses: dict[str, torch.Tensor]) -> dict[str, float]:
        """Losses as numbers, means over all processes."""
        values = torch.stack([loss.detach().float() for loss in losses.values()])
        means = torch.as_tensor(self.accelerator.reduce(values, "mean"))
        return dict(zip(losses, means.tolist(), strict=True))

    def save_state(self, step: int) -> Path:
        """Saves the state of the run; returns its folder."""
        output = self.config.output
        return save_state(
            self.accelerator, output.output_dir / "states", step, self.parts, output.checkpoints_total_limit
        )

    def give_up(self, step: int, losses: dict[str, float]) -> None:
        """Saves the state before the loss became invalid, and stops."""
        folder = self.save_state(step)
        terms = ", ".join(f"{name} {value:g}" for name, value in losses.items())
        raise DivergedError(
            f"the loss is no longer a number in step {step + 1} ({terms}); the state before it is in {folder}: try a "
            "lower --learning_rate, or --mixed_precision bf16 in place of fp16"
        )

    def report(self, step: int, losses: dict[str, float], speed: dict[str, float], progress: tqdm) -> None:
        """Writes a step to history, trackers and progress bar.

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
        self.ema.store(self.averaged)
        self.ema.copy_to(self.averaged)
        yield
        self.ema.restore(self.averaged)

    def validate(self, step: int) -> None:
        """Measures the network and writes its weights, as they are by now."""
        with self.averaged_weights():
            self.task.validate(self, step)
        self.accelerator.wait_for_everyone()


def as_it_is(batch: Any) -> Any:
    """What samples that come as whole batches are collated with."""
    return batch


def begin_worker(worker_index: int) -> None:
    """Workers of the data loader share the cores with the networks, and leave signals to them.

    Ctrl-C and launchers ask whole groups of processes to stop. A worker that obeyed would take the last step
    away from the run, which ends its workers when it has saved.
    """
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if hasattr(os, "setpgrp"):  # not on Windows
        os.setpgrp()
