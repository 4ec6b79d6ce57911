"""The facts of how a picture was made, as JSON."""

from typing import Any

import numpy as np


def plain_number(value: Any) -> Any:
    """What JSON has for a number of NumPy."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")
