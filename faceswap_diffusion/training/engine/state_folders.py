"""Names of the folders of a run's states. Imports nothing, for scripts that only parse their options."""

import re
from pathlib import Path


def state_folder(folder: Path, step: int) -> Path:
    """The folder of the state of a step, below that of all states."""
    return folder / f"step_{step:06}"


def saved_steps(folder: Path) -> list[int]:
    """Steps of the finished states in `folder`, in order."""
    names = [re.fullmatch(r"step_(\d{6,})", path.name) for path in folder.glob("step_*")]
    return sorted(int(name[1]) for name in names if name)
