"""Records on disk: whole or not there, in order, and never all in memory."""

from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.evaluation.records import Records, claim_folder, stack, stack_on_disk


def test_a_record_comes_back_as_it_was(tmp_path: Path):
    records = Records(tmp_path / "swaps")
    assert not records.has(3)
    records.write(3, {"detected": True, "pose": np.array([1.5, -2.0, 0.0]), "seconds": 0.25})
    assert records.has(3)
    record = records.read(3)
    assert record["detected"].item() is True
    assert record["seconds"].item() == 0.25
    np.testing.assert_array_equal(record["pose"], [1.5, -2.0, 0.0])
    assert [path.name for path in records.folder.iterdir()] == ["000003.npz"]


def test_objects_are_not_written(tmp_path: Path):
    with pytest.raises(ValueError, match="pickle"):
        Records(tmp_path).write(0, {"path": np.array([object()])})
    assert not Records(tmp_path).has(0)


def test_what_a_record_lacks_is_nan():
    rows = stack([{"a": np.array([1.0, 2.0])}, {"b": np.array(3.0)}], "a")
    np.testing.assert_array_equal(rows, [[1, 2], [np.nan, np.nan]])
    assert stack([{}, {}], "a") is None


def test_chunks_go_by_the_given_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("faceswap_diffusion.evaluation.records.ROWS_AT_ONCE", 2)
    records = Records(tmp_path / "records")
    for index in range(5):
        records.write(index, {"x": [index, index]} if index != 4 else {"y": 1})
    order = [4, 0, 3, 1, 2]
    assert [len(chunk) for chunk in records.chunks(order)] == [2, 2, 1]
    rows = stack_on_disk(records, order, "x", tmp_path / "rows.npy")
    assert isinstance(rows, np.memmap)
    np.testing.assert_array_equal(rows[:, 0], [np.nan, 0, 3, 1, 2])
    assert stack_on_disk(records, order, "z", tmp_path / "none.npy") is None


def test_a_folder_belongs_to_one_run(tmp_path: Path):
    folder = tmp_path / "report"
    claim_folder(folder, {"seeds": [0], "sets": {"london": 102}})
    claim_folder(folder, {"seeds": [0], "sets": {"london": 102}})
    with pytest.raises(ValueError, match=r"other settings \(ablate, seeds\)"):
        claim_folder(folder, {"seeds": [0, 1], "sets": {"london": 102}, "ablate": 3})
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").touch()
    with pytest.raises(ValueError, match="not a report"):
        claim_folder(tmp_path / "notes", {})
