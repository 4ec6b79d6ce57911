"""No file of a stranger gives a traceback, a wait, or more memory than it has a right to.

The number of inputs is small here. For many:
`FACESWAP_FUZZ_INPUTS=20000 FACESWAP_FUZZ_SEED=1 pytest tests/fuzzing/test_readers.py -s`, with one seed after another.
"""

import os
import resource
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzzing.readers import READERS, Reader, check_line

INPUTS = int(os.environ.get("FACESWAP_FUZZ_INPUTS", "150"))
SEED = int(os.environ.get("FACESWAP_FUZZ_SEED", "0"))
LONGEST = 10.0  # seconds
MOST_MEMORY = 1 << 30  # bytes beyond what was used before

CHANGES = ("flip", "set", "insert", "remove", "repeat", "cut")
Change = tuple[str, float, bytes]


def changed(content: bytes, changes: list[Change]) -> bytes:
    """Makes changes at places that are shares of the length."""
    data = bytearray(content)
    for kind, place, what in changes:
        at = min(int(place * len(data)), max(len(data) - 1, 0))
        if kind == "flip" and data:
            data[at] ^= 1 << (what[0] % 8 if what else 0)
        elif kind == "set":
            data[at : at + len(what)] = what
        elif kind == "insert":
            data[at:at] = what
        elif kind == "remove":
            del data[at : at + max(1, len(what))]
        elif kind == "repeat":
            data[at:at] = data[at : at + 16 * max(1, len(what))]
        elif kind == "cut":
            del data[at:]
    return bytes(data)


# Lengths and counts are mostly at the beginning of a file.
PLACES = st.one_of(st.floats(0, 1, exclude_max=True), st.floats(0, 0.1))
WHAT = st.one_of(
    st.binary(max_size=8), st.sampled_from([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4), b"-1", b'"'])
)
INPUT = st.tuples(st.integers(0, 6), st.lists(st.tuples(st.sampled_from(CHANGES), PLACES, WHAT), max_size=6))


@cache
def reader_of(name: str) -> Reader:
    return READERS[name]()


def peak() -> int:
    """Most bytes that this process had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def look(reader: Reader, index: int, content: bytes) -> bool:
    """Reads an input; whether it was taken for a good one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"input{reader.suffixes[index]}")
        path.write_bytes(content)
        started, taken = time.perf_counter(), True
        try:
            reader.read(path)
        except reader.expected as error:
            check_line(error)
            taken = False
        assert time.perf_counter() - started < LONGEST
        return taken


@pytest.mark.parametrize("name", READERS)
def test_changed_files_are_read_or_refused_in_one_line(name: str):
    reader = reader_of(name)
    for index, content in enumerate(reader.seeds):
        assert look(reader, index, content) or name in ("weights", "configs", "job lists")
    before, started, counts = peak(), time.perf_counter(), {True: 0, False: 0}

    @seed(SEED)
    @settings(
        max_examples=max(5, int(reader.share * INPUTS)), deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(INPUT)
    def read(drawn: tuple[int, list[Change]]) -> None:
        index = drawn[0] % len(reader.seeds)
        counts[look(reader, index, changed(reader.seeds[index], drawn[1]))] += 1

    read()
    seconds, grown = time.perf_counter() - started, peak() - before
    print(  # noqa: T201 - the figures of a long run
        f"{name}: {sum(counts.values())} inputs in {seconds:.0f} s, {counts[False]} refused, {grown >> 20} MB more"
    )
    assert grown < MOST_MEMORY


@pytest.mark.parametrize("name", READERS)
def test_arbitrary_bytes_are_refused_in_one_line(name: str):
    reader = reader_of(name)

    @seed(SEED)
    @settings(
        max_examples=max(3, int(reader.share * INPUTS / 3)), deadline=None, database=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.integers(0, 6), st.binary(max_size=200))
    def read(number: int, content: bytes) -> None:
        look(reader, number % len(reader.seeds), content)

    read()


def test_changes_are_what_they_say():
    assert changed(b"abcd", [("flip", 0.0, b"\0")]) == b"`bcd"
    assert changed(b"abcd", [("set", 0.5, b"xy")]) == b"abxy"
    assert changed(b"abcd", [("insert", 0.25, b"xy")]) == b"axybcd"
    assert changed(b"abcd", [("remove", 0.25, b"xy")]) == b"ad"
    assert changed(b"abcd", [("repeat", 0.5, b"")]) == b"abcdcd"
    assert changed(b"abcd", [("cut", 0.5, b"")]) == b"ab"
    assert changed(b"", [("flip", 0.9, b"")]) == b""
