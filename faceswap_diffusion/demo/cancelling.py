"""Ends swaps that their users do not want any more."""

import threading


class CancelledError(ValueError):
    """A user ended the work."""


class Cancelling:
    """Which users have asked for the end of their swap. A user has one swap at a time."""

    def __init__(self):
        self._asked: dict[str, threading.Event] = {}

    def begin(self, session: str) -> threading.Event:
        """Begins a swap of a user, known by the page that is open; returns what says that it is to end."""
        self._asked[session] = threading.Event()
        return self._asked[session]

    def end(self, session: str) -> None:
        """Says that the swap of a user has ended."""
        self._asked.pop(session, None)

    def cancel(self, session: str) -> bool:
        """Asks for the end of a user's swap. Returns whether one is being made."""
        event = self._asked.get(session)
        if event is not None:
            event.set()
        return event is not None


def check(event: threading.Event) -> None:
    """Goes on, unless the end was asked for.

    Raises:
        CancelledError: If it was.
    """
    if event.is_set():
        raise CancelledError("cancelled: nothing of this swap is kept")
