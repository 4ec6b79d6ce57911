"""What a frame of a video costs."""

import json
from pathlib import Path

import pytest

from benchmarks import video
from tests.clips import SOURCE, moving_face, write_clip
from tests.tiny import tiny_pipeline


def test_a_video_is_measured_frame_by_frame(tmp_path: Path, capsys: pytest.CaptureFixture):
    tiny_pipeline(crop_size=64).save_pretrained(tmp_path / "tiny")
    clip = write_clip(tmp_path / "clip.mp4", moving_face(4, (96, 96)), durations=[3600], sound=False)
    arguments = [str(SOURCE), str(clip), "--checkpoint", str(tmp_path / "tiny"), "--end", "0.1"]
    assert video.main([*arguments, "--output", str(tmp_path / "figures.json")]) == 0
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert figures["frames"] == 3
    assert 0 < figures["stages"]["diffuse"] < figures["seconds"] * 4
    assert figures["processor_seconds"] > 0
    assert capsys.readouterr().out.startswith(f"a frame: {figures['processor_seconds']:.3f} s of processors")
    assert video.main([str(SOURCE), str(tmp_path / "none.mp4"), *arguments[2:4]]) == 2
