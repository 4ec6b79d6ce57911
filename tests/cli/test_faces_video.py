"""`faceswap-diffusion faces` with a video."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.cli.faces_video import PICTURE_SIDE, TrackSummary, track_line, track_sheet

pytest.importorskip("av")


def test_tracks_of_a_video_are_listed_with_pictures(tmp_path: Path, capsys: pytest.CaptureFixture):
    from tests.clips import moving_face, write_clip

    video = write_clip(tmp_path / "clip.mp4", moving_face(5), durations=[3600] * 5, sound=False)
    sheet = tmp_path / "tracks.png"
    assert cli.main(["faces", str(video), "-o", str(sheet), "--json", "--quiet"]) == 0
    (track,) = json.loads(capsys.readouterr().out)["tracks"]
    assert track["track"] == 0
    assert track["frames"] == 5
    assert (track["first"], track["last"]) == (0.0, 0.16)
    low, high = track["height"]
    assert 30 < low <= high < 128
    assert -30 < track["yaw"][0] <= track["yaw"][1] < 30
    with Image.open(sheet) as picture:
        assert picture.size == (PICTURE_SIDE, PICTURE_SIDE)
        assert np.asarray(picture).std() > 20  # a face, not a blank


def test_folder_without_pictures_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture):
    assert cli.main(["faces", str(tmp_path)]) == 2
    assert "has no pictures in it" in capsys.readouterr().err


def test_track_as_a_line_and_on_a_sheet():
    picture = np.full((PICTURE_SIDE, PICTURE_SIDE, 3), 80, np.uint8)
    summary = TrackSummary(3, 1.0, 2.5, 38, (80.4, 120.6), (-12.3, 4.0), picture, 1.0)
    expected = "3: 1.00 to 2.50 s, 38 frames, 80 to 121 px high, yaw -12 to +4 degrees"
    assert track_line(summary) == expected
    assert track_sheet([summary] * 7).size == (6 * PICTURE_SIDE, 2 * PICTURE_SIDE)
