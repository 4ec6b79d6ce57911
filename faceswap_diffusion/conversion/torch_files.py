"""Reads weights from PyTorch files, memory-mapped and without running pickled code.

Both formats of PyTorch are supported: a zip archive with a pickle and a file for each storage, and the format before
version 1.6, several pickles followed by all storages. Safetensors files are supported as well.
"""

import mmap
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from faceswap_diffusion.weights.pickled import PickleReader, StorageRecord, TensorRecord

ZIP_SIGNATURE = b"PK\x03\x04"
LEGACY_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
# Exceptions that damaged data can cause.
UNREADABLE = (
    SafetensorError, zipfile.BadZipFile, zlib.error, OSError, EOFError, LookupError, OverflowError, RuntimeError,
    TypeError, ValueError,
)  # fmt: skip
LOCAL_HEADER = 30  # bytes before the name in an entry of a zip archive


@dataclass(frozen=True)
class Checkpoint:
    """The useful content of a weights file.

    Args:
        path (`Path`): The file.
        weights (`dict[str, torch.Tensor]`): Views into the memory-mapped file; they need no additional memory.
        training_state (`list[str]`): Other parts of the file, such as Lightning's "optimizer_states", which are not
            read.
    """

    path: Path
    weights: dict[str, torch.Tensor]
    training_state: list[str]


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Reads the weights of a PyTorch, Lightning or safetensors file.

    Args:
        path (`str` or `Path`): The file.

    Returns:
        [`Checkpoint`]: Its weights, on the CPU.

    Raises:
        ValueError: If there is no such file, it is truncated or no checkpoint, or a weight is no plain tensor.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    try:
        if path.suffix == ".safetensors":
            return Checkpoint(path, load_file(path), [])
        return _read_torch_file(path)
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read as a checkpoint, it may be truncated: {error}") from error


def _read_torch_file(path: Path) -> Checkpoint:
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    is_zip = mapped[: len(ZIP_SIGNATURE)] == ZIP_SIGNATURE
    root, starts = _read_archive(path, mapped) if is_zip else _read_legacy(mapped)
    if not isinstance(root, dict):
        raise ValueError("it holds no dictionary of weights")
    records = root.get("state_dict", root)
    if not isinstance(records, dict):
        raise ValueError("its state_dict is no dictionary")
    values = torch.frombuffer(mapped, dtype=torch.uint8)
    weights = {key: _tensor(key, record, values, starts) for key, record in records.items()}
    return Checkpoint(path, weights, [str(name) for name in root if records is not root and name != "state_dict"])


def _read_archive(path: Path, mapped: mmap.mmap) -> tuple[Any, dict[str, int]]:
    """Reads the pickle in a zip archive, and the offset of each storage in the file."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickled = next((name for name in entries if name.rpartition("/")[2] == "data.pkl"), None)
        if pickled is None:
            raise ValueError("it is a zip archive, but not one of PyTorch's")
        root = PickleReader().read(archive.read(pickled))
    folder = pickled.removesuffix("data.pkl") + "data/"
    starts = {}
    for name, entry in entries.items():
        if name.startswith(folder) and entry.compress_type == zipfile.ZIP_STORED:
            header = mapped[entry.header_offset : entry.header_offset + LOCAL_HEADER]
            lengths = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))  # of name and extra field
            starts[name.removeprefix(folder)] = entry.header_offset + LOCAL_HEADER + sum(lengths)
    return root, starts


def _read_legacy(mapped: mmap.mmap) -> tuple[Any, dict[str, int]]:
    """Reads the pickles in a file from before PyTorch 1.6, and the offset of each storage."""
    if PickleReader().read(mapped) != LEGACY_MAGIC_NUMBER:
        raise ValueError("it is a pickle, but not one of PyTorch's")
    _protocol, _system = PickleReader().read(mapped), PickleReader().read(mapped)
    reader = PickleReader()
    root, keys = reader.read(mapped), PickleReader().read(mapped)
    starts = {}
    position = mapped.tell()
    for key in keys:
        starts[key] = position + 8  # after the number of elements
        position = starts[key] + reader.storages[key].num_bytes
    return root, starts


def _tensor(key: Any, record: Any, values: torch.Tensor, starts: dict[str, int]) -> torch.Tensor:
    """The tensor that a record describes, as a view of the file's bytes `values` (uint8)."""
    if not isinstance(record, TensorRecord):
        raise ValueError(f"{key} is no plain tensor")
    storage = _storage(record.storage, values, starts)
    last = record.offset + sum((size - 1) * step for size, step in zip(record.shape, record.stride, strict=True))
    if min(record.offset, *record.shape, *record.stride, 0) < 0 or last >= record.storage.num_elements:
        raise ValueError(f"{key} reaches beyond its values")
    return torch.as_strided(storage, record.shape, record.stride, storage.storage_offset() + record.offset)


def _storage(record: StorageRecord, values: torch.Tensor, starts: dict[str, int]) -> torch.Tensor:
    start = starts[record.key]
    stored = values[start : start + record.num_bytes]
    if len(stored) < record.num_bytes:
        raise ValueError("it ends before its values do")
    if start % record.dtype.itemsize:
        stored = stored.clone()  # a view must start at a multiple of the item size
    return stored.view(record.dtype)
