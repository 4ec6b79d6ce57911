"""Stages of work that run at the same time, each in a thread, with short queues between them."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
PATIENCE = 0.1  # seconds after which a waiting thread looks whether it is still needed


class _Channel(Generic[Item]):
    """A short queue between two threads, which hands over items, the end and what went wrong."""

    def __init__(self, size: int):
        self._queue: Queue[tuple[str, Item | BaseException | None]] = Queue(size)
        self._closed = Event()

    def put(self, kind: str, content: Item | BaseException | None = None) -> bool:
        """Puts something in; false if nobody takes it any more."""
        while not self._closed.is_set():
            try:
                self._queue.put((kind, content), timeout=PATIENCE)
                return True
            except Full:
                continue
        return False

    def __iter__(self) -> Iterator[Item]:
        while not self._closed.is_set():
            try:
                kind, content = self._queue.get(timeout=PATIENCE)
            except Empty:
                continue
            if kind == "end":
                return
            if kind == "error":
                raise content  # pyright: ignore[reportGeneralTypeIssues]
            yield content  # pyright: ignore[reportReturnType]

    def close(self) -> None:
        """Ends both sides."""
        self._closed.set()


@contextmanager
def ahead(items: Iterable[Item], size: int) -> Iterator[Iterator[Item]]:
    """Makes items in a thread, a few ahead of who takes them.

    Args:
        items (`Iterable`): What they come from; an error in it is raised where they are taken.
        size (`int`): How many may wait.

    Yields:
        `Iterator`: The same items. The thread has ended when the block has.
    """
    channel: _Channel[Item] = _Channel(size)

    def produce() -> None:
        try:
            for item in items:
                if not channel.put("item", item):
                    return
            channel.put("end")
        except BaseException as error:
            channel.put("error", error)

    thread = Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield iter(channel)
    finally:
        channel.close()
        thread.join()


@contextmanager
def behind(work: Callable[[Iterator[Item]], None], size: int) -> Iterator[Callable[[Item], None]]:
    """Works on items in a thread, a few behind who makes them.

    Args:
        work (`Callable`): Takes an iterator over the items. An error in it is raised where they are made. If the
            block fails, so does its iterator.
        size (`int`): How many may wait.

    Yields:
        `Callable`: Takes an item. At the end of the block all of them have been worked on.
    """
    channel: _Channel[Item] = _Channel(size)
    failures: list[BaseException] = []

    def consume() -> None:
        try:
            work(iter(channel))
        except BaseException as error:
            failures.append(error)
            channel.close()

    thread = Thread(target=consume, daemon=True)
    thread.start()

    def give(item: Item) -> None:
        if not channel.put("item", item):
            raise failures[0]

    try:
        yield give
        channel.put("end")
    except BaseException:
        channel.put("error", GeneratorExit())
        thread.join()
        raise
    thread.join()
    if failures:
        raise failures[0]
