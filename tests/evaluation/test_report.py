"""Tables, JSON and sheets."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from faceswap_diffusion.evaluation import report
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.provenance import read_provenance

SUMMARY = {
    "pairs": 102,
    "detected": 1.0,
    "net_closer_to_source": 0.8137,
    "net_retrieves_source": 0.3,
    "net_retrieves_target": 0.0,
    "net_cosine_to_source": 0.5,
    "net_cosine_to_target": 0.25,
    "net_cosine_source_to_target": 0.1,
    "pose_error": 4.449,
    "pose_within_goal": 0.9,
    "yaw_error": 2.0,
    "pose_distance_source_to_target": 20.0,
    "expression_closer_to_target": 0.75,
    "sharpness_crop": 0.654,
    "sharpness_photo": 0.4,
    "border_step": 1.2,
    "seconds": float("nan"),
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_markdown_table_is_aligned_and_has_a_rule():
    table = report.markdown_table(["", "a"], [["long name", "1"], ["b", "12345"]]).splitlines()
    assert [cells(line) for line in table[:1] + table[2:]] == [["", "a"], ["long name", "1"], ["b", "12345"]]
    assert set(table[1]) == {"|", "-"}
    assert len({len(line) for line in table}) == 1


def test_summary_table_gives_every_figure_with_its_unit_and_goal():
    table = report.summary_table({"london": SUMMARY, "turned": SUMMARY}, ["net"])
    rows = {cells(line)[0]: cells(line)[1:] for line in table.splitlines()}
    assert rows[""] == ["london", "turned", "goal"]
    assert rows["swaps"] == ["102", "102", ""]
    assert rows["net: closer to the source than to the target"][:2] == ["81.4%", "81.4%"]
    assert rows["head pose error, mean"] == ["4.4°", "4.4°", "<= 6° (turned)"]
    assert rows["sharpness, swap / target, at crop resolution"] == ["0.65", "0.65", ">= 0.5"]
    assert len(rows) == 2 + 2 + len(report.IDENTITY_ROWS) + len(report.PICTURE_ROWS)


def full_report() -> dict:
    rows = {name: {**SUMMARY, "pairs": 40} for name in ("none", *report.CONDITIONS)}
    rows["landmarks"] = {**SUMMARY, "pose_error": 12.0}
    return {
        "settings": {"seed": 0, "steps": 20},
        "sets": {"london": SUMMARY},
        "recognizers": ["net"],
        "ablation": {"london": rows},
        "unavailable": {"w600k": "not available: give it"},
        "pairs": {"london": [{"border_step": float("nan")}, {"border_step": 1.5}]},
    }


def test_report_holds_ablation_and_says_what_was_not_available():
    text = report.format_report(full_report())
    assert text.startswith("Measured with seed 0, steps 20.")
    assert "set london, 40 pairs" in text
    lines = {cells(line)[0]: cells(line) for line in text.splitlines() if line.startswith("|")}
    column = lines["removed"].index("pose error")
    assert (lines["nothing"][column], lines["landmarks of the target"][column]) == ("4.4°", "12.0°")
    assert lines["seconds per swap, median"][1] == "-"
    assert text.endswith("w600k: not available: give it.")


def test_json_has_null_where_there_is_no_number_and_markdown_lies_beside_it(tmp_path: Path):
    report.write_report(full_report(), tmp_path / "report.json")
    loaded = json.loads((tmp_path / "report.json").read_text())
    assert loaded["sets"]["london"]["seconds"] is None
    assert loaded["sets"]["london"]["pose_error"] == 4.449
    assert loaded["pairs"]["london"] == [{"border_step": None}, {"border_step": 1.5}]
    assert (tmp_path / "report.md").read_text() == report.format_report(full_report()) + "\n"


def test_sheets_show_source_target_and_swap_side_by_side(tmp_path: Path):
    for name, colour in (("source", "red"), ("target", "lime")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    pair = Pair(tmp_path / "source.png", tmp_path / "target.png", 0, 1)
    sheets = report.PictureSheets(tmp_path / "sheets", "london")
    for _ in range(25):
        sheets.add(pair, Image.new("RGB", (64, 64), "blue"))
    sheets.flush()
    paths = sorted((tmp_path / "sheets").iterdir())
    assert [path.name for path in paths] == ["london_01.jpg", "london_02.jpg"]
    second = np.asarray(Image.open(paths[1])).astype(int)
    centres = second[report.SHEET_SIDE // 2, [report.SHEET_SIDE // 2 + report.SHEET_SIDE * i for i in range(3)]]
    assert np.argmax(centres, axis=1).tolist() == [0, 1, 2]
    provenance = read_provenance(paths[0])
    assert provenance is not None
    assert provenance["shows"] == "source, target, swap"
