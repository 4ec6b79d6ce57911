"""Stopping a run from outside: it finishes its step, saves, and leaves."""

import signal
from types import FrameType, TracebackType
from typing import Any

import torch
from accelerate import Accelerator


class StopSignal:
    """While this context is entered, SIGTERM and the first SIGINT ask a run to stop, and do nothing else.

    A second SIGINT (Ctrl-C) acts as it did before. Handlers can be set in the main thread only.
    """

    def __init__(self):
        self._asked = False
        self._former: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignal":
        """Sets the handlers."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self._former[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Restores the handlers that there were before."""
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._former[signal.SIGINT])

    def requested(self, accelerator: Accelerator) -> bool:
        """Whether any process of a run was asked to stop; all processes call this together, and agree.

        Args:
            accelerator (`Accelerator`): Of the run.
        """
        if accelerator.num_processes == 1:
            return self._asked
        asked = torch.tensor(float(self._asked), device=accelerator.device)
        return bool(torch.as_tensor(accelerator.reduce(asked, "sum")).item())
