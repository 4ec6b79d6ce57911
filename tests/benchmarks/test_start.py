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
    assert start.row("help", 0.25, 0.4).endswith("0.25 s, goal  0.40 s: met")
    assert start.row("help", 0.41, 0.4).endswith("0.41 s, goal  0.40 s: MISSED")


def test_a_process_that_ends_otherwise_is_an_error_of_one_line(tmp_path: Path, capsys):
    assert start.seconds_of(["-c", "raise SystemExit(2)"], exit_code=2) > 0
    with pytest.raises(ValueError, match=r"^no$"):
        start.seconds_of(["-c", "raise SystemExit('no')"])
