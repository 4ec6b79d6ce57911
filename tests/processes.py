"""Functions in processes of their own, forked from a server that has imported the slow libraries once."""

import faulthandler
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = (
    "accelerate", "cv2", "datasets", "diffusers.models.autoencoders.autoencoder_kl",
    "diffusers.models.unets.unet_2d_condition", "diffusers.pipelines.pipeline_utils", "diffusers.training_utils",
    "jsonargparse", "matplotlib.pyplot", "peft", "torch.distributed.fsdp", "torch.utils.data",
    "transformers.models.clip.modeling_clip",
)  # fmt: skip

PATIENCE = 300
"""Seconds after which a program that hangs shows where its threads stand, and fails."""


def server_context(method: str | None = None) -> Any:
    """The context whose processes are forked from the server; stands in for `multiprocessing.get_context`."""
    # Arrow's allocator, which comes with datasets, would run a thread in the server; a process with threads may hang
    # when it forks.
    os.environ["JE_ARROW_MALLOC_CONF"] = "background_thread:false"
    context = _get_context("forkserver")
    context.set_forkserver_preload([*LIBRARIES])
    return context


def forked() -> list[psutil.Process]:
    """Processes that the server has forked and that run: programs, and what they have started themselves."""
    return psutil.Process(multiprocessing.forkserver._forkserver._forkserver_pid).children()


_get_context = multiprocessing.get_context


class Program:
    """A function that runs by itself; used like `subprocess.Popen`, but its output is there when it has ended.

    Args:
        main (`Callable`): The function, of a module that can be imported.
        arguments (`tuple`): What it is given.
        variables (`dict[str, str]`): More variables of its environment.
    """

    def __init__(self, main: Callable[..., object], arguments: tuple, variables: dict[str, str]):
        self.folder = tempfile.TemporaryDirectory()
        self.outputs = [Path(self.folder.name, name) for name in ("output", "errors")]
        self.process = server_context().Process(target=_run, args=(self.outputs, variables, main, arguments))
        self.process.start()
        assert self.process.pid is not None
        self.pid = self.process.pid

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Waits for the end; what it wrote to standard output, and to standard error."""
        self.process.join(timeout)
        assert self.process.exitcode is not None, f"it is still running after {timeout} s"
        output, errors = (path.read_text() if path.exists() else "" for path in self.outputs)
        return output, errors


def _run(outputs: list[Path], variables: dict[str, str], main: Callable[..., object], arguments: tuple) -> None:
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    faulthandler.dump_traceback_later(PATIENCE, exit=True)
    os.environ |= {"CUDA_VISIBLE_DEVICES": "", **variables}
    multiprocessing.get_context = server_context
    multiprocessing.forkserver._forkserver.ensure_running = lambda: None  # its parent's server serves it, too
    signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell's background ignores
    main(*arguments)


def start(main: Callable[..., object], *arguments: object, **variables: str) -> Program:
    """Starts a function on the CPU, with more variables in its environment."""
    return Program(main, arguments, variables)


def start_two(main: Callable[..., object], *arguments: object, **variables: str) -> list[Program]:
    """Starts a function twice as the two processes of one run, with the variables that a launcher sets."""
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    ranks = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    return [start(main, *arguments, **meeting, **rank, **variables) for rank in ranks]


def finish(*programs: Program) -> str:
    """Waits until all have ended well; what the first wrote to standard output."""
    ends = [program.communicate() for program in programs]
    for program, (output, errors) in zip(programs, ends, strict=True):
        assert program.returncode == 0, output + errors
    return ends[0][0]


def wait_until(condition: Callable[[], object], program: Program) -> None:
    """Waits until a running program has done something.

    Raises:
        AssertionError: If it ends before.
    """
    while not condition():
        assert program.poll() is None, "".join(program.communicate())
        time.sleep(0.01)


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
