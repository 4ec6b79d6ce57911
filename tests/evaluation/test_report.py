"""How figures are written: units, intervals, spread, what is missing and why, and what the page draws of them."""

import numpy as np
import pytest

from faceswap_diffusion.evaluation import figures, page, report

NAN = float("nan")


def figure(value, low=None, high=None, count=100, seed_spread=None) -> dict:
    return {"value": value, "low": low, "high": high, "count": count, "seed_spread": seed_spread}


def full_report() -> dict:
    """Two methods on REFace's list, of which one has no recogniser's figures, and one lost condition."""
    ours = {
        "pairs": figure(100, count=0),
        "detected": figure(0.98, 0.95, 1.0),
        "sface_closer_to_source": figure(0.814, 0.74, 0.89, seed_spread=0.01),
        "pose_error": figure(4.449, 4.0, 4.9, count=98),
        "kid": figure(0.0123),
        "clip_fd": figure(7.25),
        "seconds": figure(None, count=0),
    }
    target = {"pairs": figure(100, count=0), "detected": figure(1.0, 1.0, 1.0), "pose_error": figure(0.0, 0.0, 0.0)}
    lost = {"sface_closer_to_source": figure(0.1), "pose_error": figure(12.0), "detected": figure(1.0)}
    return {
        "settings": {"seeds": [0], "crop_size": 128},
        "methods": {"ours": {"steps": 10, "conditioned_by": "sface", "outputs": None}, "target": {}},
        "recognizers": ["sface", "w600k"],
        "unavailable": {"ir_se50": "not available: faceswap-diffusion fetch ir_se50 gets it"},
        "sets": {
            "ffhq": {
                "pairs": 100,
                "one_person": False,
                "reference": "the whole data set",
                "reference_count": 70000,
                "methods": {"ours": ours, "target": target},
            }
        },
        "kinds": {"ffhq": {"ours": {"hand": {"pairs": 3, "occluder_unchanged": 0.981}, "nothing": {"pairs": 1}}}},
        "steps": {"ffhq": {"ours": {"2": ours, "50": {**ours, "pose_error": figure(9.0)}}}},
        "ablation": {"ffhq": {"ours": {"none": {"pairs": figure(40), **lost}, "landmarks": lost}}},
    }


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def rows_of(text: str) -> dict[str, list[str]]:
    return {cells(line)[0]: cells(line)[1:] for line in text.splitlines() if line.startswith("|")}


def test_a_figure_has_its_unit_its_interval_its_spread_and_n_where_it_is_smaller():
    rows = rows_of(report.summary_table(full_report(), "ffhq"))
    assert rows[""] == ["ours", "target", "goal"]
    assert rows["swaps"] == ["100", "100", ""]
    assert rows["sface: closer to the source than to the target (conditions the model, not held out)"] == [
        "81.4% [74.0%, 89.0%] ±1.0%", "-", ">= 80 %"
    ]  # fmt: skip
    assert rows["head pose error (mesh), mean"] == [
        "4.4° [4.0°, 4.9°] (N = 98)",
        "0.0° [0.0°, 0.0°]",
        "<= 6° (turned)",
    ]
    assert rows["KID (Inception, x 1000)"] == ["12.30", "-", ""]
    assert rows["seconds per swap, median"] == ["-", "-", "<= 3 s"]
    assert not any(label.startswith("w600k") for label in rows)  # nothing was measured by it


def test_the_text_says_what_the_figures_depend_on_and_what_was_not_there():
    text = report.format_report(full_report())
    assert text.startswith(
        "Measured with seeds [0], crop size 128.\n\nours: steps 10, conditioned by sface.\n\n## Set"
    )
    assert "100 pairs; distributions against the whole data set (N = 70000)" in text
    assert "ours: each condition removed in turn, set ffhq, 40 pairs" in text
    assert text.endswith("ir_se50: not available: faceswap-diffusion fetch ir_se50 gets it.")


def test_refaces_figures_have_its_names_and_are_never_zero_where_a_network_is_missing():
    rows = {label: row for label, *row in report.reface_cells(full_report(), "ffhq")}
    assert (
        rows["ID retrieval top-1 (IR-SE50, masked)"] == ["not available: faceswap-diffusion fetch ir_se50 gets it"] * 2
    )
    assert rows["Pose (HopeNet, L2)"][0].startswith("not available: REFace's hopenet_robust_alpha1.pkl")
    assert rows["Expression (Deep3DFaceRecon, L2 of 64)"][0].startswith("not available")
    assert rows['"FID" (in truth CLIP-FD, ViT-B/32, 512)'] == ["7.25", "-"]
    assert "REFace's protocol, by its own names" in report.format_report(full_report())


def test_lost_conditions_are_rows():
    header, rows = report.ablation_cells(full_report()["ablation"]["ffhq"]["ours"], ["sface", "w600k"])
    assert header == [
        "removed",
        "face detected in the swap",
        "sface: closer to the source than to the target",
        "head pose error (mesh), mean",
    ]
    assert rows == [["nothing", "100.0%", "10.0%", "12.0°"], ["landmarks of the target", "100.0%", "10.0%", "12.0°"]]


def test_kinds_of_things_in_front_are_rows():
    assert "### ours: by what is in front of the faces, set ffhq" in report.format_report(full_report())
    header, rows = report.kind_cells(full_report()["kinds"]["ffhq"]["ours"], ["sface"])
    assert header == ["in front", "swaps", "things in front of the face left as they were (within 4 of 255)"]
    assert rows == [["hand", "3", "98.1%"], ["nothing", "1", "-"]]


def test_numbers_of_steps_are_rows():
    header, rows = report.step_cells(full_report()["steps"]["ffhq"]["ours"], ["sface", "w600k"])
    labels = [
        "face detected in the swap", "sface: closer to the source than to the target", "head pose error (mesh), mean",
        "seconds per swap, median",
    ]  # fmt: skip
    assert header == ["steps", *labels]
    assert rows == [["2", "98.0%", "81.4%", "4.4°", "-"], ["50", "98.0%", "81.4%", "9.0°", "-"]]
    assert "### ours: by the number of denoising steps, set ffhq, 100 pairs" in report.format_report(full_report())


def test_a_set_of_one_person_says_so():
    of_one = full_report()
    of_one["sets"]["ffhq"]["one_person"] = True
    assert report.ONE_PERSON in report.format_report(of_one)
    assert report.ONE_PERSON not in report.format_report(full_report())


def test_the_card_holds_every_figure_that_was_agreed_on_beside_the_references_to_beat():
    methods = {
        name: {"detected": figure(1.0), **{key: figure(value) for key in report.CARD_KEYS if key != "detected"}}
        for name, value in (("ours", 0.25), ("source pasted", 0.5), ("classical warp", 0.75), ("reference alone", 1.0))
    }
    both = full_report()
    both["sets"] = {name: {**both["sets"]["ffhq"], "methods": methods} for name in ("london", "turned")}
    rows = rows_of(report.model_card_block(both, "ours"))
    references = [f"{name}: {method}" for name in ("london", "turned") for method in report.CARD_REFERENCES]
    assert rows[""] == ["london", *references[:2], "turned", *references[2:]]
    assert rows["w600k: mean cosine to the target (leak)"] == ["0.250", "0.750", "1.000"] * 2
    for label in (
        "face detected in the swap", "sface: mean cosine to the source", "sface: mean cosine to the target (leak)",
        "w600k: mean cosine to the source", "head pose error (6DRepNet360, angle of rotation)",
        "expression error (L1 of 51 blendshapes)", "gaze error (L1 of 8 blendshapes)",
        "mouth opening error / eye distance", "direction of the light, error", "FID (Inception, 2048)",
        "sharpness, swap / target, at photo resolution", "colour step at the border, swap / target",
    ):  # fmt: skip
        assert label in rows
    known = {row.key for row in figures.figure_rows(["sface", "w600k"])}
    assert known >= {*report.CARD_KEYS, *report.STEP_KEYS}


def test_the_card_has_a_column_for_each_set():
    card = report.model_card_block(full_report(), "ours")
    rows = rows_of(card)
    assert rows[""] == ["ffhq"]
    assert rows["head pose error (mesh), mean"] == ["4.4° [4.0°, 4.9°] (N = 98)"]
    assert "Measured with seeds [0], crop size 128; steps 10, conditioned by sface." in card
    assert "Set ffhq: 100 pairs, distributions against the whole data set (N = 70000)." in card


def test_what_is_not_a_number_becomes_null():
    assert report.without_nan({"a": [NAN, 1.5], "b": {"c": NAN}, "d": "nan"}) == {
        "a": [None, 1.5], "b": {"c": None}, "d": "nan"
    }  # fmt: skip


def test_bars_are_shares_of_the_greatest_end():
    row = next(row for row in figures.OTHER_ROWS if row.key == "pose_error")
    plot = page.bar_plot(row, {"a": {"pose_error": figure(4.0, 2.0, 8.0)}, "b": {"pose_error": figure(None)}, "c": {}})
    assert plot["bars"] == [{"method": "a", "text": "4.0°", "width": 50.0, "low": 25.0, "high": 100.0}]
    rate = next(row for row in figures.OTHER_ROWS if row.key == "expression_closer_to_target")
    (bar,) = page.bar_plot(rate, {"a": {rate.key: figure(0.25)}})["bars"]
    assert (bar["width"], bar["low"]) == (25.0, None)  # a rate is drawn against 100 %


def test_the_worst_swap_is_one_without_a_face_then_the_most_like_the_target_to_a_held_out_recogniser():
    values = {
        "sface_cosine_to_source": np.array([[0.9, 0.9, 0.9]]),
        "sface_cosine_to_target": np.array([[0.0, 0.0, 0.0]]),
        "w600k_cosine_to_source": np.array([[0.5, 0.1, NAN]]),
        "w600k_cosine_to_target": np.array([[0.1, 0.7, NAN]]),
    }
    badness = page.swap_badness(values, ["sface", "w600k"], "sface")
    assert badness == pytest.approx([-0.4, 0.6, np.inf])
    assert page.swap_badness(values, ["sface"], "sface") == pytest.approx([-0.9] * 3)
    of_one_person = {**values, "face_psnr": np.array([[20.0, 30.0, 40.0]])}
    assert page.swap_badness(of_one_person, ["sface", "w600k"], "sface") == pytest.approx([-20, -30, np.inf])


def test_every_row_has_a_name_of_its_own():
    keys = [row.key for row in figures.figure_rows(["sface", "w600k", "dlib", "ir_se50"])]
    assert len({*keys}) == len(keys)
    assert {*figures.REFACE_NETWORKS} == {row.key for row in figures.REFACE_ROWS}
