"""Fields of the dataclasses of `config`: a setting, which becomes an option, or a section of settings."""

from dataclasses import MISSING, field
from typing import Any, Literal

FIXED = "fixed"
"""The value that a run began with is the one that it goes on with."""

MAY_CHANGE = "may_change"
"""A run that goes on takes another value from then on."""

Resume = Literal["fixed", "may_change"]


def setting(default: Any = MISSING, *, help: str | None = None, kind: Any = None, resume: Resume = MAY_CHANGE) -> Any:
    """A field that is an option.

    Args:
        default (`Any`): Its default; an option without one has to be given.
        help (`str`, *optional*): What `--help` says.
        kind (`Any`, *optional*): Narrower type of a value, or of each value of a list; as annotated if left out.
        resume (`str`): `FIXED` or `MAY_CHANGE`.
    """
    return field(default=default, metadata={"help": help, "kind": kind, "resume": resume})


def section(title: str, *, description: str | None = None, prefix: str = "", **defaults: Any) -> Any:
    """A field that is a dataclass of options.

    Args:
        title (`str`): Of the group in `--help`.
        description (`str`, *optional*): Of the group.
        prefix (`str`): What the options' names begin with, before the fields'.
        **defaults: Where a script has other defaults than the dataclass.
    """
    return field(metadata={"title": title, "description": description, "prefix": prefix, "defaults": defaults})
