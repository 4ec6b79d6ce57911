"""What a saved pipeline consists of, and what is refused when it is loaded."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.weights.hub import HUB_FILES, write_hub_files
from tests.tiny import tiny_inputs, tiny_pipeline

EXAMPLE = Path(__file__).parents[2] / "pipelines" / "faceswap_inpaint"


@pytest.fixture
def folder(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    return tmp_path


def load(folder, **arguments):
    pipe = FaceSwapInpaintPipeline.from_pretrained(folder, **arguments)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pickle_weights(folder, safetensors_name, pickled_name):
    """Puts a pickled file in the place of a safetensors one, as old checkpoints have it."""
    torch.save(load_file(folder / safetensors_name), folder / pickled_name)
    (folder / safetensors_name).unlink()


def test_the_example_repository_shows_the_files_that_are_written():
    python = {name: text for name, text in HUB_FILES.items() if name.endswith(".py")}
    assert {path.relative_to(EXAMPLE).as_posix() for path in EXAMPLE.rglob("*.py")} == set(python)
    assert all((EXAMPLE / name).read_text() == text for name, text in python.items())


def test_a_saved_pipeline_is_safetensors_and_what_the_hub_needs(folder):
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {
        *(name for name in HUB_FILES if name != "safety_checker/faceswap_diffusion.py"),  # it has none
        "model_index.json",
        "scheduler/scheduler_config.json",
        "feature_extractor/preprocessor_config.json",
        "image_encoder/config.json",
        "image_encoder/model.safetensors",
        *(f"{part}/config.json" for part in ("vae", "unet", "conditioner")),
        *(f"{part}/diffusion_pytorch_model.safetensors" for part in ("vae", "unet", "conditioner")),
    }


def test_saved_and_loaded_it_is_the_same_to_the_bit(folder):
    config = {"channel_order": "latents,mask,masked_image_latents", "crop_size": 16, "landmark_scale": 0.25}
    pipe = tiny_pipeline(**config)
    pipe.save_pretrained(folder)
    loaded = load(folder)
    for name, part in pipe.components.items():
        if isinstance(part, torch.nn.Module):
            state, same = part.state_dict(), getattr(loaded, name).state_dict()
            assert set(state) == set(same)
            assert all(torch.equal(state[key], same[key]) for key in state)
    settings = {name: value for name, value in pipe.config.items() if not name.startswith("_")}
    assert {name: loaded.config[name] for name in settings} == settings
    assert (loaded.config["crop_size"], loaded.config["landmark_scale"]) == (16, 0.25)
    without_landmarks: dict[str, Any] = {"landmarks": None}  # theirs are those of a larger crop
    same, expected = (part(**tiny_inputs() | without_landmarks).images for part in (loaded, pipe))
    assert torch.equal(same, expected)


def test_where_it_was_loaded_from_is_not_saved(folder, tmp_path_factory):
    again = tmp_path_factory.mktemp("again")
    pipe = load(folder)
    assert pipe.name_or_path == str(folder)
    pipe.save_pretrained(again)
    configs = list(again.rglob("*.json"))
    assert len(configs) == 7
    assert not [path for path in configs if str(folder) in path.read_text() or "_name_or_path" in path.read_text()]
    assert torch.equal(load(again)(**tiny_inputs()).images, tiny_pipeline()(**tiny_inputs()).images)


def test_a_model_card_that_is_there_stays(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    write_hub_files(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_precision_may_be_chosen_for_each_component(folder):
    pipe = load(folder, dtype={"conditioner": torch.bfloat16, "default": torch.float16})
    assert (pipe.conditioner.dtype, pipe.unet.dtype, pipe.image_encoder.dtype) == (
        torch.bfloat16,
        torch.float16,
        torch.float16,
    )
    assert load(folder, dtype=torch.float16).conditioner.dtype == torch.float16


def test_a_variant_is_found(folder):
    half = tiny_pipeline().to(torch.float16)
    half.save_pretrained(folder, variant="fp16")
    pipe = load(folder, variant="fp16", dtype=torch.float16)
    state = half.conditioner.state_dict()
    assert all(torch.equal(state[key], value) for key, value in pipe.conditioner.state_dict().items())


def test_a_component_may_be_passed_in(folder):
    conditioner = FaceConditioner.from_pretrained(folder / "conditioner")
    assert load(folder, conditioner=conditioner).conditioner is conditioner


def test_a_pipeline_without_optional_components_is_saved_and_loaded(tmp_path):
    pipe = tiny_pipeline()
    for name in ("image_encoder", "feature_extractor", "conditioner"):
        setattr(pipe, name, None)
    pipe.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    assert (loaded.image_encoder, loaded.feature_extractor, loaded.conditioner) == (None, None, None)
    assert not (tmp_path / "conditioner").exists()


@pytest.mark.parametrize(
    ("part", "safetensors_name", "pickled_name"),
    [
        ("unet", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("conditioner", "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
        ("image_encoder", "model.safetensors", "pytorch_model.bin"),
    ],
)
def test_pickled_weights_are_refused_in_one_line(folder, part, safetensors_name, pickled_name):
    pickle_weights(folder / part, safetensors_name, pickled_name)
    with pytest.raises(ValueError, match=f"no pipeline with safetensors at {folder}: .*safetensors") as error:
        load(folder)
    assert "\n" not in str(error.value)


def test_pickles_cannot_be_asked_for(folder):
    with pytest.raises(ValueError, match="use_safetensors has to be True: pickled weights are not read"):
        load(folder, use_safetensors=False)


def test_nothing_but_safetensors_is_written(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("faceswap_diffusion"), "propagate", True)
    tiny_pipeline().save_pretrained(tmp_path, safe_serialization=False)
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".bin", ".pt"}]
    assert "weights are saved as safetensors only" in caplog.text


def test_uploading_has_its_own_method(tmp_path):
    with pytest.raises(ValueError, match="call push_to_hub"):
        tiny_pipeline().save_pretrained(tmp_path, push_to_hub=True)
    assert not list(tmp_path.iterdir())
