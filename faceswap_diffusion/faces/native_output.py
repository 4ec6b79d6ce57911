"""Hides what native libraries print while they load networks."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Discards what is written to stderr, including what native code writes.

    LiteRT announces its CPU delegate there and has no setting to turn that off. OpenCV 5 warns about what its own
    constructor does, and its setting has another name than in OpenCV 4.
    """
    try:
        saved = os.dup(2)
    except OSError:  # a process without stderr, such as a service
        yield
        return
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
