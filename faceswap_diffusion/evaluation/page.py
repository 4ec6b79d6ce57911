"""The report as a self-contained HTML page: tables, bars with intervals, pictures, settings, licences."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from faceswap_diffusion.evaluation.figures import Row, show
from faceswap_diffusion.evaluation.methods import Method
from faceswap_diffusion.evaluation.protocol import PairSet
from faceswap_diffusion.evaluation.report import (
    ONE_PERSON,
    REFACE_SETS,
    ablation_cells,
    cell,
    facts_line,
    kind_cells,
    recognizer_note,
    reface_cells,
    reference_text,
    shown_rows,
    step_cells,
)
from faceswap_diffusion.evaluation.run import Evaluation
from faceswap_diffusion.evaluation.summary import Values
from faceswap_diffusion.writing import write_text

NUM_WORST, NUM_RANDOM = 10, 20
TRIPLE_HEIGHT = 128
BARS = (
    "closer_to_source", "retrieves_source", "pose_error", "expression_error", "landmark_error", "light_angle",
    "skin_tone_to_target", "sharpness_crop", "border_step", "fid",
)  # fmt: skip
"""Figures that are drawn as bars; the first two have one plot for each recogniser."""


def write_page(
    report: dict[str, Any],
    values: dict[str, dict[str, Values]],
    evaluation: Evaluation,
    sets: Sequence[PairSet],
    without_pictures: Sequence[str] = (),
) -> Path:
    """Writes report.html.

    Args:
        report (`dict[str, Any]`): See `report.build_report`.
        values (`dict[str, dict[str, Values]]`): See `report.build_report`.
        evaluation ([`Evaluation`]): The evaluation, which knows the paths of the pictures.
        sets (`Sequence[PairSet]`): What was measured.
        without_pictures (`Sequence[str]`): Sets whose pictures are not shown.

    Returns:
        `Path`: The page.
    """
    environment = Environment(
        loader=PackageLoader("faceswap_diffusion.evaluation", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    sections = [
        set_section(report, values, evaluation, pair_set, pair_set.name not in without_pictures) for pair_set in sets
    ]
    html = environment.get_template("page.html.j2").render(report=report, sections=sections, facts_line=facts_line)
    path = evaluation.folder / "report.html"
    write_text(path, html)
    return path


def set_section(
    report: dict[str, Any],
    values: dict[str, dict[str, Values]],
    evaluation: Evaluation,
    pair_set: PairSet,
    with_pictures: bool,
) -> dict[str, Any]:
    """The section of the page for one set."""
    name = pair_set.name
    figures = report["sets"][name]
    shown = [method for method in evaluation.methods if method.generated] or list(evaluation.methods)
    return {
        "name": name,
        "pairs": figures["pairs"],
        "reference": reference_text(figures),
        "note": ONE_PERSON if figures["one_person"] else "",
        "methods": list(figures["methods"]),
        "rows": [table_row(report, figures["methods"], row) for row in shown_rows(report, name)],
        "reface": reface_cells(report, name) if name in REFACE_SETS else [],
        "bars": [bar_plot(row, figures["methods"]) for row in drawn_rows(report, name)],
        "tables": further_tables(report, name),
        "galleries": [gallery(evaluation, pair_set, method, values[name][method.name]) for method in shown]
        if with_pictures
        else [],
    }


def further_tables(report: dict[str, Any], set_name: str) -> list[tuple[str, str, tuple[list[str], list[list[str]]]]]:
    """Title, note, header and cells of the tables below a set's main table: numbers of steps, removed conditions."""
    recognizers = report["recognizers"]
    steps = [
        (f"{method}: by the number of denoising steps", "With the first seed.", step_cells(rows, recognizers))
        for method, rows in report["steps"][set_name].items()
    ]
    removed = "A removed condition is replaced by its mean over the set."
    kinds = [
        (f"{method}: by what is in front of the faces", "Means over pairs and seeds.", kind_cells(rows, recognizers))
        for method, rows in report["kinds"][set_name].items()
    ]
    return (
        kinds
        + steps
        + [
            (f"{method}: each condition removed in turn", removed, ablation_cells(rows, recognizers))
            for method, rows in report["ablation"][set_name].items()
        ]
    )


def table_row(report: dict[str, Any], methods: dict[str, Any], row: Row) -> dict[str, Any]:
    """Label, cells and goal of one figure."""
    return {
        "label": row.label + recognizer_note(report, row),
        "better": row.better,
        "goal": row.goal,
        "cells": [cell(row, figures, figures["detected"]["count"]) for figures in methods.values()],
    }


def drawn_rows(report: dict[str, Any], set_name: str) -> list[Row]:
    """The rows of the figures that are drawn as bars; recognisers only without mask."""
    wanted = {f"{name}_{key}" for name in report["recognizers"] for key in BARS[:2]} | {*BARS[2:]}
    return [row for row in shown_rows(report, set_name) if row.key in wanted]


def bar_plot(row: Row, methods: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Bars and intervals of one figure for each method, as shares of the width."""
    present = {name: figures[row.key] for name, figures in methods.items() if row.key in figures}
    ends = [figure[end] for figure in present.values() for end in ("value", "high") if figure[end] is not None]
    greatest = max([*ends, 1.0 if "%" in row.form else 0.0]) or 1.0
    bars = [
        {
            "method": name,
            "text": show(row, figure["value"]),
            "width": 100 * max(0.0, figure["value"]) / greatest,
            "low": None if figure["low"] is None else 100 * max(0.0, figure["low"]) / greatest,
            "high": None if figure["high"] is None else 100 * max(0.0, figure["high"]) / greatest,
        }
        for name, figure in present.items()
        if figure["value"] is not None
    ]
    return {"label": row.label, "better": row.better, "bars": bars}


def gallery(evaluation: Evaluation, pair_set: PairSet, method: Method, values: Values) -> dict[str, Any]:
    """The worst ten and twenty random swaps of a method, with its first seed."""
    badness = swap_badness(values, list(evaluation.networks.recognizers), method.facts.get("conditioned_by"))
    worst = np.argsort(-badness, kind="stable")[:NUM_WORST]
    count = len(pair_set.pairs)
    drawn = np.sort(np.random.default_rng(0).choice(count, min(NUM_RANDOM, count), replace=False))
    return {
        "method": method.name,
        "worst": [triple(evaluation, pair_set, method, int(index)) for index in worst],
        "random": [triple(evaluation, pair_set, method, int(index)) for index in drawn],
    }


def swap_badness(values: Values, recognizers: Sequence[str], conditioned_by: str | None) -> np.ndarray:
    """How bad each swap (N,) of the first seed is.

    It is the cosine to the target minus the cosine to the source, by the first held-out recogniser. Where the target
    is the ground truth, it is the negative PSNR of the face. A swap without a face is the worst.
    """
    held_out = [name for name in recognizers if name != conditioned_by] or list(recognizers)
    badness = values[f"{held_out[0]}_cosine_to_target"][0] - values[f"{held_out[0]}_cosine_to_source"][0]
    if "face_psnr" in values:
        badness = np.where(np.isnan(badness), np.nan, -values["face_psnr"][0])
    return np.where(np.isnan(badness), np.inf, badness)


def triple(evaluation: Evaluation, pair_set: PairSet, method: Method, index: int) -> dict[str, str]:
    """Source, target and result of a swap side by side, as a data URI, with their names."""
    pair, photos = pair_set.pairs[index], evaluation.photos(pair_set)
    records = evaluation.records(pair_set, method, evaluation.seeds_of(method)[0])
    paths = [evaluation.picture(photos.records, number) for number in photos.of([pair.source, pair.target])]
    paths.append(evaluation.picture(records, index))
    pictures = [small_picture(path) for path in paths if path.is_file()]
    joined = Image.new("RGB", (sum(picture.width for picture in pictures), TRIPLE_HEIGHT))
    left = 0
    for picture in pictures:
        joined.paste(picture, (left, 0))
        left += picture.width
    buffer = io.BytesIO()
    joined.save(buffer, "JPEG", quality=85)
    encoded = base64.b64encode(buffer.getvalue()).decode()
    missing = "" if len(pictures) == len(paths) else " (no swap was made)"
    return {
        "uri": f"data:image/jpeg;base64,{encoded}",
        "text": f"{pair.source.name} into {pair.target.name}{missing}",
    }


def small_picture(path: Path) -> Image.Image:
    """A picture resized to the height of the page's triples."""
    with Image.open(path) as picture:
        width = max(1, round(picture.width * TRIPLE_HEIGHT / picture.height))
        return picture.convert("RGB").resize((width, TRIPLE_HEIGHT), Image.Resampling.LANCZOS)
