"""Puts the figures of a report into the card of a checkpoint: its table, and what the Hub reads (model-index).

    python tools/renew_card.py docs/evaluation faceswap_diffusion/checkpoints/faceswap-small

The figures are those of the report's first method. The table that stood in the card before is replaced; a card without
one gets it at its end.
"""

import argparse
import json
import re
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from faceswap_diffusion.evaluation.model_index import model_index
from faceswap_diffusion.evaluation.report import CARD_KEYS, card_of_first
from faceswap_diffusion.weights.card import CARD, set_figures
from faceswap_diffusion.writing import write_text

MEASURED = re.compile(r"^Measured with .*?^\|.*?(?=^(?!\|))", re.MULTILINE | re.DOTALL)
"""From the first line of `model_card_block` below its heading to the last one of its table."""


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder with the report.json of faceswap-diffusion evaluate")
    parser.add_argument("checkpoint", type=Path, help="folder with the card, README.md; its name is the model's")
    args = parser.parse_args(arguments)
    report = json.loads((args.report / "report.json").read_text(encoding="utf-8"))
    path = args.checkpoint / CARD
    card = ModelCard.load(path)
    data = ModelCardData(**card.data.to_dict())
    set_figures(data, args.checkpoint.resolve().name, model_index(report, CARD_KEYS))
    section = card_of_first(report)
    table = section.partition("\n\n")[2]
    text, replaced = MEASURED.subn(lambda _: table, card.text)
    if not replaced:
        text = f"{card.text.strip()}\n\n{section}"
    write_text(path, f"---\n{data.to_yaml()}\n---\n\n{text.strip()}\n")


if __name__ == "__main__":
    main()
