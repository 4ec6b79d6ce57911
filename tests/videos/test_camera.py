"""Recording: an input that does not end by itself becomes a video of some seconds."""

from pathlib import Path

import av
import pytest

from faceswap_diffusion.videos.camera import record, record_camera
from tests.clips import times


def test_some_seconds_are_recorded(tmp_path: Path):
    with av.open("testsrc=size=64x48:rate=10", format="lavfi") as endless:
        record(endless, 0.5, tmp_path / "seen.mkv")
    assert [float(time) for time in times(tmp_path / "seen.mkv")] == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])


def test_a_camera_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=r"cannot open camera 97: .*; connect it, or name a video"):
        record_camera(97, 1, tmp_path / "seen.mkv")
    assert list(tmp_path.iterdir()) == []
