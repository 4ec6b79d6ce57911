"""The README and the documentation: code runs on the example photos, commands parse, and what is named exists."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from faceswap_diffusion.cli.main import build_parser
from tests.clips import moving_face, write_clip
from tests.test_layering import LAYERS

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.joinpath("docs").rglob("*.md"))]
NOT_RUN = ("# needs the Hub", "# needs a GPU", "# needs a demo that runs")
"""First lines of blocks that are only compiled."""

PHOTOS = {
    "source.jpg": "p001_portrait.jpg",
    "source_side.jpg": "p001_park.jpg",
    "other.jpg": "p005_portrait.jpg",
    "target.jpg": "p010_selfie.jpg",
    "group.jpg": "group.jpg",
}
"""The photos that the pages name, and what they are among the examples."""


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


WITH_CODE = [page for page in PAGES if python_blocks(page)]


def commands(page: Path) -> list[list[str]]:
    """Arguments of every call of our command in the shell blocks of a page."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    calls = [shlex.split(line, comments=True) for line in lines]
    return [call[1:] for call in calls if call[:1] == ["faceswap-diffusion"]]


def in_repository(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def test_the_main_pages_have_code():
    names = {in_repository(page) for page in WITH_CODE}
    assert {"README.md", "docs/index.md", "docs/guides/pipeline.md", "docs/guides/group_photos.md"} <= names


def test_paths_in_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+(?:[a-z_]+\.(?:py|md))?)`", text))
    places = [ROOT, ROOT / "faceswap_diffusion", ROOT / "faceswap_diffusion" / "training"]
    assert len(named) > 40
    assert {path for path in named if not any((place / path).exists() for place in places)} == set()


def test_the_architecture_names_every_unit():
    table = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Layers")[2]
    named = {name.rstrip("/") for name in re.findall(r"`([a-z_]+/?)`", table.partition("### Inside")[0])}
    assert {unit for layer in LAYERS for unit in layer} - named - {"__main__"} == set()


def test_names_in_the_architecture_exist():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").partition("## Where do I change")[2]
    names = set(re.findall(r"`([A-Za-z_]+)`", text.partition("## Conventions")[0]))
    source = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.joinpath("faceswap_diffusion").rglob("*.py"))
    assert len(names) > 25
    assert names - set(re.findall(r"\w+", source)) == set()


def test_commands_parse():
    calls = [call for page in [*PAGES, ROOT / "train" / "README.md"] for call in commands(page)]
    assert {call[0] for call in calls} >= {"swap", "faces", "convert", "evaluate", "fetch", "doctor"}
    for call in calls:
        build_parser().parse_args(call)


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, id=in_repository(page), marks=() if page.name == "README.md" else pytest.mark.slow)
        for page in WITH_CODE
    ],
)
def test_code_runs(page: Path, example_images: Path, tmp_path: Path, monkeypatch):
    for name, example in PHOTOS.items():
        shutil.copy(example_images / example, tmp_path / name)
    if "clip.mp4" in page.read_text(encoding="utf-8"):
        write_clip(tmp_path / "clip.mp4", moving_face(3, (128, 128)))
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for number, block in enumerate(python_blocks(page), 1):
        code = compile(block, f"{page.name}, block {number}", "exec")
        if not block.startswith(NOT_RUN):
            exec(code, namespace)
