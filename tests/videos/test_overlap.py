"""Stages in threads: everything in order, errors where the work is, and no thread left over."""

import threading
import time
from collections.abc import Iterator

import pytest

from faceswap_diffusion.videos.overlap import ahead, behind


def test_items_come_in_order_a_few_ahead():
    made = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            made.append(number)
            yield number

    with ahead(numbers(), 3) as items:
        first = next(items)
        time.sleep(0.2)
        assert len(made) <= 6  # taken, waiting three, and the one in hand
        assert [first, *items] == list(range(50))


def test_items_are_worked_on_in_order_and_all_of_them():
    done = []

    def work(items: Iterator[int]) -> None:
        for item in items:
            time.sleep(0.001)
            done.append(item)

    with behind(work, 3) as give:
        for number in range(50):
            give(number)
    assert done == list(range(50))


def failing(number: int) -> Iterator[int]:
    yield from range(number)
    raise OSError("disk")


def test_an_error_ahead_is_raised_where_items_are_taken():
    with ahead(failing(3), 2) as items:
        assert [next(items) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(OSError, match="disk"):
            next(items)


def test_an_error_behind_is_raised_where_items_are_made():
    def work(items: Iterator[int]) -> None:
        next(items)
        raise OSError("full")

    given = []

    def make() -> None:
        with behind(work, 1) as give:
            for number in range(1000):
                give(number)
                given.append(number)

    with pytest.raises(OSError, match="full"):
        make()
    assert len(given) < 10


def test_an_error_in_between_ends_both_threads():
    ends = []

    def work(items: Iterator[int]) -> None:
        try:
            for _ in items:
                pass
        except GeneratorExit:
            ends.append("stopped")
            raise

    def interrupted() -> None:
        with ahead(iter(range(10**9)), 2) as items, behind(work, 2) as give:
            give(next(items))
            raise KeyboardInterrupt

    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert ends == ["stopped"]
    assert threading.active_count() == before
