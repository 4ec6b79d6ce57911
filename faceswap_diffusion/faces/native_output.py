"""What native libraries print while they load networks."""

import contextlib
import os
from collections.abc import Iterator


@contextlib.contextmanager
def silenced_stderr() -> Iterator[None]:
    """Drops what is written to stderr meanwhile, by native code too.

    LiteRT announces its CPU delegate there, OpenCV 5 warns of what its own constructor does. The first has no setting
    against it, and OpenCV's was moved from release 4 to 5.
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
