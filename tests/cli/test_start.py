"""What commands load, in processes of their own: help nothing, faces no PyTorch, a swap not before it has faces."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from faceswap_diffusion.cli.loading import FoundFaces
from faceswap_diffusion.cli.main import spare_cores

IMAGES = Path(__file__).parents[2] / "examples" / "images"
PORTRAIT = str(IMAGES / "p001_portrait.jpg")
PROGRAM = """
import json, sys
from faceswap_diffusion.cli import main as cli
ends = []
for line in sys.stdin:
    try:
        ends.append(cli.main(json.loads(line)))
    except SystemExit as end:
        ends.append(end.code)
print(json.dumps([ends, sorted(sys.modules)]))
"""


def run(*commands: list[str]) -> tuple[list[int], set[str]]:
    """Runs commands in one process: their exit codes, and the modules that are loaded."""
    lines = "\n".join(map(json.dumps, commands))
    done = subprocess.run([sys.executable, "-c", PROGRAM], input=lines, capture_output=True, text=True, check=True)
    ends, modules = json.loads(done.stdout.splitlines()[-1])
    return ends, set(modules)


def test_help_loads_no_library():
    commands = (
        "swap",
        "batch",
        "video",
        "identity",
        "faces",
        "convert",
        "evaluate",
        "verify",
        "demo",
        "fetch",
        "doctor",
    )
    ends, modules = run(["--help"], *([command, "--help"] for command in commands))
    assert ends == [0] * (1 + len(commands))
    assert not modules & {"torch", "diffusers", "transformers", "accelerate", "numpy", "cv2", "PIL"}


def test_faces_and_a_swap_of_a_photo_without_one_load_no_pytorch(tmp_path: Path):
    Image.new("RGB", (64, 64)).save(tmp_path / "wall.png")
    wall, output = str(tmp_path / "wall.png"), str(tmp_path / "out.png")
    ends, modules = run(
        ["faces", PORTRAIT, "--quiet"],
        ["verify", PORTRAIT, "--quiet"],
        ["swap", wall, PORTRAIT, "-o", output],
        ["swap", PORTRAIT, wall, "-o", output],
        ["swap", PORTRAIT, PORTRAIT, "--target-face", "1", "-o", output],
    )
    assert ends == [0, 3, 2, 2, 2]
    assert not modules & {"torch", "diffusers", "transformers", "accelerate"}
    assert {"cv2", "ai_edge_litert"} < modules


@pytest.mark.parametrize(("name", "spared"), [("OMP_WAIT_POLICY", "PASSIVE"), ("OPENBLAS_NUM_THREADS", "1")])
def test_cores_are_spared_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch, name: str, spared: str):
    monkeypatch.setenv(name, "theirs")
    spare_cores()
    assert os.environ[name] == "theirs"
    monkeypatch.delenv(name)
    spare_cores()
    assert os.environ[name] == spared


def test_each_photo_is_looked_at_once():
    class Counting:
        def __init__(self):
            self.seen = []

        def analyze(self, image):
            self.seen.append(image)
            return [len(self.seen)]

    counting = Counting()
    faces = FoundFaces(counting)
    first, second = [0], [0]  # equal, and not the same
    assert [faces.analyze(image) for image in (first, second, first)] == [[1], [2], [1]]
    assert len(counting.seen) == 2
