# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# accelerate annotates too loosely for the checker.
"""The run of a small network that becomes part of a swap model: it has one loss and shows what it can do."""

from collections.abc import Callable, Sequence
from typing import Any

from accelerate import Accelerator
from accelerate.utils import send_to_device, set_seed
from diffusers.optimization import get_scheduler
from jsonargparse import ArgumentParser, Namespace
from torch import nn
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from faceswap_diffusion.training.data.batches import StepBatches
from faceswap_diffusion.training.engine.interruption import StopSignal
from faceswap_diffusion.training.engine.run import begin_worker, leaving_together
from faceswap_diffusion.training.engine.states import TrainingParts, load_state, save_state
from faceswap_diffusion.training.engine.trainable import architecture_of, build_optimizer

STAYING = ("seed", "max_train_steps", "learning_rate", "mixed_precision")


def hold_out(count: int, num_validation: int) -> tuple[list[int], list[int]]:
    """Divides rows into those to train on and those held out, which lie evenly among them.

    Args:
        count (`int`): Number of rows.
        num_validation (`int`): How many to hold out.

    Raises:
        ValueError: If none is left to train on.
    """
    if num_validation >= count:
        raise ValueError(f"{count} faces are too few to hold out {num_validation}: lower --num_validation")
    stride = count // num_validation
    held_out = range(0, stride * num_validation, stride)
    return [row for row in range(count) if row not in held_out], list(held_out)


def take_steps(
    args: Namespace,
    accelerator: Accelerator,
    objective: nn.Module,
    groups: list[dict[str, Any]],
    num_warmup_steps: int,
    weight_decay: float,
    samples: Dataset,
    staying: dict[str, Any],
    show: Callable[[int, float], None],
) -> None:
    """Takes all steps that are left.

    Args:
        args (`Namespace`): See `arguments.add_small_run_arguments`.
        accelerator (`Accelerator`): Of the run.
        objective (`nn.Module`): Takes the tensors of a batch by their names and returns the loss. All that is trained
            is in it, and through it alone do gradients of several processes become one.
        groups (`list[dict[str, Any]]`): Parameter groups of the optimiser; the gradients of the first are clipped.
        num_warmup_steps (`int`): Steps in which the learning rate rises; then it falls as a cosine does.
        weight_decay (`float`): Of groups that name none.
        samples (`Dataset`): Sample number k of the run, tensors by name.
        staying (`dict[str, Any]`): Settings besides `STAYING` that must not change between a stop and going on.
        show (`Callable[[int, float], None]`): Called with step and loss before a state is saved, in the main process:
            tells how good the network is by now, and writes it.

    Raises:
        ValueError: If there is a state of another run.
        StateNotSavedError: If a state cannot be written; the one before is kept.
    """
    settings = {
        **{name: getattr(args, name) for name in STAYING},
        **staying,
        "global_batch_size": args.train_batch_size * accelerator.num_processes,
        "architecture": architecture_of(objective),
    }
    model, optimizer = accelerator.prepare(objective, build_optimizer(groups, weight_decay, use_8bit_adam=False))
    lr_scheduler = get_scheduler(
        "cosine", optimizer, num_warmup_steps=num_warmup_steps, num_training_steps=args.max_train_steps
    )
    parts = TrainingParts(model, optimizer, lr_scheduler, None, settings)
    states = args.output_dir / "states"
    step = load_state(accelerator, states, parts)
    rank, num_processes = accelerator.process_index, accelerator.num_processes
    loader = DataLoader(
        samples,
        batch_sampler=StepBatches(args.train_batch_size, step, args.max_train_steps, 1, rank, num_processes),
        num_workers=args.dataloader_num_workers,
        worker_init_fn=begin_worker,
    )
    progress = tqdm(total=args.max_train_steps, initial=step, disable=not accelerator.is_main_process, mininterval=10)
    with StopSignal() as stop:
        for batch in loader:
            loss = model(**send_to_device(batch, accelerator.device))
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
            optimizer.step()
            lr_scheduler.step()
            optimizer.zero_grad()
            step += 1
            progress.update()
            last, stopping = step == args.max_train_steps, stop.requested(accelerator)
            if last or stopping or step % args.checkpointing_steps == 0:
                if accelerator.is_main_process:
                    show(step, loss.item())
                # Last, so that a run that is killed before does all of this again.
                save_state(accelerator, states, step, parts, total_limit=1)
            if stopping:
                break


def run_small_script(
    parser: ArgumentParser, arguments: Sequence[str] | None, train: Callable[[Namespace, Accelerator], None]
) -> None:
    """Runs a training script; see `leaving_together` for how it ends.

    Args:
        parser (`ArgumentParser`): Of the script.
        arguments (`Sequence[str]`, *optional*): Those of the process if left out.
        train (`Callable`): Does it all, given arguments and accelerator.
    """
    args = parser.parse_args(arguments)
    accelerator = Accelerator(mixed_precision=args.mixed_precision)
    set_seed(args.seed)  # for new layers; everything else is drawn from the seed and its own number
    with leaving_together(parser, accelerator):
        train(args, accelerator)
