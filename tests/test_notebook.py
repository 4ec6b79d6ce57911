"""The notebook runs from top to bottom, as a new kernel would run it, and carries no outputs of somebody's machine."""

import json
import shutil
from pathlib import Path

import pytest

from faceswap_diffusion import read_provenance

NOTEBOOK = Path(__file__).parents[1] / "examples" / "swap.ipynb"


def test_it_runs_from_top_to_bottom(tmp_path: Path, example_images: Path, monkeypatch: pytest.MonkeyPatch):
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    code = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    assert len(code) >= 5
    shutil.copytree(example_images, tmp_path / "images")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, text in enumerate(code):
        exec(compile(text, f"cell {number}", "exec"), names)
    assert (read_provenance(tmp_path / "outputs" / "notebook.png") or {})["consent"] == "nobody here exists"


def test_it_carries_no_outputs():
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
