"""The figures in a checkpoint's card, and those of the card in the package."""

import json
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from faceswap_diffusion.evaluation.model_index import model_index
from faceswap_diffusion.evaluation.report import CARD_KEYS, card_of_first
from faceswap_diffusion.weights.checkpoints import EMBEDDED_CHECKPOINT
from tests.evaluation.test_report import full_report

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))
import renew_card  # noqa: E402  # pyright: ignore[reportMissingImports]

CARD = "---\nlicense: mit\n---\n\n# Mine\n\n{table}## Limits\n\nMany.\n"


def in_table(card: str, label: str) -> list[str]:
    """The values of a row of a card's table, without their intervals."""
    (row,) = (line for line in card.splitlines() if line.startswith(f"| {label} "))
    return [cell.split()[0] for cell in row.split("|")[2:-1]]


def test_the_card_in_the_package_has_the_figures_of_the_report():
    report = json.loads((ROOT / "docs" / "evaluation" / "report.json").read_text(encoding="utf-8"))
    card = ModelCard.load(EMBEDDED_CHECKPOINT / "README.md")
    assert card.data.to_dict()["model-index"] == model_index(report, CARD_KEYS)
    values = {(one.dataset_type, one.metric_type): one.metric_value for one in card.data.eval_results}
    # The table's first column has the model's figures for London, the fourth those for turned heads.
    assert f"{values['london', 'fid']:.2f}" == in_table(card.text, "FID (Inception, 2048)")[0]
    assert (
        f"{values['turned', 'w600k_cosine_to_source']:.3f}"
        == in_table(card.text, "w600k: mean cosine to the source")[3]
    )
    assert card_of_first(report).partition("\n\n")[2].strip() in card.text


@pytest.mark.parametrize("table", ["", "Measured with other steps.\n\n| a | b |\n|---|---|\n| c | 1 |\n\n"])
def test_figures_replace_those_of_before(tmp_path: Path, table: str):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text(CARD.format(table=table))
    (tmp_path / "report.json").write_text(json.dumps(full_report()))
    for _ in range(2):  # the second time nothing changes
        renew_card.main([str(tmp_path), str(folder)])
        card = ModelCard.load(folder / "README.md")
        assert (card.data.license, card.data.model_name) == ("mit", "mine")
        values = {one.metric_type: one.metric_value for one in card.data.eval_results}
        assert (values["pose_error"], values["detected"]) == (4.449, 0.98)
        assert "other steps" not in card.text
        assert card.text.count("| head pose error (mesh), mean ") == 1
        assert card.text.count("## Limits\n\nMany.") == 1
    assert ("## Evaluation" in card.text) == (not table)
