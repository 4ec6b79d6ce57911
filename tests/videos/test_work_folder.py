"""The work folder: parts are there whole or not at all, settings are compared, and one process at a time has it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faceswap_diffusion.videos.work_folder import WorkFolder

SETTINGS = {"quality": 17, "region": "face"}
HOLDER = """
import sys, time
from pathlib import Path
from faceswap_diffusion.videos.work_folder import WorkFolder
with WorkFolder(Path(sys.argv[1]), {"quality": 17, "region": "face"}):
    print("held", flush=True)
    time.sleep(60)
"""


def add_segment(folder: WorkFolder, number: int) -> None:
    with folder.new_segment(number) as (path, facts):
        (path / "content").write_text(str(number))
        facts["number"] = number


def test_parts_are_found_again(tmp_path: Path):
    with WorkFolder(tmp_path / "parts", SETTINGS) as folder:
        assert folder.segments() == []
        add_segment(folder, 0)
        add_segment(folder, 1)
    with WorkFolder(tmp_path / "parts", SETTINGS) as folder:
        assert [(path.name, facts) for path, facts in folder.segments()] == [
            ("000000", {"number": 0}), ("000001", {"number": 1})
        ]  # fmt: skip
        folder.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_part_that_fails_leaves_nothing(tmp_path: Path):
    with WorkFolder(tmp_path / "parts", SETTINGS) as folder:
        before = sorted(path.name for path in folder.path.iterdir())
        with pytest.raises(OSError, match="no folder"), folder.new_segment(0) as (path, _):
            (path / "no folder" / "content").write_text("lost")
        assert sorted(path.name for path in folder.path.iterdir()) == before
        (folder.path / ".unfinished-of-a-killed-run").mkdir()
    with WorkFolder(tmp_path / "parts", SETTINGS):
        assert sorted(path.name for path in folder.path.iterdir()) == before


def test_changed_settings_are_named_with_both_values(tmp_path: Path):
    with WorkFolder(tmp_path / "parts", SETTINGS):
        pass
    message = r"quality was 17 and is 20; every was None and is 5\. Give the former ones"
    with (
        pytest.raises(ValueError, match=message),
        WorkFolder(tmp_path / "parts", {**SETTINGS, "quality": 20, "every": 5}),
    ):
        pass
    assert json.loads((tmp_path / "parts" / "manifest.json").read_text())["settings"] == SETTINGS


def test_folders_with_something_else_in_them_are_refused(tmp_path: Path):
    (tmp_path / "diary.txt").write_text("dear diary")
    with (
        pytest.raises(ValueError, match=r"in use for something else \(it holds diary\.txt\)"),
        WorkFolder(tmp_path, SETTINGS),
    ):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["diary.txt"]


def test_one_process_at_a_time_until_it_dies(tmp_path: Path):
    other = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "parts")], stdout=subprocess.PIPE)
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    with pytest.raises(ValueError, match="another process works in"), WorkFolder(tmp_path / "parts", SETTINGS):
        pass
    other.kill()
    other.communicate()
    with WorkFolder(tmp_path / "parts", SETTINGS) as folder:
        assert folder.segments() == []
