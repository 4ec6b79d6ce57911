"""REFace's checkpoint from an imitation of the Hub: fetched, resumed, cached, and refused for a reason."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conversion.test_reface import saved_weights
from tests.hub.imitation import HubImitation

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each process imports everything anew

# The command line on a checkpoint of reduced size: each line of standard input is a list of arguments.
PROGRAM = """
import functools, json, sys
from faceswap_diffusion import cli
from faceswap_diffusion.conversion import reface
from tests.parity.reduced import REDUCED

reface.convert_reface = functools.partial(reface.convert_reface, architecture=REDUCED)
print(json.dumps([cli.main(json.loads(line)) for line in sys.stdin]))
"""


def run(hub: str, home: Path, *commands: list[str], offline: bool = False) -> tuple[list[int], list[str]]:
    """Exit statuses of commands and their errors, in a process of its own, since the Hub's address is read once."""
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_ENDPOINT": hub, "HF_HOME": str(home),
        "HF_HUB_OFFLINE": str(int(offline)), "HF_TOKEN": "", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }  # fmt: skip
    lines = "\n".join(json.dumps(["convert", "reface", *command]) for command in commands)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input=lines, cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith("faceswap-diffusion: error: ")]
    return json.loads(done.stdout.splitlines()[-1]), errors


@pytest.fixture
def hub(checkpoint: Path):
    hub = HubImitation()
    hub.repositories["owner/reface"] = {"last.ckpt": checkpoint.read_bytes()}
    hub.repositories["owner/reface@first-try"] = {"last.ckpt": b"something else"}
    hub.repositories["owner/other"] = {"README.md": b"no checkpoint"}
    hub.repositories["owner/closed"] = {"last.ckpt": b"secret"}
    hub.gated.add("owner/closed")
    yield hub
    hub.close()


def test_it_is_fetched_once_and_resumed(hub: HubImitation, weights, tmp_path: Path):
    hub.cut_after = 45_000_000
    command = ["--from-hub", "owner/reface", "-o"]
    statuses, errors = run(hub.url, tmp_path / "home", [*command, str(tmp_path / "first")])
    assert (statuses, errors) == ([0], [])
    ranges = [int(request.split()[1]) for request in hub.requests if request.startswith("RANGE")]
    assert len(ranges) == 1
    assert 0 < ranges[0] <= 45_000_000
    saved = saved_weights(tmp_path / "first")
    assert torch.equal(saved["conditioner/unconditional.embeds"], weights["learnable_vector"])
    key = "face_ID_model.facenet.output_layer.3.weight"  # of the middle of the file
    assert torch.equal(saved["conditioner/identity_encoder.output_layer.3.weight"], weights[key])
    hub.close()  # nobody answers any more
    statuses, errors = run(hub.url, tmp_path / "home", [*command, str(tmp_path / "again")], offline=True)
    assert (statuses, errors) == ([0], [])
    again = saved_weights(tmp_path / "again")
    assert all(torch.equal(again[name], weight) for name, weight in saved.items())


def test_what_cannot_be_had_is_told_in_one_line(hub: HubImitation, tmp_path: Path):
    wanted = {
        ("owner/nowhere",): "there is no Hub repository owner/nowhere, or it is private",
        ("owner/closed",): "last.ckpt of owner/closed cannot be had: it is gated: accept its terms at",
        ("owner/other",): "Hub repository owner/other holds no last.ckpt",
        ("not an id",): "'not an id' is no Hub id like owner/name",
        ("owner/reface", "--revision", "v9"): "Hub repository owner/reface has no revision v9",
        ("owner/reface", "--revision", "first-try"): "last.ckpt cannot be read as a checkpoint",
    }
    out = tmp_path / "out"
    out.mkdir()
    commands = [["--from-hub", *arguments, "-o", str(out / "folder")] for arguments in wanted]
    statuses, errors = run(hub.url, tmp_path / "home", *commands)
    assert statuses == [2] * len(wanted)
    assert len(errors) == len(wanted)
    assert [message for message, error in zip(wanted.values(), errors, strict=True) if message not in error] == []
    assert os.listdir(out) == []
    statuses, errors = run(hub.url, tmp_path / "elsewhere", commands[4][:2] + commands[4][4:], offline=True)
    assert statuses == [2]
    assert "the Hub cannot be reached, and last.ckpt of owner/reface is not in the cache" in errors[0]
