"""What commands print: it never decides how they end."""

import os
import sys


def ready_streams() -> None:
    """Makes standard output and error take any text: what their encoding lacks is written as an escape sequence."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # it was closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(text: str, *, error: bool = False) -> None:
    """Prints lines; if nobody reads them any more or the disk is full, they are lost and nothing else.

    Args:
        text (`str`): The lines.
        error (`bool`): Whether they go to standard error.
    """
    stream = sys.stderr if error else sys.stdout
    if stream is None:
        return
    try:
        stream.write(f"{text}\n")
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())  # or the interpreter would try once more, and exit with a code of its own
        os.close(nowhere)
