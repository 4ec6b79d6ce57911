"""For mkdocstrings: turns types in the Hugging Face form of docstrings, as (`int`, *optional*), into plain ones."""

import re
from typing import Any

from griffe import Extension, Object  # pyright: ignore[reportMissingImports] - of the extra `docs`

ARGUMENT = re.compile(r"^(\s+[\w, ]+ )\((`.*?)\): ", re.MULTILINE)
RESULT = re.compile(r"\A(\s+)(`[^:\n]*): ")


def without_markup(docstring: str) -> str:
    """Takes backticks and asterisks out of the types of arguments and results."""
    plain = ARGUMENT.sub(lambda found: f"{found[1]}({_plain(found[2])}): ", docstring)
    before, returns, after = plain.partition("Returns:\n")
    return before + returns + RESULT.sub(lambda found: f"{found[1]}{_plain(found[2])}: ", after)


def _plain(kind: str) -> str:
    return kind.replace("`", "").replace("*", "")


class DocstringTypes(Extension):
    """Applies `without_markup` to every docstring that is collected."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrites the docstring of an object."""
        if obj.docstring:
            obj.docstring.value = without_markup(obj.docstring.value)
