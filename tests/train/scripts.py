"""The scripts in train/, tools/ and benchmarks/, loaded as modules and run in this process or in one of their own."""

import importlib.util
import os
import socket
import subprocess
import sys
from pathlib import Path
from types import ModuleType

from accelerate.state import AcceleratorState, GradientState, PartialState

ROOT = Path(__file__).parents[2]
TRAIN = ROOT / "train"


def load_script(name: str, folder: Path = TRAIN) -> ModuleType:
    """The script `name`.py as a module."""
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up
    spec.loader.exec_module(module)
    return module


def run(script: ModuleType, arguments: list[str]) -> None:
    """A script's `main` in this process, as if nothing had run here before."""
    for state in (AcceleratorState, GradientState):
        state._reset_state()
    PartialState._reset_state()
    script.main(arguments)


def start(name: str, arguments: list[str], *launcher: str, **variables: str) -> subprocess.Popen:
    """A script in a process of its own, on the CPU, with more variables in its environment."""
    found = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    on_cpu = {"PYTHONPATH": found, "ACCELERATE_USE_CPU": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **on_cpu, **variables}
    command = [sys.executable, *launcher, str(TRAIN / f"{name}.py"), *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def two_processes() -> list[str]:
    """What makes two processes of a script, for `start`."""
    return ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", str(free_port())]


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
