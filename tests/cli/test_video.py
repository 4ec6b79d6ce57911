"""`faceswap-diffusion video`: what is wrong is said before anything slow is loaded, and Ctrl-C can be gone on from."""

import argparse
import signal
import sys
from pathlib import Path

import pytest

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.cli.video import seconds
from tests import processes
from tests.clips import SOURCE, moving_face, noise, pictures, write_clip
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", noise(4))


def run(*line: object) -> int:
    return cli.main(["video", *map(str, line)])


@pytest.mark.parametrize(("text", "value"), [("65.5", 65.5), ("1:05.5", 65.5), ("1:01:05", 3665)])
def test_times(text: str, value: float):
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["-1", "1:2:3:4", "soon", "1:-5"])
def test_times_that_are_none(text: str):
    with pytest.raises(argparse.ArgumentTypeError, match="write seconds as 65"):
        seconds(text)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "new.avi"], "unknown kind '.avi'; end the name in .mp4, "),
        (["-o", "no folder/new.mp4"], "there is no folder"),
        (["-o", "new.mp4", "--codec", "theora"], "which this build of FFmpeg cannot write; it has h264, "),
        (["-o", "new.mp4", "--start", "9"], "got start 9: "),
        (["-o", "new.mp4", "--frame-rate", "9"], "has times of its own: leave it out"),
        (["-o", "new.mp4", "--keep", "beard"], "got region 'beard'; choose one of face, "),
        (["-o", "there.mp4"], "there.mp4 exists: choose another name, or pass --overwrite"),
    ],
)
def test_what_is_wrong_is_one_line_and_2(clip: Path, tmp_path: Path, monkeypatch, capsys, options, message: str):
    monkeypatch.chdir(tmp_path)
    Path("there.mp4").write_bytes(b"mine")
    assert run(SOURCE, clip, *options) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.mp4"]
    assert Path("there.mp4").read_bytes() == b"mine"


def test_a_source_without_a_face_is_known_before_anything_slow(clip: Path, tmp_path: Path, capsys):
    from PIL import Image

    Image.new("RGB", (64, 64)).save(tmp_path / "grey.png")
    assert run(tmp_path / "grey.png", clip, "-o", tmp_path / "new.mp4") == 2
    assert "no face found in" in capsys.readouterr().err


def interruptible(*line: str) -> None:
    """The command as a shell starts it: Ctrl-C interrupts it, and its status is that of the process."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(run(*line))


def test_ctrl_c_is_130_and_the_same_command_goes_on(tmp_path: Path, capsys):
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path / "tiny")
    clip = write_clip(tmp_path / "clip.mp4", moving_face(10, (96, 96)), durations=[45_000])
    line = [SOURCE, clip, "-o", tmp_path / "new.mp4", "--checkpoint", tmp_path / "tiny", "--steps", "1",
        "--occlusion", "off", "--device", "cpu"]  # fmt: skip
    parts = tmp_path / "new.mp4.parts"
    running = processes.start(interruptible, *map(str, line), OMP_NUM_THREADS="1")
    processes.wait_until((parts / "000000").exists, running)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate()
    assert running.returncode == 130, told
    assert f"the parts that are done are in {parts}; the same command goes on" in told
    assert "Traceback" not in told
    assert run(*line) == 0
    told = capsys.readouterr().out
    assert "swapped 10 of 10 frames" in told
    assert "(4 frames were there already)" in told or "(8 frames were there already)" in told
    assert len(pictures(tmp_path / "new.mp4")) == 10
    assert not parts.exists()
