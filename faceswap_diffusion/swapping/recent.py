"""What was worked out last, so that a photo that comes again is not looked at again."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

import numpy as np

Result = TypeVar("Result")


class Recent(Generic[Result]):
    """The latest results of a function, by what they were made of. Threads may share one.

    Args:
        limit (`int`): How many results are kept; the one that was asked for least recently goes first.
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._results: OrderedDict[Hashable, Result] = OrderedDict()
        self._lock = Lock()

    def get(self, key: Hashable, make: Callable[[], Result]) -> Result:
        """The result that is kept for a key, or else what `make` returns, which is kept from then on."""
        with self._lock:
            if key in self._results:
                self._results.move_to_end(key)
                return self._results[key]
        result = make()
        with self._lock:
            self._results[key] = result
            self._results.move_to_end(key)
            if len(self._results) > self.limit:
                self._results.popitem(last=False)
        return result


def pixels_key(rgb: np.ndarray) -> Hashable:
    """What tells a picture (H, W, 3) uint8 from all others."""
    return rgb.shape, hashlib.sha256(np.ascontiguousarray(rgb).data).digest()
