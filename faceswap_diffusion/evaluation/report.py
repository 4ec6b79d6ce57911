"""The measurement as tables, as JSON and as pictures."""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from faceswap_diffusion.evaluation.ablation import CONDITIONS
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.photos import load_photo
from faceswap_diffusion.provenance import save_image

PERCENT, DEGREES, RATIO, COSINE, SECONDS, COUNT = "{:.1%}", "{:.1f}°", "{:.2f}", "{:.3f}", "{:.2f} s", "{:.0f}"

# (label, key, format, goal); {name} stands for each recogniser.
IDENTITY_ROWS = (
    ("{name}: closer to the source than to the target", "{name}_closer_to_source", PERCENT),
    ("{name}: nearest face of the gallery is the source", "{name}_retrieves_source", PERCENT),
    ("{name}: nearest face of the gallery is the target", "{name}_retrieves_target", PERCENT),
    ("{name}: mean cosine to the source", "{name}_cosine_to_source", COSINE),
    ("{name}: mean cosine to the target", "{name}_cosine_to_target", COSINE),
    ("{name}: mean cosine of source and target", "{name}_cosine_source_to_target", COSINE),
)
PICTURE_ROWS = (
    ("head pose error, mean", "pose_error", DEGREES),
    ("head pose within 6°", "pose_within_goal", PERCENT),
    ("yaw error, mean", "yaw_error", DEGREES),
    ("head poses of source and target, mean distance", "pose_distance_source_to_target", DEGREES),
    ("blendshapes closer to the target's than to the source's", "expression_closer_to_target", PERCENT),
    ("sharpness, swap / target, at crop resolution", "sharpness_crop", RATIO),
    ("sharpness, swap / target, at photo resolution", "sharpness_photo", RATIO),
    ("colour step at the border, swap / target", "border_step", RATIO),
    ("seconds per swap, median", "seconds", SECONDS),
)
GOALS = {
    "detected": "100 %",
    "sface_closer_to_source": ">= 80 %",
    "w600k_closer_to_source": ">= 60 %",
    "sface_retrieves_source": ">= 30 % (london)",
    "pose_error": "<= 6° (turned)",
    "expression_closer_to_target": ">= 75 %",
    "sharpness_crop": ">= 0.5",
    "sharpness_photo": ">= 0.5",
    "border_step": "<= 1.5",
    "seconds": "<= 3 s",
}
CONDITION_NAMES = {
    "identity_embeds": "identity",
    "source_clip_embeds": "image features of the source",
    "target_clip_embeds": "image features of the target",
    "landmarks": "landmarks of the target",
}
SHEET_COLUMNS, SHEET_ROWS, SHEET_SIDE = 4, 6, 160


def format_report(report: dict[str, Any]) -> str:
    """The whole measurement as Markdown, aligned so that it can be read as plain text too."""
    parts = [settings_text(report["settings"]), summary_table(report["sets"], report["recognizers"])]
    for name, rows in report["ablation"].items():
        pairs = rows["none"]["pairs"]
        parts.append(f"Each condition removed in turn, set {name}, {pairs} pairs (replaced by its mean over them):")
        parts.append(ablation_table(rows, report["recognizers"]))
    parts += [f"{name}: {reason}." for name, reason in report["unavailable"].items()]
    return "\n\n".join(parts)


def settings_text(settings: dict[str, Any]) -> str:
    """The settings as one paragraph."""
    return "Measured with " + ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items()) + "."


def summary_table(sets: dict[str, dict[str, float]], recognizers: Sequence[str]) -> str:
    """One row for each figure, one column for each set, and the goals."""
    rows = [("swaps", "pairs", COUNT), ("face detected in the swap", "detected", PERCENT)]
    for name in recognizers:
        rows += [(label.format(name=name), key.format(name=name), form) for label, key, form in IDENTITY_ROWS]
    rows += PICTURE_ROWS
    cells = [
        [label, *(show(form, summary[key]) for summary in sets.values()), GOALS.get(key, "")]
        for label, key, form in rows
    ]
    return markdown_table(["", *sets, "goal"], cells)


def ablation_table(rows: dict[str, dict[str, float]], recognizers: Sequence[str]) -> str:
    """One row for each removed condition, one column for each figure that it might worsen."""
    columns = []
    for name in recognizers:
        columns += [(f"{name} closer to source", f"{name}_closer_to_source", PERCENT)]
        columns += [(f"{name} cosine to source", f"{name}_cosine_to_source", COSINE)]
    columns += [
        ("pose error", "pose_error", DEGREES),
        ("blendshapes as target", "expression_closer_to_target", PERCENT),
        ("detected", "detected", PERCENT),
        ("sharpness", "sharpness_crop", RATIO),
        ("border step", "border_step", RATIO),
    ]
    cells = [
        [label, *(show(form, rows[condition][key]) for _, key, form in columns)]
        for condition, label in [("none", "nothing"), *((name, CONDITION_NAMES[name]) for name in CONDITIONS)]
    ]
    return markdown_table(["removed", *(heading for heading, _, _ in columns)], cells)


def show(form: str, value: float) -> str:
    """A figure with its unit; a dash where there is none."""
    return "-" if math.isnan(value) else form.format(value)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, padded."""
    lines = [list(header), *map(list, rows)]
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(header))]
    padded = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([padded[0], rule, *padded[1:]])


def write_report(report: dict[str, Any], path: Path) -> None:
    """Writes the report as JSON, where what is not a number becomes null, and the tables beside it as Markdown."""
    path.write_text(json.dumps(without_nan(report), indent=2) + "\n")
    path.with_suffix(".md").write_text(format_report(report) + "\n")


def without_nan(value: Any) -> Any:
    """The same value with `None` for NaN, all the way down."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


class PictureSheets:
    """Collects swaps as source, target, result, and writes them as sheets of 24.

    Args:
        folder (`Path`): Made if need be.
        name (`str`): The sheets are `name_01.jpg` and so on.
    """

    def __init__(self, folder: Path, name: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.name = folder, name
        self.triples: list[Image.Image] = []
        self.num_sheets = 0

    def add(self, pair: Pair, swap: Image.Image) -> None:
        """Adds one swap."""
        photos = [Image.fromarray(load_photo(path).rgb) for path in (pair.source, pair.target)]
        triple = Image.new("RGB", (3 * SHEET_SIDE, SHEET_SIDE))
        for index, picture in enumerate([*photos, swap.convert("RGB")]):
            triple.paste(picture.resize((SHEET_SIDE, SHEET_SIDE), Image.Resampling.LANCZOS), (index * SHEET_SIDE, 0))
        self.triples.append(triple)
        if len(self.triples) == SHEET_COLUMNS * SHEET_ROWS:
            self.flush()

    def flush(self) -> None:
        """Writes what is collected."""
        if not self.triples:
            return
        width, height, gap = 3 * SHEET_SIDE, SHEET_SIDE, 8
        num_rows = math.ceil(len(self.triples) / SHEET_COLUMNS)
        sheet = Image.new("RGB", (SHEET_COLUMNS * (width + gap) - gap, num_rows * (height + gap) - gap), "white")
        for index, triple in enumerate(self.triples):
            row, column = divmod(index, SHEET_COLUMNS)
            sheet.paste(triple, (column * (width + gap), row * (height + gap)))
        self.num_sheets += 1
        path = self.folder / f"{self.name}_{self.num_sheets:02d}.jpg"
        save_image(sheet, path, provenance={"shows": "source, target, swap"}, quality=90)
        self.triples = []
