"""Saved states of a run: written whole or not at all, the last one kept, resumed by starting the run again."""

import os
import shutil
from pathlib import Path

from accelerate import Accelerator


def saved_steps(folder: Path) -> list[int]:
    """Steps of the finished states below `folder`, in order."""
    return sorted(int(path.name.removeprefix("step_")) for path in folder.glob("step_*"))


def save_state(accelerator: Accelerator, folder: Path, step: int) -> None:
    """Saves models, optimiser, schedule and random states as `folder/step_N`, then drops the earlier ones."""
    unfinished, finished = folder / f"unfinished_{step}", folder / f"step_{step}"
    accelerator.save_state(str(unfinished))
    if accelerator.is_main_process:
        os.replace(unfinished, finished)
        for earlier in saved_steps(folder):
            if earlier != step:
                shutil.rmtree(folder / f"step_{earlier}")
    accelerator.wait_for_everyone()


def resume(accelerator: Accelerator, folder: Path) -> int:
    """Loads the last finished state below `folder`; returns its step, or 0 where there is none."""
    steps = saved_steps(folder)
    if not steps:
        return 0
    accelerator.load_state(str(folder / f"step_{steps[-1]}"))
    return steps[-1]
