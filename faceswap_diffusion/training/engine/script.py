"""What is around the run in every training script: accelerator, settings on the disk, an exit code."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from accelerate import Accelerator
from accelerate.utils import ProjectConfiguration, set_seed
from safetensors import SafetensorError

from faceswap_diffusion.console import say
from faceswap_diffusion.training.command_line import parse_config
from faceswap_diffusion.training.config import TrainingConfig
from faceswap_diffusion.training.engine.history import check_tracker
from faceswap_diffusion.training.engine.trainer import DivergedError, Trainer

Config = TypeVar("Config", bound=TrainingConfig)


def build_accelerator(config: TrainingConfig) -> Accelerator:
    """The accelerator of a run."""
    optimization, output = config.optimization, config.output
    accelerator = Accelerator(
        mixed_precision=optimization.mixed_precision,
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        log_with=None if output.report_to == "none" else output.report_to,
        project_config=ProjectConfiguration(
            project_dir=str(output.output_dir), logging_dir=str(output.output_dir / "logs")
        ),
    )
    fsdp = getattr(accelerator.state, "fsdp_plugin", None)
    if accelerator.is_fsdp2 and fsdp is not None:
        # Autocast decides what is computed in 16 bits, as in one process; FSDP's own policy would round batches, too.
        fsdp.mixed_precision_policy = None
    return accelerator


@contextmanager
def exit_with_all_processes(script: str, accelerator: Accelerator) -> Iterator[None]:
    """What a script does in here ends in all processes at once; what goes wrong is one line and an exit code.

    What cannot work (`ValueError`) has exit code 2, what went wrong on the way 1.

    Args:
        script (`str`): Its name.
        accelerator (`Accelerator`): Of its run.
    """
    try:
        yield
        accelerator.wait_for_everyone()  # or the first to leave takes the connection with it
        accelerator.end_training()
    except ValueError as error:
        exit_code, reason = 2, error
    except (DivergedError, OSError, SafetensorError) as error:  # a full disk has many faces
        exit_code, reason = 1, error
    else:
        return
    say(f"{script}: {reason}", error=True)
    raise SystemExit(exit_code)


def run_script(
    kind: type[Config],
    script: str,
    description: str | None,
    arguments: Sequence[str] | None,
    build: Callable[[Config, Accelerator], Trainer[Config]],
    finish: Callable[[Trainer[Config]], None],
) -> None:
    """Runs a training script; see `exit_with_all_processes` for how it ends.

    Args:
        kind (`type`): Its composed settings.
        script (`str`): Its name.
        description (`str`): Its docstring.
        arguments (`Sequence[str]`, *optional*): Those of the process if left out.
        build (`Callable`): Makes the run of settings and accelerator. The run's settings are those that are saved.
        finish (`Callable`): Called in the main process once all steps are taken.
    """
    config = parse_config(kind, script, description, arguments)
    accelerator = build_accelerator(config)
    set_seed(config.optimization.seed)  # for new layers; everything else is drawn from the seed and its own number
    with exit_with_all_processes(script, accelerator):
        check_tracker(config.output.report_to)
        trainer = build(config, accelerator)
        if config.output.report_to != "none":
            accelerator.init_trackers(config.output.tracker_project_name)
        step = trainer.train()
        if step < config.optimization.max_train_steps:
            accelerator.print(f"Stopped after step {step}: the same command goes on from there.")
        elif accelerator.is_main_process:
            finish(trainer)
