"""The scripts in train/, tools/ and benchmarks/, loaded as modules and run in this process or in one of their own."""

import importlib.util
import runpy
import sys
from pathlib import Path
from types import ModuleType

from accelerate.state import AcceleratorState, GradientState, PartialState

from tests import processes
from tests.processes import Program
from tests.train.divided_on_cpu import allow_dividing_on_cpu

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


def run_as_program(name: str, arguments: list[str], divided: bool = False) -> None:
    """A script as somebody types it; `divided` lets it divide the model among processes of the CPU."""
    if divided:
        allow_dividing_on_cpu()
    sys.argv = [str(TRAIN / f"{name}.py"), *arguments]
    runpy.run_path(sys.argv[0], run_name="__main__")


def start(name: str, arguments: list[str]) -> Program:
    """A script in a process of its own, on the CPU."""
    return processes.start(run_as_program, name, arguments, ACCELERATE_USE_CPU="1")


def start_two(name: str, arguments: list[str], **variables: str) -> list[Program]:
    """A script in two processes of one run, which divide the model if `variables` are those of FSDP."""
    return processes.start_two(run_as_program, name, arguments, bool(variables), ACCELERATE_USE_CPU="1", **variables)
