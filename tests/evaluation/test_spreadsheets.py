"""Tables as spreadsheets save them, with a byte order mark in front."""

from pathlib import Path

import pytest
from PIL import Image

from faceswap_diffusion.evaluation.protocol import listed_pairs
from faceswap_diffusion.training.data.photo_sources import open_folders
from faceswap_diffusion.training.engine.history import StepTable


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("a.png", "b.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    return tmp_path


def test_a_byte_order_mark_is_no_part_of_a_column(photos: Path):
    (photos / "pairs.csv").write_text("source,target\na.png,b.png\n", encoding="utf-8-sig")
    (pair,) = listed_pairs(photos / "pairs.csv").pairs
    assert (Path(pair.source).name, Path(pair.target).name) == ("a.png", "b.png")
    (photos / "people.csv").write_text("file,identity\na.png,ann\n", encoding="utf-8-sig")
    assert open_folders([photos], identity_csv=photos / "people.csv").identities == ["ann", None]
    (photos / "history.csv").write_text("step,loss\n1,0.5\n", encoding="utf-8-sig")
    assert StepTable(photos / "history.csv").rows() == [{"step": 1.0, "loss": 0.5}]
