"""What a checkpoint may hold, and what is said about one that does not fit."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.pipelines.loading import EMBEDDED_CHECKPOINT, checkpoint_folder, load_parser, load_pipeline
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline(crop_size=64).save_pretrained(folder)
    return folder


@pytest.fixture
def checkpoint(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def edit_weights(path: Path, edit) -> None:
    weights = load_file(path)
    edit(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_every_weight_and_setting_comes_back(checkpoint: Path):
    saved, loaded = tiny_pipeline(crop_size=64), load_pipeline(checkpoint)
    for name in ("vae", "unet", "image_encoder", "conditioner"):
        wanted, got = (getattr(pipeline, name).state_dict() for pipeline in (saved, loaded))
        assert wanted.keys() == got.keys()
        assert all(torch.equal(wanted[key], got[key]) for key in wanted)
        assert not getattr(loaded, name).training
    for key in ("crop_size", "channel_order", "default_num_inference_steps"):
        assert loaded.config[key] == saved.config[key]
    assert loaded.scheduler.config["steps_offset"] == 1


def test_the_precision_is_that_of_all_networks(checkpoint: Path):
    pipeline = load_pipeline(checkpoint, torch.bfloat16)
    dtypes = {getattr(pipeline, name).dtype for name in ("vae", "unet", "image_encoder", "conditioner")}
    assert dtypes == {torch.bfloat16}


def test_weights_saved_in_half_precision_are_computed_with_in_full(tmp_path: Path):
    tiny_pipeline().to(torch.float16).save_pretrained(tmp_path)
    assert load_pipeline(tmp_path).unet.dtype == torch.float32


@pytest.mark.parametrize("component", ["unet", "vae", "image_encoder", "conditioner"])
def test_missing_and_surplus_keys_are_named(checkpoint: Path, component: str):
    (path,) = (checkpoint / component).glob("*.safetensors")
    name = min(load_file(path))
    edit_weights(path, lambda weights: weights.pop(name))
    with pytest.raises(ValueError, match=rf"{component} do not fit \w+: 1 missing keys, as {name}"):
        load_pipeline(checkpoint)
    edit_weights(path, lambda weights: weights.update({name: torch.zeros(1), "stowaway.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"stowaway\.weight|shape|size"):
        load_pipeline(checkpoint)


def test_surplus_keys_alone_are_refused(checkpoint: Path):
    path = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    edit_weights(path, lambda weights: weights.update({"stowaway.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"1 unexpected keys, as stowaway\.weight"):
        load_pipeline(checkpoint)


@pytest.mark.parametrize("component", ["unet", "image_encoder"])
def test_weights_of_another_shape_are_a_users_error(checkpoint: Path, component: str):
    (path,) = (checkpoint / component).glob("*.safetensors")
    name = max(load_file(path))
    edit_weights(path, lambda weights: weights.update({name: torch.zeros(3, 5)}))
    with pytest.raises(ValueError, match=component):
        load_pipeline(checkpoint)


@pytest.mark.parametrize("name", ["unet/diffusion_pytorch_model.bin", "last.ckpt", "vae/weights.pt", "model.pkl"])
def test_pickled_files_are_refused_unread(checkpoint: Path, name: str):
    (checkpoint / name).write_bytes(b"whatever")
    with pytest.raises(ValueError, match=rf"holds a pickled file, {name}, which may run code"):
        load_pipeline(checkpoint)


def test_damaged_and_absent_weights_are_users_errors(checkpoint: Path):
    path = checkpoint / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="unet cannot be read"):
        load_pipeline(checkpoint)
    path.unlink()
    with pytest.raises(ValueError, match="unet cannot be read"):
        load_pipeline(checkpoint)
    shutil.rmtree(checkpoint / "unet")
    with pytest.raises(ValueError, match="lacks the folder unet"):
        load_pipeline(checkpoint)


def test_components_of_unknown_libraries_are_not_imported(checkpoint: Path):
    index = json.loads((checkpoint / "model_index.json").read_text())
    index["vae"] = ["antigravity", "AutoencoderKL"]
    (checkpoint / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match=r"vae in checkpoint .* is of library 'antigravity'"):
        load_pipeline(checkpoint)
    index["vae"] = ["diffusers", "NoSuchModel"]
    (checkpoint / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(ValueError, match="diffusers has no NoSuchModel"):
        load_pipeline(checkpoint)


def test_unknown_checkpoints_are_told_apart(tmp_path: Path):
    with pytest.raises(ValueError, match="neither a folder here nor a Hub id"):
        checkpoint_folder(tmp_path / "nowhere" / "at" / "all")
    with pytest.raises(ValueError, match="is no folder here, and no such Hub repository could be read"):
        checkpoint_folder("nobody/nothing")
    with pytest.raises(ValueError, match=r"has no model_index\.json"):
        checkpoint_folder(tmp_path)
    (tmp_path / "last.ckpt").write_bytes(b"")
    with pytest.raises(ValueError, match="is a file; the folder of a checkpoint"):
        checkpoint_folder(tmp_path / "last.ckpt")


def test_the_embedded_checkpoint_is_the_default():
    assert checkpoint_folder(None) == EMBEDDED_CHECKPOINT
    config = load_pipeline().config
    assert config["crop_size"] == 256
    assert config["hidden_fill"] == "reference"


def test_a_checkpoint_may_bring_its_parser(checkpoint: Path):
    assert load_parser(checkpoint) is load_face_parser()
    assert load_parser() is load_face_parser()
    parser = BiSeNet()
    parser.save_pretrained(checkpoint / "face_parser")
    loaded = load_parser(checkpoint)
    assert isinstance(loaded, BiSeNet)
    assert not loaded.training
    name = "cp.arm16.conv.conv.weight"
    assert torch.equal(loaded.state_dict()[name], parser.state_dict()[name])
    weights = checkpoint / "face_parser" / "diffusion_pytorch_model.safetensors"
    edit_weights(weights, lambda weights: weights.pop(name))
    with pytest.raises(ValueError, match=rf"face_parser do not fit BiSeNet: 1 missing keys, as {name}"):
        load_parser(checkpoint)
