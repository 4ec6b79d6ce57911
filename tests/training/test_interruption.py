"""Stopping from outside: a run finishes its step, saves and leaves; without a run nothing has changed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate import Accelerator

from faceswap_diffusion.training.interruption import StopSignal
from faceswap_diffusion.training.states import saved_steps
from tests.training.test_states import ENVIRONMENT, ROOT, accelerator, assert_same_state, small_run  # noqa: F401


def start(*arguments: object, launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    command = [sys.executable, *launcher, "-m", "tests.training.small_run", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)


def wait_for_a_step(process: subprocess.Popen) -> None:
    assert process.stdout is not None
    while not process.stdout.readline().startswith("step"):
        assert process.poll() is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_asked_to_stop_saves_and_goes_on_later(tmp_path, number):
    process = start(tmp_path / "stopped", 1000, "--pause", 0.2)
    wait_for_a_step(process)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    last = saved_steps(tmp_path / "stopped")[-1]
    assert f"stopped after {last}" in output
    assert last < 1000
    assert small_run(tmp_path / "stopped", last + 1).returncode == 0
    assert small_run(tmp_path / "undisturbed", last + 1).returncode == 0
    name = f"step_{last + 1:06}"
    assert_same_state(tmp_path / "undisturbed" / name, tmp_path / "stopped" / name)


def test_the_former_handlers_come_back(accelerator: Accelerator):  # noqa: F811
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopSignal() as stop:
        assert not stop.requested(accelerator)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.requested(accelerator)
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_the_second_ctrl_c_acts_as_usual(accelerator: Accelerator):  # noqa: F811
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested(accelerator)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.slow
def test_one_process_that_is_asked_to_stop_stops_all(tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    process = start(tmp_path, 1000, "--pause", 0.2, launcher=launcher)
    wait_for_a_step(process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGTERM)
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert 0 < saved_steps(tmp_path)[-1] < 1000
