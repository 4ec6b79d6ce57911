"""The script for a GPU and its tables, in a reduced form on the CPU."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import render, speed
from benchmarks.speed import Measured, Row
from tests.tiny import tiny_pipeline

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guides" / "performance.md"
TEMPORARY_FAILURE = 75


def speed_figures(num_inference_steps: int) -> dict:
    rows = [
        Row("float16", "float16", Measured(seconds=2.0, first_call=3.0, peak_memory=6_000_000_000)),
        Row("channels_last", "float16", Measured(seconds=1.5, first_call=3.0, peak_memory=6_000_000_000)),
    ]
    command = f"python benchmarks/speed.py --num_inference_steps {num_inference_steps}"
    return {"command": command, "run": "- one GPU", "rows": [asdict(row) for row in rows]}


@pytest.fixture
def measured(tmp_path: Path) -> Path:
    training = {
        "device": "one GPU",
        "rows": [
            {
                "case": {"model": "full", "step": "plain", "checkpointing": False},
                "measured": {"images_per_second": 8.0, "peak_memory": 20_000_000_000, "data_share": 0.02},
            },
            {"case": {"model": "full", "step": "plain", "checkpointing": True}, "measured": None},
        ],
    }
    parts = {"tests": {"tests": "1 passed in 3s"}, "steps_50": speed_figures(50), "training": training}
    for name, figures in parts.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(figures))
    return tmp_path


def test_every_part_has_its_table_in_the_order_of_the_page(measured: Path):
    lines = render.render(measured).splitlines()
    assert lines[0] == "Tests that need a GPU: 1 passed in 3s."
    rows = [line for line in lines if line.startswith("| SDPA") or line.startswith("| full")]
    assert rows == [
        "| SDPA | float16 | 2 | 1.00 x | 3 s | 6.00 GB | 1.00 x |",
        "| SDPA, channels_last | float16 | 1.5 | 0.75 x | 3 s | 6.00 GB | 1.00 x |",
        "| full | plain | no | 8.00 | 1.00 x | 20.00 GB | 1.00 x | 2.0% |",
        "| full | plain | yes | out of memory |  |  |  |  |",
    ]
    assert lines[-1] == "Not measured: steps_10, steps_4, batches_4, batches_16."


def test_tables_replace_what_is_between_the_marks_of_the_page(measured: Path, tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(f"before\n{render.BEGIN}\nold\n{render.END}\nafter\n")
    for _ in range(2):
        assert render.main([str(measured), "--page", str(page)]) == 0
    assert page.read_text() == f"before\n{render.BEGIN}\n{render.render(measured)}{render.END}\nafter\n"


def test_the_page_of_the_documentation_has_the_marks():
    assert "new tables\n" in render.put_into(PAGE.read_text(), "new tables\n")


def test_what_is_missing_is_said(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    page = tmp_path / "page.md"
    page.write_text("no marks\n")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert render.main([str(measured), "--page", str(page)]) == render.main([str(empty)]) == 2
    without_marks, without_figures = capsys.readouterr().err.splitlines()
    assert without_marks.endswith("between which the tables belong: add them")
    assert without_figures == f"error: {empty} holds no figures: run benchmarks/gpu.sh {empty} first"


def test_figures_that_speed_writes_come_back(tmp_path: Path):
    output = tmp_path / "steps_4.json"
    arguments = ["--device", "cpu", "--model", "small", "--cases", "xformers", "--output", str(output)]
    assert speed.main(arguments) == 0
    assert speed.rows_of(json.loads(output.read_text())) == [Row("xformers", "float32", "needs CUDA, and this is cpu")]


def run_script(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", "RUNS": "1", **variables}
    script = ROOT / "benchmarks" / "gpu.sh"
    return subprocess.run([script, folder], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform == "win32", reason="a script of the shell")
def test_without_time_nothing_is_measured_and_that_is_no_success(tmp_path: Path):
    (tmp_path / "steps_4.json").write_text("{}")
    run = run_script(tmp_path, LIMIT="0", PARTS="steps_4 steps_10 soul")
    assert run.returncode == TEMPORARY_FAILURE
    assert run.stdout.splitlines() == [
        "steps_4: measured before",
        "steps_10: no time left",
        "soul: no such part",
        "missing: steps_10 soul; run it again with the same folder to go on",
    ]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="a script of the shell")
def test_it_measures_a_tiny_model_on_the_cpu(tmp_path: Path):
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    run = run_script(tmp_path / "out", MODEL=str(tmp_path / "tiny"), PARTS="batches_4")
    assert run.returncode == 0, run.stdout
    tables = render.render(tmp_path / "out")
    assert "pictures a call: 4" in tables
    assert "| SDPA | bfloat16 | " in tables
