"""Time and memory of processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import latency
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def test_run_measured_tells_time_memory_and_output_of_each_process():
    # From a small process, as the command itself is one.
    script = """
import json, sys
from benchmarks.latency import run_measured
allocate = "import time; block = bytearray(200 << 20); time.sleep(0.3); print('done')"
print(json.dumps([run_measured([sys.executable, "-c", code]) for code in (allocate, "pass")]))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    (seconds, megabytes, output), (_, smaller, nothing) = json.loads(done.stdout)
    assert seconds >= 0.3
    assert 200 < megabytes < 300
    assert (output, nothing) == ("done\n", "")
    assert smaller < 100  # the greater process before it does not count


def test_run_measured_reports_the_last_line_of_a_failure():
    with pytest.raises(ValueError, match=r"^second$"):
        latency.run_measured([sys.executable, "-c", "import sys; sys.exit('first\\nsecond')"])
    with pytest.raises(ValueError, match="exit code 3"):
        latency.run_measured([sys.executable, "-c", "import sys; sys.exit(3)"])


def test_figures_are_medians():
    text = latency.format_latency(
        {
            "photo_to_file_seconds": 9.876,
            "photo_to_file_runs": [9.0, 9.876, 10.0],
            "further_swap_seconds": {
                "new_photos": latency.medians([[1.0, 0.9], [1.5, 1.25], [9.0, 1.3]]),
                "new_target": [1.1, 0.8],
                "same_photos": [0.7, 0.6],
            },
            "peak_memory_mb": 1234.5,
            "processors": 2,
            "load_before": 0.1,
        }
    )
    assert "9.88 s" in text
    assert "each further swap: 1.50 s, 1.25 of processors (goal" in text
    assert "the same photos: 0.70 s, 0.60 of processors" in text
    assert "medians of 3; 2 processors, load before 0.10" in text


@pytest.mark.slow
def test_a_whole_measurement(tmp_path: Path):
    tiny_pipeline().save_pretrained(tmp_path)
    source, target = str(IMAGES / "p005_portrait.jpg"), str(IMAGES / "p010_portrait.jpg")
    figures = latency.measure_latency(source, target, str(tmp_path), runs=1)
    assert len(figures["photo_to_file_runs"]) == 1
    new_photos, _, same_photos = (figures["further_swap_seconds"][kind][1] for kind in latency.KINDS)
    assert same_photos < new_photos < figures["photo_to_file_seconds"]
    assert figures["peak_memory_mb"] > 100


def test_a_missing_photo_is_a_user_error(tmp_path: Path, capsys):
    assert latency.main([str(tmp_path / "none.jpg"), str(IMAGES / "p010_portrait.jpg")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
