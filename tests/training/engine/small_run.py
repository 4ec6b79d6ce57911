"""A training run of a second, as a program: FOLDER STEPS [options].

It goes on from the newest state in FOLDER, takes steps until STEPS, and saves after every one.
"""

import argparse
import gc
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState, GradientState, PartialState
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch import nn
from torch.distributed.fsdp import fully_shard

from faceswap_diffusion.training.engine.interruption import StopSignal
from faceswap_diffusion.training.engine.states import StateNotSavedError, TrainingParts, load_state, save_state
from faceswap_diffusion.training.objectives.discriminator import PatchDiscriminator
from tests import processes
from tests.processes import Program

GLOBAL_BATCH = 4


def start(*arguments: object) -> Program:
    """This program in a process of its own."""
    return processes.start(main, [*map(str, arguments)])


def start_two(*arguments: object, **variables: str) -> list[Program]:
    """This program in two processes of one run."""
    return processes.start_two(main, [*map(str, arguments)], **variables)


def fresh_accelerator() -> Accelerator:
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    PartialState._reset_state()
    # The discriminator has no gradients in the first steps.
    return Accelerator(cpu=True, kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)])


class SmallModel(nn.Module):
    """A generator in channels_last, a discriminator with spectral norms, and a frozen part."""

    def __init__(self):
        super().__init__()
        self.frozen = nn.Conv2d(3, 3, 1).requires_grad_(False)
        self.generator = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 3, padding=1))
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.discriminator = PatchDiscriminator(channels=4, num_halvings=1)

    def forward(self, images: torch.Tensor, judged: bool) -> torch.Tensor:
        generated = self.generator(self.frozen(images))
        loss = (generated - images).square().mean()
        return loss - self.discriminator(generated).mean() if judged else loss


def build_parts(accelerator: Accelerator, sharded: bool = False, **settings: Any) -> TrainingParts:
    torch.manual_seed(0)
    model = SmallModel()
    if sharded:
        model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload] - FSDP takes no other
        fully_shard(model)
    groups = [
        {"params": list(model.generator.parameters()), "lr": 1e-2, "betas": (0.9, 0.99)},
        {"params": list(model.discriminator.parameters()), "lr": 1e-3, "betas": (0.5, 0.99), "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=not sharded)
    generated = list(model.generator.parameters())
    if sharded:
        optimizer = accelerator.prepare(optimizer)
    else:
        model, optimizer = accelerator.prepare(model, optimizer)
    lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=12)
    ema = EMAModel(generated, decay=0.99, use_ema_warmup=True, power=3 / 4)
    return TrainingParts(model, optimizer, lr_scheduler, ema, {"seed": 0, **settings})


def take_step(accelerator: Accelerator, parts: TrainingParts, step: int) -> None:
    """The discriminator plays no part before the third step, so that Adam knows nothing of it until then."""
    images = torch.randn(GLOBAL_BATCH, 3, 8, 8, generator=torch.Generator().manual_seed(step))
    share = images.chunk(accelerator.num_processes)[accelerator.process_index]
    accelerator.backward(parts.model(share, judged=step >= 2))
    parts.optimizer.step()
    parts.lr_scheduler.step()
    parts.optimizer.zero_grad()
    assert parts.ema is not None
    parts.ema.step(accelerator.unwrap_model(parts.model).generator.parameters())


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("steps", type=int)
    parser.add_argument("--sharded", action="store_true")
    parser.add_argument("--file_size", type=int, help="bytes that a file may have at most")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds that a step takes longer")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if args.file_size:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.file_size, args.file_size))
    accelerator = fresh_accelerator()
    parts = build_parts(accelerator, args.sharded)
    try:
        step = load_state(accelerator, args.folder, parts)
        with StopSignal() as stop:
            while step < args.steps:
                take_step(accelerator, parts, step)
                time.sleep(args.pause)
                step += 1
                accelerator.print(f"step {step}", flush=True)
                stopping = stop.requested(accelerator)
                save_state(accelerator, args.folder, step, parts, total_limit=2)
                if stopping:
                    accelerator.print(f"stopped after {step}", flush=True)
                    break
    except (StateNotSavedError, ValueError) as error:
        sys.exit(f"{type(error).__name__}: {error}")
    accelerator.wait_for_everyone()
    del parts  # FSDP holds on to gloo, whose threads do not bear to be there at the very end
    gc.collect()
    accelerator.end_training()
