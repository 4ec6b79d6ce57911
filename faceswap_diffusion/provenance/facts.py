"""The facts of how a picture was made, as JSON."""

import json
from typing import Any

import numpy as np


def plain_number(value: Any) -> Any:
    """What JSON has for a number of NumPy."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def read_facts(text: str) -> dict[str, Any] | None:
    """Facts from the JSON of a file that anybody may have written; `None` if it is none, or no object."""
    try:
        facts = json.loads(text)
    except ValueError:
        return None
    return facts if isinstance(facts, dict) else None
