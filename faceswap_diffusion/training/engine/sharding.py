"""Folders of shards, which several processes write: a shard is there, whole, or not there."""

import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, Protocol

import cv2
import torch

from faceswap_diffusion.writing import remove_left_overs, write_text


class ShardWriter(Protocol):
    """Writes shard after shard."""

    def write(self, number: int) -> int:
        """Writes a shard and returns its number."""
        ...


def write_description(path: Path, description: dict[str, Any]) -> None:
    """Writes what a folder says of itself, as JSON."""
    write_text(path, json.dumps(description, indent=2) + "\n")


def begin_folder(path: Path, wanted: dict[str, Any], what: str, remedy: str = "another --output_dir") -> None:
    """Describes a new folder, or compares with what is in it; clears away what a killed run left half written.

    Args:
        path (`Path`): The folder's description.
        wanted (`dict[str, Any]`): The content that is wanted.
        what (`str`): What an error calls that which has to be the same.
        remedy (`str`): What to give in place of it.

    Raises:
        ValueError: If the folder was begun otherwise.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_left_overs(path.parent)
    if not path.exists():
        write_description(path, wanted)
        return
    found = json.loads(path.read_text(encoding="utf-8"))
    for key, value in json.loads(json.dumps(wanted)).items():
        if found.get(key) != value:
            raise ValueError(
                f"{path.parent} was begun with {key} {found.get(key)}, now it is {value}: give the same {what} as "
                f"then, or {remedy}"
            )


def write_shards(
    build: Callable[..., ShardWriter], arguments: Sequence[Any], numbers: Sequence[int], num_workers: int
) -> Iterator[int]:
    """Writes shards, and yields the number of each one that is done.

    Args:
        build (`Callable`): Makes a writer; found by its name in other processes.
        arguments (`Sequence[Any]`): What it takes.
        numbers (`Sequence[int]`): Of the shards to write.
        num_workers (`int`): Processes; with 1 it is this one.
    """
    num_workers = min(num_workers, len(numbers))
    if num_workers <= 1:
        yield from map(build(*arguments).write, numbers) if num_workers else ()
        return
    # Not forked: torch and LiteRT have threads of their own by now.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(num_workers, context, _start_worker, (build, *arguments))
    try:
        for future in as_completed([pool.submit(_write_in_worker, number) for number in numbers]):
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_writer: ShardWriter


def _start_worker(build: Callable[..., ShardWriter], *arguments: Any) -> None:
    """Makes a process ready, which ends when its parent does."""
    global _writer
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _writer = build(*arguments)


def _end_with_parent() -> None:
    wait([multiprocessing.parent_process().sentinel])  # pyright: ignore[reportOptionalMemberAccess]
    os._exit(1)


def _write_in_worker(number: int) -> int:
    return _writer.write(number)
