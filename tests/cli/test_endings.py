"""How commands end: whatever the terminal is like, the exit code is true, and an interrupted one leaves nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.evaluation import command
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
SOURCE, TARGET = (str(IMAGES / name) for name in ("p001_portrait.jpg", "p010_selfie.jpg"))
RESET_SIGINT = (  # shells ignore it in background jobs; then another Python program takes over
    "import os, signal, sys;"
    "signal.signal(signal.SIGINT, signal.SIG_DFL);"
    "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
FACE = "\u9854"  # Japanese for face, which Western code pages lack


def faces_of_a_dot(folder: Path, before: tuple[str, ...] = (), **options) -> subprocess.CompletedProcess:
    """Runs `faces` on a photo of one pixel, whose name is Japanese."""
    Image.new("RGB", (1, 1)).save(folder / f"{FACE}.png")
    line = [*before, sys.executable, "-m", "faceswap_diffusion", "faces", f"{FACE}.png", "-o", f"{FACE}_drawn.png"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONIOENCODING": "cp1252"}
    return subprocess.run(line, cwd=folder, env=environment, **options)


def test_names_that_the_console_cannot_show_are_escaped(tmp_path: Path):
    done = faces_of_a_dot(tmp_path, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"\\u9854.png: 0 faces" + os.linesep.encode(), b"")
    again = faces_of_a_dot(tmp_path, capture_output=True)
    assert again.returncode == 2
    assert again.stderr.startswith(b"faceswap-diffusion: error: \\u9854_drawn.png exists: ")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs Linux's full device")
def test_output_that_cannot_be_written_does_not_change_the_exit_code(tmp_path: Path):
    with open("/dev/full", "wb") as full:
        assert faces_of_a_dot(tmp_path, stdout=full).returncode == 0
        assert faces_of_a_dot(tmp_path, stdout=full, stderr=full).returncode == 2  # its drawing exists


def test_closed_streams_do_not_change_the_exit_code(tmp_path: Path):
    closed = ("sh", "-c", 'exec "$@" >&- 2>&-', "sh")
    assert faces_of_a_dot(tmp_path, closed).returncode == 0
    assert (tmp_path / f"{FACE}_drawn.png").is_file()
    assert faces_of_a_dot(tmp_path, closed).returncode == 2


def test_a_reader_that_has_gone_does_not_change_the_exit_code(tmp_path: Path):
    reading, writing = os.pipe()
    os.close(reading)
    done = faces_of_a_dot(tmp_path, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_during_a_swap_is_one_line_and_130(tmp_path: Path):
    pty, fcntl, termios = (pytest.importorskip(name) for name in ("pty", "fcntl", "termios"))
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path / "tiny")
    (tmp_path / "out").mkdir()
    shown, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, b"\x18\0\x50\0\0\0\0\0")  # 24 x 80: without a width there is no bar
    output = tmp_path / "out" / "swapped.png"
    line = ["swap", SOURCE, TARGET, "-o", output, "--checkpoint", tmp_path / "tiny", "--steps", "1000"]
    command = [sys.executable, "-c", RESET_SIGINT, "-m", "faceswap_diffusion", *map(str, line)]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    told = b""
    while b"swapping" not in told:
        told += os.read(shown, 10_000)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=120)
    told += os.read(shown, 100_000)
    os.close(shown)
    assert running.returncode == 130
    assert out == b""
    assert told.splitlines()[-1] == b"faceswap-diffusion: interrupted"
    assert b"Traceback" not in told
    assert os.listdir(tmp_path / "out") == []


@pytest.mark.parametrize("main", [cli.main, lambda arguments: command.main(arguments[1:])])
def test_ctrl_c_anywhere_is_130(main, capsys, monkeypatch: pytest.MonkeyPatch):
    def interrupt(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "open_sets", interrupt)
    assert main(["evaluate", "--pairs", "pairs.csv", "-o", "report"]) == 130
    assert capsys.readouterr().err.splitlines()[-1].endswith("interrupted")
