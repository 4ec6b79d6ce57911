"""Turns what benchmarks/gpu.sh measured into tables.

    python -m benchmarks.render outputs/gpu                                       # prints them
    python -m benchmarks.render outputs/gpu --page docs/guides/performance.md     # puts them into the page

In the page the tables replace what is between two lines, `<!-- gpu: begin -->` and `<!-- gpu: end -->`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.speed import rows_of, table_lines
from benchmarks.training import HEADER, Case, Measured, Row, row_text
from faceswap_diffusion.writing import write_text

BEGIN, END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
PARTS = ("tests", "steps_50", "steps_10", "steps_4", "batches_4", "batches_16", "training")
"""Parts of gpu.sh, in the order of the page."""


def build_parser() -> argparse.ArgumentParser:
    """Builds the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.render", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="that benchmarks/gpu.sh wrote")
    parser.add_argument("--page", type=Path, metavar="MARKDOWN", help="put the tables there")
    return parser


def render(folder: Path) -> str:
    """The tables of all parts that are in a folder.

    Raises:
        ValueError: If there is none.
    """
    found = {name: json.loads(path.read_text()) for name in PARTS if (path := folder / f"{name}.json").is_file()}
    if not found:
        raise ValueError(f"{folder} holds no figures: run benchmarks/gpu.sh {folder} first")
    missing = [name for name in PARTS if name not in found]
    sections = [render_part(name, figures) for name, figures in found.items()]
    if missing:
        sections.append(f"Not measured: {', '.join(missing)}.")
    return "\n\n".join(sections) + "\n"


def render_part(name: str, figures: dict[str, Any]) -> str:
    """What one JSON says, in Markdown."""
    if name == "tests":
        return f"Tests that need a GPU: {figures['tests']}."
    if name == "training":
        rows = [_training_row(row) for row in figures["rows"]]
        lines = [row_text(row, rows[0]) for row in rows]
        return "\n".join([f"Training, on {figures['device']}:\n", HEADER, *lines])
    return "\n".join([f"    {figures['command']}\n", figures["run"], "", *table_lines(rows_of(figures))])


def _training_row(row: dict[str, Any]) -> Row:
    measured = row["measured"]
    return Row(Case(**row["case"]), None if measured is None else Measured(**measured))


def put_into(page: str, tables: str) -> str:
    """A page with new tables.

    Raises:
        ValueError: If it does not say where they belong.
    """
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page lacks the lines {BEGIN} and {END}, between which the tables belong: add them")
    return f"{head}{begin}\n{tables}{end}{tail}"


def main(arguments: list[str] | None = None) -> int:
    """Prints the tables, or puts them into a page; 2 for a user's error."""
    args = build_parser().parse_args(arguments)
    try:
        tables = render(args.folder)
        if args.page is None:
            sys.stdout.write(tables)
        else:
            write_text(args.page, put_into(args.page.read_text(), tables))
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
