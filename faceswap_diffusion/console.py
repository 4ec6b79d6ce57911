"""Output of commands, whose failure never changes the exit code."""

import os
import sys


def ready_streams() -> None:
    """Makes standard output and error accept any text; characters outside their encoding are escaped."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the parent process
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - as long as the process
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say_interrupted(text: str) -> None:
    """Reports an interruption on standard error; a progress bar may have left its line unfinished."""
    at_terminal = sys.stderr is not None and sys.stderr.isatty()
    say(f"\n{text}" if at_terminal else text, error=True)


def say(text: str, *, error: bool = False) -> None:
    """Prints lines. If the reader has gone or the disk is full, they are silently lost.

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
        os.dup2(nowhere, stream.fileno())  # or the interpreter would try to flush again, and exit with another code
        os.close(nowhere)
