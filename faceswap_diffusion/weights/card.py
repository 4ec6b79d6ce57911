"""The card of a checkpoint on the Hub: its name, what it inherits from where it came from, picture and figures."""

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard_data import model_index_to_eval_results

OWN_NAME = "owner/name"
"""Stands for the repository in a card that does not know it yet."""

CARD = "README.md"
THUMBNAIL = "thumbnail"
CARD_FIGURES, CARD_SECTION = "model_index.json", "model_card.md"
"""What `faceswap-diffusion evaluate` writes into its report's folder for a card."""

INHERITED = ("license", "license_name", "license_link", "base_model", "datasets", "language")
LINK = re.compile(r"\]\(([\w.-]+)\)")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Origin:
    """Where a pipeline came from.

    Args:
        name (`str`): Hub id or folder.
        folder (`Path`): Where its files are.
    """

    name: str
    folder: Path

    @property
    def hub_id(self) -> str | None:
        """Its id on the Hub, if it came from there."""
        return self.name if HUB_ID.fullmatch(self.name) and not Path(self.name).is_dir() else None


def write_card(
    folder: Path,
    repo_id: str,
    origin: Origin | None,
    thumbnail: Path | None = None,
    evaluation: Path | None = None,
) -> None:
    """Completes the card of a saved checkpoint for its repository.

    A card of where it came from replaces the general one: its text and what it says of licence and base model hold for
    weights that were made from them. The files to which it links come along.

    Args:
        folder (`Path`): The checkpoint, with the general card.
        repo_id (`str`): `owner/name`.
        origin ([`Origin`], *optional*): Where it came from; `None` for one made in code.
        thumbnail (`Path`, *optional*): A picture to show, as `SwapResult.save` wrote it. It is copied as it is, with
            the metadata that say that AI made it.
        evaluation (`Path`, *optional*): Folder of a report by `faceswap-diffusion evaluate`.

    Raises:
        ValueError: If there is no such picture or report.
    """
    card = ModelCard.load(folder / CARD)
    data, text = ModelCardData(**card.data.to_dict()), card.text
    if origin is not None and (origin.folder / CARD).is_file():
        theirs = ModelCard.load(origin.folder / CARD, ignore_metadata_errors=True)
        text = theirs.text.replace(f'"{origin.name}"', f'"{OWN_NAME}"')
        for name in INHERITED:
            if (value := theirs.data.get(name)) is not None:
                data[name] = value
        data["tags"] = [*dict.fromkeys([*(data.get("tags") or []), *(theirs.data.get("tags") or [])])]
        _copy_linked(origin.folder, folder, text, data.get("license_link"))
    if origin is not None and origin.hub_id is not None:
        data["base_model"] = origin.hub_id
    if thumbnail is not None:
        text = _with_thumbnail(folder, repo_id, thumbnail, data, text)
    if evaluation is not None:
        text = _with_figures(evaluation, repo_id, data, text)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{named(text, repo_id).strip()}\n").save(folder / CARD)


def named(text: str, repo_id: str) -> str:
    """The text of a card that knows its repository."""
    return text.replace(OWN_NAME, repo_id)


def set_figures(data: ModelCardData, name: str, index: list[dict[str, Any]]) -> None:
    """Puts figures into the metadata of a card, in place of those that are there.

    Args:
        data (`ModelCardData`): Of the card.
        name (`str`): The model's, without its owner.
        index (`list[dict[str, Any]]`): As `evaluate` writes it to `CARD_FIGURES`.
    """
    data.model_name = name
    data.eval_results = model_index_to_eval_results(index)[1]


def _copy_linked(origin: Path, folder: Path, text: str, license_link: str | None) -> None:
    """Copies the licence, and files beside a card to which it links."""
    linked = {*LINK.findall(text), license_link or "", *(path.name for path in origin.glob("LICENSE*"))}
    for name in sorted(linked):
        if "/" not in name and (origin / name).is_file() and not (folder / name).exists():
            shutil.copy(origin / name, folder / name)


def _with_thumbnail(folder: Path, repo_id: str, thumbnail: Path, data: ModelCardData, text: str) -> str:
    if not thumbnail.is_file():
        raise ValueError(f"there is no picture {thumbnail}: give one that a swap's result has saved")
    name = f"{THUMBNAIL}{thumbnail.suffix.lower()}"
    shutil.copy(thumbnail, folder / name)
    data["thumbnail"] = f"https://huggingface.co/{repo_id}/resolve/main/{name}"
    return f"{text.strip()}\n\n![A swap by this checkpoint, made with AI]({name})\n"


def _with_figures(evaluation: Path, repo_id: str, data: ModelCardData, text: str) -> str:
    try:
        index = json.loads((evaluation / CARD_FIGURES).read_text(encoding="utf-8"))
        section = (evaluation / CARD_SECTION).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ValueError(f"{evaluation} is no report: it lacks {Path(error.filename).name}; run evaluate -o") from None
    set_figures(data, repo_id.partition("/")[2], index)
    return f"{text.strip()}\n\n{section}"
