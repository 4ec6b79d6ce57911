"""Measurements on disk: one file for each picture and each swap, so that a killed run can continue."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from faceswap_diffusion.writing import whole_file, write_text

Record = dict[str, np.ndarray]
ROWS_AT_ONCE = 256


class Records:
    """Numbered records in a folder. Each is a dictionary of arrays, written completely or not at all.

    Args:
        folder (`Path`): The folder; it is created with the first record.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def path(self, index: int) -> Path:
        """The file of a record."""
        return self.folder / f"{index:06d}.npz"

    def has(self, index: int) -> bool:
        """Whether a record exists."""
        return self.path(index).is_file()

    def read(self, index: int) -> Record:
        """Reads a record."""
        with np.load(self.path(index), allow_pickle=False) as arrays:
            return dict(arrays)

    def read_array(self, index: int, name: str) -> np.ndarray | None:
        """Reads a single array of a record; `None` if it has none of that name."""
        with np.load(self.path(index), allow_pickle=False) as arrays:
            return arrays.get(name)

    def write(self, index: int, record: dict[str, Any]) -> None:
        """Writes a record."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path(index)) as unfinished, unfinished.open("wb") as file:
            np.savez_compressed(
                file, allow_pickle=False, **{name: np.asarray(value) for name, value in record.items()}
            )

    def chunks(self, indices: Sequence[int]) -> Iterator[list[Record]]:
        """Records in blocks, in the order of `indices`, so that memory does not grow with their number."""
        for start in range(0, len(indices), ROWS_AT_ONCE):
            yield [self.read(index) for index in indices[start : start + ROWS_AT_ONCE]]


def stack(records: Sequence[Record], name: str) -> np.ndarray | None:
    """Stacks an array of several records to (N, ...) float64; NaN if a record lacks it, `None` if all lack it."""
    shape = next((record[name].shape for record in records if name in record), None)
    if shape is None:
        return None
    missing = np.full(shape, np.nan)
    return np.stack([record.get(name, missing).astype(np.float64) for record in records])


def stack_on_disk(records: Records, indices: Sequence[int], name: str, path: Path) -> np.ndarray | None:
    """Stacks a vector of many records to a memory map (N, D) float32, with NaN for records that lack it.

    Args:
        records (`Records`): The records.
        indices (`Sequence[int]`): Their indices, in this order.
        name (`str`): Name of the array.
        path (`Path`): File of the memory map.

    Returns:
        `np.ndarray`: (N, D), or `None` if no record has it.
    """
    rows: np.ndarray | None = None
    for row, index in enumerate(indices):
        vector = records.read_array(index, name)
        if rows is None and vector is not None:
            shape = (len(indices), len(vector))
            rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
            rows[:row] = np.nan
        if rows is not None:
            rows[row] = np.nan if vector is None else vector
    return rows


def claim_folder(folder: Path, settings: dict[str, Any]) -> None:
    """Claims a report folder for this run. A run can be continued only with the settings it was started with.

    Args:
        folder (`Path`): Folder of the report.
        settings (`dict[str, Any]`): Everything that the records depend on, JSON-serialisable.

    Raises:
        ValueError: If the folder contains something else, or a run with other settings.
    """
    path = folder / "settings.json"
    settings = json.loads(json.dumps(settings))
    if path.is_file():
        begun = json.loads(path.read_text(encoding="utf-8"))
        changed = sorted(name for name in begun.keys() | settings if begun.get(name) != settings.get(name))
        if changed:
            raise ValueError(f"{folder} was started with other settings ({', '.join(changed)}): choose another folder")
        return
    if folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty and not a report: choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(settings, indent=2) + "\n")
