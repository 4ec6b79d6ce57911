"""Cards of pushed checkpoints, in this process: the Hub is imitated on the loopback."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

from faceswap_diffusion import FaceSwapInpaintPipeline, read_provenance, save_image
from faceswap_diffusion.evaluation.model_index import model_index
from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.pipelines.loading import FEW_STEPS_FOLDER, PARSER_FOLDER
from tests.evaluation.test_report import full_report
from tests.tiny import save_with_few_steps, tiny_inputs, tiny_pipeline
from tests.weights.imitation import HubImitation, list_files

CARD = """---
license: other
license_name: only-for-tests
license_link: TERMS.txt
base_model: somebody/large
tags:
- tiny
---

# A tiny checkpoint

![curves](curves.png) `FaceSwapper.from_pretrained("owner/origin")`
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubImitation]:
    hub = HubImitation()
    hub.stand_in(monkeypatch, tmp_path / "cache")
    yield hub
    hub.close()


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A checkpoint with a card, what that links to, a few-step version and a face parser."""
    folder = tmp_path / "origin"
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(folder)
    save_with_few_steps(pipeline, folder)
    BiSeNet().save_pretrained(folder / PARSER_FOLDER)
    (folder / "README.md").write_text(CARD)
    (folder / "TERMS.txt").write_text("terms")
    Image.new("RGB", (4, 4)).save(folder / "curves.png")
    return folder


def pushed(hub: HubImitation, name: str) -> tuple[dict[str, bytes], ModelCard]:
    files = hub.repositories[name]
    return files, ModelCard(files["README.md"].decode())


def test_a_pushed_card_has_its_own_name_and_inherits_terms_and_text(hub: HubImitation, origin: Path):
    pipe = FaceSwapInpaintPipeline.from_pretrained(origin)
    pipe.push_to_hub("owner/copy")
    files, card = pushed(hub, "owner/copy")
    data = card.data.to_dict()
    assert (data["license"], data["license_name"], data["license_link"]) == ("other", "only-for-tests", "TERMS.txt")
    assert data["base_model"] == "somebody/large"
    assert data["tags"] == ["face-swap", "inpainting", "tiny"]
    assert "# A tiny checkpoint" in card.text
    assert (files["TERMS.txt"], files["curves.png"]) == (b"terms", (origin / "curves.png").read_bytes())
    assert str(origin) not in card.content


def test_from_the_hub_it_names_what_it_was_made_from(hub: HubImitation, origin: Path):
    hub.repositories["owner/origin"] = list_files(origin)
    FaceSwapInpaintPipeline.from_pretrained("owner/origin").push_to_hub("owner/copy")
    _, card = pushed(hub, "owner/copy")
    assert card.data.base_model == "owner/origin"
    assert card.data.license_name == "only-for-tests"
    assert 'FaceSwapper.from_pretrained("owner/copy")' in card.text
    assert '"owner/origin"' not in card.text


def test_without_a_card_to_inherit_the_general_one_names_the_repository(hub: HubImitation):
    tiny_pipeline().push_to_hub("owner/new")
    _, card = pushed(hub, "owner/new")
    assert 'FaceSwapInpaintPipeline.from_pretrained("owner/new")' in card.text
    assert "owner/name" not in card.content


def test_parser_and_few_steps_come_along_unless_the_unet_has_changed(hub: HubImitation, origin: Path):
    pipe = FaceSwapInpaintPipeline.from_pretrained(origin)
    pipe.push_to_hub("owner/same")
    files, _ = pushed(hub, "owner/same")
    kept = {name: content for name, content in list_files(origin).items() if name.startswith(FEW_STEPS_FOLDER)}
    assert len(kept) > 2
    assert kept.items() <= files.items()
    assert f"{PARSER_FOLDER}/config.json" in files
    next(pipe.unet.parameters()).data += 1
    pipe.push_to_hub("owner/other")
    files, _ = pushed(hub, "owner/other")
    assert not [name for name in files if name.startswith(FEW_STEPS_FOLDER)]
    assert f"{PARSER_FOLDER}/config.json" in files


def test_a_picture_and_figures_are_shown(hub: HubImitation, tmp_path: Path):
    save_image(Image.new("RGB", (8, 8)), tmp_path / "swapped.png", provenance={"checkpoint": "mine"})
    report = full_report()
    (tmp_path / "model_card.md").write_text("## Evaluation\n\nfigures")
    (tmp_path / "model_index.json").write_text(json.dumps(model_index(report, ("pose_error", "seconds"))))
    tiny_pipeline().push_to_hub("owner/shown", thumbnail=tmp_path / "swapped.png", evaluation=tmp_path)
    files, card = pushed(hub, "owner/shown")
    (tmp_path / "thumbnail.png").write_bytes(files["thumbnail.png"])
    assert (read_provenance(tmp_path / "thumbnail.png") or {})["checkpoint"] == "mine"
    assert card.data.to_dict()["thumbnail"] == "https://huggingface.co/owner/shown/resolve/main/thumbnail.png"
    assert "](thumbnail.png)" in card.text
    assert "## Evaluation\n\nfigures" in card.text
    (entry,) = yaml.safe_load(card.content.split("---")[1])["model-index"]
    assert entry["name"] == "shown"
    (result,) = entry["results"]  # `seconds` was not measured
    assert result["dataset"] == {"name": "ffhq, 100 pairs", "type": "ffhq"}
    assert result["metrics"] == [{"type": "pose_error", "value": 4.449, "name": "head pose error (mesh), mean"}]


def test_what_is_missing_is_said(hub: HubImitation, tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no picture .*none.png: give one that a swap's result has saved"):
        tiny_pipeline().push_to_hub("owner/new", thumbnail=tmp_path / "none.png")
    with pytest.raises(ValueError, match=r"is no report: it lacks model_index.json; run evaluate -o"):
        tiny_pipeline().push_to_hub("owner/new", evaluation=tmp_path)
    assert hub.repositories == {}


def test_sharded_variants_are_pushed_and_loaded(hub: HubImitation):
    pipe = tiny_pipeline()
    pipe.push_to_hub("owner/shards", variant="fp32", max_shard_size="40KB")
    shards = [name for name in hub.repositories["owner/shards"] if name.startswith("unet/") and "-of-" in name]
    assert len(shards) > 1
    loaded = FaceSwapInpaintPipeline.from_pretrained("owner/shards")
    for part in (pipe, loaded):
        part.set_progress_bar_config(disable=True)
    assert (loaded(**tiny_inputs()).images == pipe(**tiny_inputs()).images).all()
