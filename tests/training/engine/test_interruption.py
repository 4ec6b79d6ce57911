"""Stopping from outside: a run finishes its step, saves and leaves; without a run nothing has changed."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from faceswap_diffusion.training.engine.interruption import StopSignal
from faceswap_diffusion.training.engine.states import saved_steps
from tests.training.engine.small_run import fresh_accelerator, start


def wait_for_a_step(process: subprocess.Popen) -> None:
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step"):
        assert process.poll() is None


def test_a_run_that_is_asked_to_stop_saves_its_last_step(tmp_path):
    process = start(tmp_path, 1000, "--pause", 0.2)
    wait_for_a_step(process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate()
    assert process.returncode == 0
    last = saved_steps(tmp_path)[-1]
    *steps, end = output.splitlines()  # those after the one that was waited for
    assert end == f"stopped after {last}"
    assert last == 1 + len(steps) < 1000


def test_the_former_handlers_come_back():
    accelerator = fresh_accelerator()
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert not stop.requested(accelerator)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested(accelerator)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


@pytest.fixture
def usual_ctrl_c():
    """Python's own handler, which is not there in what a shell runs in the background."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("usual_ctrl_c")
def test_the_second_ctrl_c_acts_as_usual():
    accelerator = fresh_accelerator()
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested(accelerator)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_one_process_that_is_asked_to_stop_stops_all(tmp_path):
    process = start(tmp_path, 1000, "--pause", 0.2, processes=2)
    wait_for_a_step(process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGTERM)
    process.communicate()
    assert process.returncode == 0
    assert 0 < saved_steps(tmp_path)[-1] < 1000
