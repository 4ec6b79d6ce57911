"""Stopping from outside: a run finishes its step, saves and leaves; without a run nothing has changed."""

import os
import signal

import pytest

from faceswap_diffusion.training.engine.interruption import StopSignal
from faceswap_diffusion.training.engine.states import saved_steps
from tests.processes import finish, wait_until
from tests.training.engine.small_run import fresh_accelerator, start, start_two


def test_a_run_that_is_asked_to_stop_saves_its_last_step(tmp_path):
    program = start(tmp_path, 1000, "--pause", 0.2)
    wait_until(lambda: saved_steps(tmp_path), program)
    program.send_signal(signal.SIGTERM)
    *steps, end = finish(program).splitlines()
    last = saved_steps(tmp_path)[-1]
    assert end == f"stopped after {last}"
    assert last == len(steps) < 1000


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
    first, second = start_two(tmp_path, 1000, "--pause", 0.2)
    wait_until(lambda: saved_steps(tmp_path), first)
    second.send_signal(signal.SIGTERM)
    finish(first, second)
    assert 0 < saved_steps(tmp_path)[-1] < 1000
