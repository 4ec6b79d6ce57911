"""The evaluation as data (JSON, CSV), as tables (Markdown), and as a section for a model card."""

import csv
import json
import math
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import diffusers
import torch

from faceswap_diffusion import __version__
from faceswap_diffusion.evaluation.ablation import CONDITIONS
from faceswap_diffusion.evaluation.figures import (
    NEVER_AVAILABLE,
    REFACE_NETWORKS,
    REFACE_ROWS,
    Row,
    figure_rows,
    show,
)
from faceswap_diffusion.evaluation.methods import Method, WithoutCondition
from faceswap_diffusion.evaluation.model_index import model_index
from faceswap_diffusion.evaluation.occluded import figures_by_kind, sides_covered
from faceswap_diffusion.evaluation.protocol import PairSet
from faceswap_diffusion.evaluation.records import Records
from faceswap_diffusion.evaluation.run import Evaluation
from faceswap_diffusion.evaluation.summary import SetSummary, Values
from faceswap_diffusion.metrics.statistics import Figure
from faceswap_diffusion.versions import installed_versions
from faceswap_diffusion.weights.card import CARD_FIGURES, CARD_SECTION
from faceswap_diffusion.writing import whole_file, write_text

CONDITION_NAMES = {
    "none": "nothing",
    "identity_embeds": "identity",
    "source_clip_embeds": "image features of the source",
    "target_clip_embeds": "image features of the target",
    "landmarks": "landmarks of the target",
}
REFACE_SETS = ("celebahq", "ffhq")
CARD_KEYS = (
    "pairs", "detected",
    "sface_closer_to_source", "sface_retrieves_source", "sface_cosine_to_source", "sface_cosine_to_target",
    "w600k_closer_to_source", "w600k_retrieves_source", "w600k_cosine_to_source", "w600k_cosine_to_target",
    "pose_error", "6drepnet_pose_error", "expression_closer_to_target", "expression_error", "gaze_error",
    "mouth_opening_error", "light_angle", "face_psnr", "face_lpips", "fid", "kid",
    "occluder_unchanged", "free_left_alone", "occlusion_iou", "bare_covered",
    "sharpness_crop", "sharpness_photo", "border_step", "unpainted_identical", "seconds",
)  # fmt: skip
CARD_REFERENCES = ("classical warp", "reference alone")
"""Baselines that a model card shows next to the model."""

STEP_KEYS = (
    "detected", "sface_closer_to_source", "sface_cosine_to_source", "w600k_closer_to_source", "w600k_cosine_to_source",
    "pose_error", "6drepnet_pose_error", "light_angle", "face_psnr", "face_lpips", "fid",
    "sharpness_crop", "sharpness_photo", "seconds",
)  # fmt: skip
KIND_KEYS = (
    "pairs", "detected", "occluder_unchanged", "free_left_alone", "occlusion_iou", "bare_covered",
    "sface_closer_to_source", "sface_cosine_to_source", "sface_cosine_to_target",
    "w600k_closer_to_source", "w600k_cosine_to_source", "w600k_cosine_to_target",
)  # fmt: skip
"""Figures that are shown for each kind of thing in front of a face."""

ONE_PERSON = "Source and target show the same person: the target is the ground truth, and likeness to it is no leak."


def build_report(
    evaluation: Evaluation, sets: Sequence[PairSet], ablated: dict[str, list[Method]], num_ablated: int
) -> tuple[dict[str, Any], dict[str, dict[str, Values]]]:
    """Aggregates all records.

    Returns:
        `tuple`: The report, JSON-serialisable, and the values of each pair, by set and method.
    """
    networks = evaluation.networks
    report: dict[str, Any] = {
        "settings": {
            "seeds": list(evaluation.seeds),
            "crop_size": evaluation.crop_size,
            "processes": evaluation.state.num_processes,
            "threads": torch.get_num_threads(),
            "processors": os.cpu_count(),
            "intervals": "95 %, percentile bootstrap over pairs, 2000 resamples",
        },
        "versions": {
            "faceswap-diffusion": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "diffusers": diffusers.__version__,
            **installed_versions(["transformers", "accelerate", "numpy", "scipy", "scikit-image", "onnxruntime"]),
        },
        "methods": {method.name: method.facts for method in evaluation.methods},
        "recognizers": list(networks.recognizers),
        "networks": networks.licences(),
        "unavailable": networks.unavailable,
        "sets": {},
        "kinds": {},
        "steps": {},
        "ablation": {},
    }
    values: dict[str, dict[str, Values]] = {}
    for pair_set in sets:
        names = networks.recognizers, networks.feature_networks
        with SetSummary(pair_set, evaluation.photos(pair_set), list(names[0]), list(names[1])) as summary:
            values[pair_set.name], rows = _method_rows(evaluation, pair_set, summary)
            report["sets"][pair_set.name] = {
                "pairs": len(pair_set.pairs),
                "one_person": pair_set.one_person,
                "reference": pair_set.reference_name,
                "reference_count": len(pair_set.reference_pictures()),
                "methods": rows,
            }
            report["kinds"][pair_set.name] = _kind_rows(pair_set, summary, values[pair_set.name])
            report["steps"][pair_set.name] = _step_rows(evaluation, pair_set, summary)
            report["ablation"][pair_set.name] = _ablation_rows(
                evaluation, pair_set, summary, ablated[pair_set.name], num_ablated
            )
    return without_nan(report), values


def _method_rows(
    evaluation: Evaluation, pair_set: PairSet, summary: SetSummary
) -> tuple[dict[str, Values], dict[str, dict[str, Any]]]:
    values, rows = {}, {}
    for method in evaluation.methods:
        records = [evaluation.records(pair_set, method, seed) for seed in evaluation.seeds_of(method)]
        values[method.name] = summary.values(records)
        rows[method.name] = _all_figures(summary, values[method.name], records)
    return values, rows


def _all_figures(summary: SetSummary, values: Values, records: Sequence[Records]) -> dict[str, dict[str, Any]]:
    figures = summary.figures(values) | summary.distribution_figures(records)
    return {name: asdict(figure) for name, figure in figures.items()}


def _kind_rows(
    pair_set: PairSet, summary: SetSummary, values: dict[str, Values]
) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of each method by what is in front of the faces, if pairs differ in that."""
    drawn = [pair.occlusion.kind if pair.occlusion else None for pair in pair_set.pairs]
    kinds = drawn if any(drawn) else sides_covered(summary.covered_shares())
    if len({kind for kind in kinds if kind}) < 2:
        return {}
    return {name: figures_by_kind(kinds, of_method, KIND_KEYS) for name, of_method in values.items()}


def _step_rows(
    evaluation: Evaluation, pair_set: PairSet, summary: SetSummary
) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """The figures of each checkpoint at each number of steps; numbers are text, as in JSON."""
    rows: dict[str, dict[str, dict[str, dict[str, Any]]]] = {}
    for name, methods in evaluation.stepped().items():
        for count, method in methods.items():
            records = [evaluation.records(pair_set, method, evaluation.seeds[0])]
            rows.setdefault(name, {})[str(count)] = _all_figures(summary, summary.values(records), records)
    return rows


def _ablation_rows(
    evaluation: Evaluation, pair_set: PairSet, summary: SetSummary, ablated: Sequence[Method], count: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """For each checkpoint, a row with all conditions, "none", and one for each removed condition."""
    rows: dict[str, dict[str, dict[str, Any]]] = {}
    for method in ablated:
        assert isinstance(method, WithoutCondition)
        whole = rows.setdefault(method.method.name, {})
        for name, one in (("none", method.method), (method.condition, method)):
            if name not in whole:
                values = summary.values([evaluation.records(pair_set, one, evaluation.seeds[0])], count)
                whole[name] = {key: asdict(figure) for key, figure in summary.figures(values).items()}
    return rows


def without_nan(value: Any) -> Any:
    """The same value with `None` for NaN, recursively."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def format_report(report: dict[str, Any]) -> str:
    """The whole evaluation as Markdown, aligned so that it is also readable as plain text."""
    parts = [f"Measured with {facts_line(report['settings'])}."]
    parts += [f"{name}: {facts_line(facts)}." for name, facts in report["methods"].items() if facts]
    for name, figures in report["sets"].items():
        parts.append(f"## Set {name}: {figures['pairs']} pairs; distributions against {reference_text(figures)}")
        parts += [ONE_PERSON] if figures["one_person"] else []
        parts.append(summary_table(report, name))
        if name in REFACE_SETS:
            parts.append("### REFace's protocol, by its own names")
            parts.append(markdown_table(["", *figures["methods"]], reface_cells(report, name)))
    for name, methods in report["kinds"].items():
        for method, rows in methods.items():
            parts.append(f"### {method}: by what is in front of the faces, set {name}")
            parts.append(markdown_table(*kind_cells(rows, report["recognizers"])))
    for name, methods in report["steps"].items():
        for method, rows in methods.items():
            pairs = report["sets"][name]["pairs"]
            parts.append(f"### {method}: by the number of denoising steps, set {name}, {pairs} pairs")
            parts.append(markdown_table(*step_cells(rows, report["recognizers"])))
    for name, methods in report["ablation"].items():
        for method, rows in methods.items():
            pairs = round(rows["none"]["pairs"]["value"])
            parts.append(
                f"### {method}: each condition removed in turn, set {name}, {pairs} pairs (replaced by its mean)"
            )
            parts.append(markdown_table(*ablation_cells(rows, report["recognizers"])))
    parts += [f"{name}: {reason}." for name, reason in report["unavailable"].items()]
    return "\n\n".join(parts)


def reference_text(figures: dict[str, Any]) -> str:
    """The pictures with whose distribution a set's swaps are compared."""
    return f"{figures['reference']} (N = {figures['reference_count']})"


def facts_line(facts: dict[str, Any]) -> str:
    """Facts in one line."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in facts.items() if value is not None)


def shown_rows(report: dict[str, Any], set_name: str) -> list[Row]:
    """The rows for which any method of the set has a figure."""
    methods = report["sets"][set_name]["methods"].values()
    return [row for row in figure_rows(report["recognizers"]) if any(row.key in figures for figures in methods)]


def cell(row: Row, figures: dict[str, dict[str, Any]], num_swaps: int) -> str:
    """A figure with its interval, its spread over seeds, and N if that is less than the number of swaps."""
    figure = figures.get(row.key)
    if figure is None or figure["value"] is None:
        return "-"
    text = show(row, figure["value"])
    if figure["low"] is not None:
        text += f" [{show(row, figure['low'])}, {show(row, figure['high'])}]"
    if figure["seed_spread"] is not None:
        text += f" ±{show(row, figure['seed_spread'])}"
    if 0 < figure["count"] < num_swaps:
        text += f" (N = {figure['count']})"
    return text


def recognizer_note(report: dict[str, Any], row: Row) -> str:
    """A note for rows of a recogniser that conditions one of the checkpoints, so that it is not held out."""
    used = {facts.get("conditioned_by") for facts in report["methods"].values()}
    names = [name for name in report["recognizers"] if name in used and row.key.startswith(f"{name}_")]
    return " (conditions the model, not held out)" if names and row.key.endswith("closer_to_source") else ""


def summary_table(report: dict[str, Any], set_name: str) -> str:
    """A table with one row for each figure, one column for each method, and the goals."""
    methods = report["sets"][set_name]["methods"]
    cells = [
        [
            row.label + recognizer_note(report, row),
            *(cell(row, figures, figures["detected"]["count"]) for figures in methods.values()),
            row.goal,
        ]
        for row in shown_rows(report, set_name)
    ]
    return markdown_table(["", *methods, "goal"], cells)


def reface_cells(report: dict[str, Any], set_name: str) -> list[list[str]]:
    """Rows of REFace's figures under its own names. What cannot be measured says why."""
    methods = report["sets"][set_name]["methods"].values()
    missing = {**NEVER_AVAILABLE, **report["unavailable"]}
    return [
        [
            row.label,
            *(
                missing.get(REFACE_NETWORKS[row.key]) or cell(row, figures, figures["detected"]["count"])
                for figures in methods
            ),
        ]
        for row in REFACE_ROWS
    ]


def kind_cells(rows: dict[str, dict[str, float]], recognizers: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """Header, and one row for each kind of thing in front of a target, or for each face that is covered."""
    measured = set().union(*rows.values())
    columns = [row for row in figure_rows(recognizers) if row.key in KIND_KEYS and row.key in measured]
    cells = [[kind, *(show(row, figures.get(row.key)) for row in columns)] for kind, figures in rows.items()]
    return ["in front", *(row.label for row in columns)], cells


def step_cells(
    rows: dict[str, dict[str, dict[str, Any]]], recognizers: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Header, and one row for each number of denoising steps."""
    columns = _present_columns(rows, recognizers, STEP_KEYS)
    cells = [[steps, *(show(row, figures[row.key]["value"]) for row in columns)] for steps, figures in rows.items()]
    return ["steps", *(row.label for row in columns)], cells


def _present_columns(
    rows: dict[str, dict[str, dict[str, Any]]], recognizers: Sequence[str], keys: Sequence[str]
) -> list[Row]:
    """The rows of the given figures that were measured, in the report's order."""
    measured = next(iter(rows.values()))
    return [row for row in figure_rows(recognizers) if row.key in keys and row.key in measured]


def ablation_cells(
    rows: dict[str, dict[str, dict[str, Any]]], recognizers: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Header, and one row for each removed condition, with the figures that may get worse."""
    wanted = [f"{name}_{key}" for name in recognizers for key in ("closer_to_source", "cosine_to_source")]
    wanted += ["pose_error", "expression_closer_to_target", "light_angle", "detected", "sharpness_crop", "border_step"]
    columns = _present_columns(rows, recognizers, wanted)
    cells = [
        [CONDITION_NAMES[name], *(show(row, rows[name][row.key]["value"]) for row in columns)]
        for name in ("none", *CONDITIONS)
        if name in rows
    ]
    return ["removed", *(row.label for row in columns)], cells


def model_card_block(report: dict[str, Any], name: str) -> str:
    """Markdown for a model card: the main figures of one method with their intervals, for each set.

    The measured methods of `CARD_REFERENCES` have columns of their own.
    """
    columns = {row.key: row for row in figure_rows(report["recognizers"])}
    sets = {
        set_name if method == name else f"{set_name}: {method}": figures["methods"][method]
        for set_name, figures in report["sets"].items()
        for method in (name, *CARD_REFERENCES)
        if method in figures["methods"]
    }
    cells = [
        [columns[key].label, *(cell(columns[key], figures, figures["detected"]["count"]) for figures in sets.values())]
        for key in CARD_KEYS
        if any(key in figures for figures in sets.values())
    ]
    lines = [f"Measured with {facts_line(report['settings'])}; {facts_line(report['methods'][name])}."]
    lines += [
        f"Set {set_name}: {figures['pairs']} pairs, distributions against {reference_text(figures)}."
        for set_name, figures in report["sets"].items()
    ]
    return "\n".join(["## Evaluation", "", *lines, "", markdown_table(["", *sets], cells), ""])


def card_of_first(report: dict[str, Any]) -> str:
    """The section for the model card of the first method."""
    return model_card_block(report, next(iter(report["methods"])))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, padded."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def write_data(
    report: dict[str, Any], values: dict[str, dict[str, Values]], sets: Sequence[PairSet], folder: Path
) -> None:
    """Writes report.json, report.md, figures.csv, swaps.csv and what a card of the first method takes."""
    write_text(folder / "report.json", json.dumps(report, indent=2) + "\n")
    write_text(folder / "report.md", format_report(report) + "\n")
    write_text(folder / CARD_SECTION, card_of_first(report))
    write_text(folder / CARD_FIGURES, json.dumps(model_index(report, CARD_KEYS), indent=2) + "\n")
    figures = [
        [set_name, method, key, *figure.values()]
        for set_name, of_set in report["sets"].items()
        for method, of_method in of_set["methods"].items()
        for key, figure in of_method.items()
    ]
    _write_csv(folder / "figures.csv", ["set", "method", "figure", *Figure.__dataclass_fields__], figures)
    _write_csv(folder / "swaps.csv", *_swap_rows(values, sets))


def _swap_rows(values: dict[str, dict[str, Values]], sets: Sequence[PairSet]) -> tuple[list[str], Iterable[list[Any]]]:
    names = list(dict.fromkeys(key for of_set in values.values() for rows in of_set.values() for key in rows))

    def numbers(of_method: Values, seed: int, index: int) -> list[str]:
        found = [of_method[key][seed, index] if key in of_method else math.nan for key in names]
        return ["" if math.isnan(value) else f"{value:.6g}" for value in found]

    rows = (
        [pair_set.name, method, seed, pair.source.name, pair.target.name, *numbers(of_method, seed, index)]
        for pair_set in sets
        for method, of_method in values[pair_set.name].items()
        for seed in range(len(of_method["detected"]))
        for index, pair in enumerate(pair_set.pairs)
    )
    return ["set", "method", "seed", "source", "target", *names], rows


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with whole_file(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
