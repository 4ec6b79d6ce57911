"""The card of a run: valid metadata, the run's own numbers, no paths, and it arrives on the Hub."""

from importlib import metadata
from pathlib import Path

import pytest
import torch
import yaml
from accelerate import Accelerator
from huggingface_hub import ModelCard
from PIL import Image

from faceswap_diffusion.training.command_line import compose, settings
from faceswap_diffusion.training.config import TrainFaceswapConfig
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.engine.model_card import write_model_card
from faceswap_diffusion.training.engine.trainer import Task, Trainer
from tests.tiny import CROP_SIZE, tiny_picture, tiny_pipeline
from tests.training.engine.small_run import SmallModel, fresh_accelerator


def finished_run(accelerator: Accelerator, output_dir: Path, faces: Path, **more: object) -> Trainer:
    """A run of 250 steps of 4 samples that nobody has to wait for: its numbers are in its history."""
    given = {
        "pretrained_model_name_or_path": "somebody/some-model", "train_data_dir": [str(faces)],
        "output_dir": output_dir, "train_batch_size": 2, "gradient_accumulation_steps": 2, "max_train_steps": 250,
        "learning_rate": 1e-3, **more,
    }  # fmt: skip
    defaults = {name: setting.default for name, setting in settings(TrainFaceswapConfig)}
    config = compose(TrainFaceswapConfig, {**defaults, **given})
    model = SmallModel()
    prepared = PreparedFaces([faces], CROP_SIZE)
    task = Task(
        objective=model,
        optimizer=torch.optim.AdamW(model.generator.parameters(), lr=1e-3),
        samples=prepared,
        validate=lambda trainer, step: None,
        faces=prepared.summary,
    )
    trainer = Trainer(config, accelerator, task)
    trainer.history.add(249, {"loss": 0.5, "learning_rate": 1e-4})
    trainer.history.add(250, {"loss": 0.123456, "learning_rate": 5e-5})
    trainer.history.add(250, {"cosine_to_source": 0.25, "detected": 1.0, "pose_error": 3.5})
    return trainer


@pytest.fixture
def finished(prepared_faces, tmp_path) -> Trainer:
    output_dir = tmp_path / "my-faces"
    (output_dir / "validation").mkdir(parents=True)
    tiny_picture().save(output_dir / "validation" / "step_000250.png")
    run = finished_run(fresh_accelerator(), output_dir, prepared_faces)
    run.history.plot(output_dir / "curves.png")
    tiny_pipeline().save_pretrained(output_dir / "pipeline")
    return run


def test_the_card_tells_of_the_run(finished):
    folder = finished.config.output.output_dir / "pipeline"
    write_model_card(folder, finished)
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == "somebody/some-model"
    assert (data["license"], data["license_name"]) == ("other", "not-chosen")
    assert (data["library_name"], data["pipeline_tag"]) == ("diffusers", "image-to-image")
    assert "face-swap" in data["tags"]
    lines = [line.strip("| ").split(" | ") for line in card.text.splitlines() if line.startswith("| ")]
    facts = dict(line for line in lines if len(line) == 2)
    assert facts["faces"] == f"{len(finished.task.samples)} of 5 people (`faces`)"
    assert (facts["steps"], facts["global batch"], facts["samples seen"]) == ("250", "4", "1,000")
    assert (facts["loss"], facts["cosine_to_source"], facts["pose_error"]) == ("0.1235", "0.25", "3.5")
    assert facts["hardware"].startswith("1 x ")
    assert f"torch {metadata.version('torch')}" in facts["versions"]
    settings = yaml.safe_load(card.text.split("```yaml\n")[1].split("```")[0])
    assert settings["learning_rate"] == 1e-3
    assert settings["train_data_dir"] == ["faces"]
    assert str(finished.config.output.output_dir) not in card.text
    assert "Swap faces only of people who agreed to it" in card.text
    assert "No licence was chosen" in card.text
    assert 'FaceSwapper.from_pretrained("owner/name")' in card.text
    for name in ("validation.png", "curves.png"):
        assert f"]({name})" in card.text
        with Image.open(folder / name) as picture:
            assert picture.width >= CROP_SIZE
    with Image.open(folder / "validation.png") as picture:
        assert "TrainedAlgorithmicMedia" in str(picture.info)
    with Image.open(folder / "curves.png") as picture:
        assert "TrainedAlgorithmicMedia" not in str(picture.info)


def test_a_chosen_licence_stands_in_the_metadata(prepared_faces, tmp_path):
    run = finished_run(fresh_accelerator(), tmp_path, prepared_faces, license="cc-by-4.0")
    write_model_card(tmp_path, run)
    card = ModelCard.load(tmp_path / "README.md")
    assert (card.data.license, card.data.license_name) == ("cc-by-4.0", None)
    assert "No licence was chosen" not in card.text
    assert "![" not in card.text  # nothing was drawn


def test_a_local_or_a_new_model_is_no_base_on_the_hub(prepared_faces, tmp_path):
    (tmp_path / "earlier").mkdir()
    for more, told in (
        ({"pretrained_model_name_or_path": str(tmp_path / "earlier")}, "| began with | earlier |"),
        ({"vae": tmp_path / "earlier"}, "| began with | random weights |"),
    ):
        run = finished_run(fresh_accelerator(), tmp_path, prepared_faces, **more)
        write_model_card(tmp_path, run)
        card = ModelCard.load(tmp_path / "README.md")
        assert card.data.base_model is None
        assert told in card.text
