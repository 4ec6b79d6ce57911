"""Training of the small networks that label crops pixel by pixel: face parser and occlusion network."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from tqdm.auto import tqdm

from faceswap_diffusion.masks.segmentation import SegmentationUNet
from faceswap_diffusion.training.engine.states import TrainingParts, load_state, save_state


def train_segmentation(
    accelerator: Accelerator,
    network: SegmentationUNet,
    folder: Path,
    args: argparse.Namespace,
    settings: dict[str, Any],
    loss_of_step: Callable[[torch.nn.Module, int], torch.Tensor],
    measure: Callable[[bool], str],
) -> None:
    """Trains a network, going on from the last saved state, and saves it in half precision.

    Args:
        accelerator (`Accelerator`): Of the run.
        network ([`SegmentationUNet`]): Trained in place.
        folder (`Path`): Receives the finished network.
        args (`argparse.Namespace`): `output_dir`, `learning_rate`, `max_train_steps`, `checkpointing_steps`.
        settings (`dict[str, Any]`): What has to stay the same when the run goes on.
        loss_of_step (`Callable`): From the network and a step's number to its loss. What a step draws depends on its
            number alone, so that a run goes on as if it had not been stopped.
        measure (`Callable`): Measures the network, in evaluation mode; it is told whether the training is over, and
            returns what is printed.
    """
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters(), lr=args.learning_rate, weight_decay=1e-2)
    model, optimizer = accelerator.prepare(network, optimizer)
    lr_scheduler = get_scheduler("cosine", optimizer, num_warmup_steps=50, num_training_steps=args.max_train_steps)
    parts = TrainingParts(model, optimizer, lr_scheduler, None, settings)

    step = load_state(accelerator, args.output_dir / "states", parts)
    progress = tqdm(total=args.max_train_steps, initial=step, disable=not accelerator.is_main_process, mininterval=10)
    while step < args.max_train_steps:
        loss = loss_of_step(model, step)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        lr_scheduler.step()
        optimizer.zero_grad()
        step += 1
        progress.update()
        if step % args.checkpointing_steps == 0 or step == args.max_train_steps:
            save_state(accelerator, args.output_dir / "states", step, parts, total_limit=1)
            network.eval()
            figures = measure(step == args.max_train_steps)
            network.train()
            accelerator.print(f"step {step}: loss {loss.item():.4f}, held-out IoU {figures}", flush=True)

    if accelerator.is_main_process:
        network.half().save_pretrained(folder)
