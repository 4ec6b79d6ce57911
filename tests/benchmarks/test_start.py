"""The benchmark of starts: what it adds up, and that it prints every figure with its goal."""

from pathlib import Path

import pytest

from benchmarks import start

LISTING = """import time: self [us] | cumulative | imported package
import time:    200000 |     200000 |     torch._C
import time:    500000 |     900000 |   torch.nn.modules
import time:    250000 |     250000 |   torch.nn
a line of another kind
import time:      1000 |     951000 | torch
"""


def test_imports_are_added_up_by_two_parts_of_their_name():
    assert start.sum_up(LISTING) == [
        ("torch.nn", pytest.approx(0.75)), ("torch._C", pytest.approx(0.2)), ("torch", pytest.approx(0.001))
    ]  # fmt: skip


def test_a_goal_is_met_or_missed():
    assert start.row("help", start.Taken(0.25, 0.5), 0.4).endswith("0.25 s,   0.50 s of processors, goal  0.40 s: met")
    assert start.row("help", start.Taken(0.41, 0.3), 0.4).endswith("goal  0.40 s: MISSED")


def test_medians_are_of_each_figure():
    assert start.median([start.Taken(1, 9), start.Taken(3, 4), start.Taken(2, 5)]) == (2, 5)


def test_a_process_that_ends_otherwise_is_an_error_of_one_line(tmp_path: Path, capsys):
    busy = "import time\nwhile time.process_time() < 0.2: pass\nraise SystemExit(2)"
    taken = start.run(["-c", busy], exit_code=2)
    assert 0.2 <= taken.processor_seconds <= taken.seconds
    with pytest.raises(ValueError, match=r"^no$"):
        start.run(["-c", "raise SystemExit('no')"])
