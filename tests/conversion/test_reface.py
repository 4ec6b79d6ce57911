"""REFace's checkpoint into a folder and back: to the bit, reported key by key, and refused for a reason."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from faceswap_diffusion.conversion.reface import (
    ARCFACE_PREFIX,
    LEFT_OUT,
    build_empty_pipeline,
    check_reface,
    convert_reface,
)
from faceswap_diffusion.conversion.reface_export import convert_to_reface
from faceswap_diffusion.conversion.torch_files import Checkpoint
from faceswap_diffusion.conversion.weights import reason_for
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import load_pipeline
from faceswap_diffusion.weights.hub import HUB_FILES
from tests.parity.reduced import REDUCED
from tests.weights.test_pickled import Call

OURS = {"landmark_mean": 0.0, "landmark_std": 1.0}


def convert(checkpoint: Path, folder: Path, **options):
    return convert_reface(checkpoint, folder, architecture=REDUCED, **options)


@pytest.fixture(scope="module")
def folder(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "reface"
    convert(checkpoint, folder)
    return folder


def saved_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Every weight in a folder, as "component/name"."""
    return {
        f"{file.parent.name}/{name}": weight
        for file in folder.rglob("*.safetensors")
        for name, weight in load_file(file).items()
    }


@pytest.fixture(scope="module")
def empty_pipeline() -> FaceSwapInpaintPipeline:
    return build_empty_pipeline(REDUCED)


def edited(weights: dict[str, torch.Tensor], **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Weights of which some are exchanged, added or, for `None`, removed; "__" in a name stands for a dot."""
    changed = {**weights, **{key.replace("__", "."): weight for key, weight in changes.items()}}
    return {key: weight for key, weight in changed.items() if weight is not None}


def test_every_weight_is_in_the_folder_to_the_bit(folder: Path, weights):
    report = json.loads((folder / "conversion.json").read_text())
    saved = saved_weights(folder)
    assert set(saved) == set(report["became"].values()) | set(report["added"])
    for key, name in report["became"].items():
        assert saved[name].dtype == weights[key].dtype
        assert torch.equal(saved[name], weights[key].reshape(saved[name].shape)), key
    assert all((saved[f"conditioner/{name}"] == value).all() for name, value in OURS.items())


def test_the_report_tells_of_every_key(folder: Path, weights):
    report = json.loads((folder / "conversion.json").read_text())
    assert set(report["became"]).isdisjoint(report["left_out"])
    state = {"epoch", "pytorch-lightning_version", "optimizer_states", "callbacks"}
    assert set(report["became"]) | set(report["left_out"]) == set(weights) | state
    assert report["became"]["learnable_vector"] == "conditioner/unconditional.embeds"
    assert report["became"]["cond_stage_model.final_ln2.bias"] == "conditioner/mapper_norm.bias"
    assert report["left_out"]["cond_stage_model.final_ln.bias"] == "never used by REFace"
    assert report["left_out"]["optimizer_states"] == "state of the training"


def test_the_folder_is_whole_and_says_how_it_is_used(folder: Path):
    parts = {"unet", "vae", "image_encoder", "conditioner", "scheduler", "feature_extractor", "safety_checker"}
    assert {path.name for path in folder.iterdir() if path.is_dir()} == parts
    assert {"model_index.json", "conversion.json"} <= set(os.listdir(folder))
    assert all((folder / name).is_file() for name in HUB_FILES)
    assert "non-commercial" in (folder / "README.md").read_text()
    assert os.listdir(folder.parent) == ["reface"]
    config = load_pipeline(folder).config
    expected = {
        "channel_order": "latents,masked_image_latents,keep_mask",
        "masked_latents": "sample",
        "identity_size": 224,
        "mask_identity": True,
        "landmark_scale": 1.0,
        "default_num_inference_steps": 50,
        "default_guidance_scale": 3.5,
    }
    assert {name: config[name] for name in expected} == expected


def test_there_and_back_is_the_same_to_the_bit(folder: Path, weights, tmp_path: Path):
    report = convert_to_reface(folder, tmp_path / "back.ckpt")
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)  # as REFace's own code would
    assert set(back) == {"state_dict"}
    used = {key for key in weights if reason_for(key, LEFT_OUT) is None}
    assert set(back["state_dict"]) == used
    assert {name.partition("/")[2] for name in report.became.values()} == used
    for key, weight in back["state_dict"].items():
        assert weight.dtype == weights[key].dtype
        assert torch.equal(weight, weights[key]), key
    assert (tmp_path / "back.ckpt").stat().st_size < 1.01 * sum(weights[key].nbytes for key in used) + 1e6
    assert os.listdir(tmp_path) == ["back.ckpt"]


def test_back_and_there_is_the_same_to_the_bit(folder: Path, tmp_path: Path):
    convert_to_reface(folder, tmp_path / "back.ckpt")
    convert(tmp_path / "back.ckpt", tmp_path / "again")
    first, second = saved_weights(folder), saved_weights(tmp_path / "again")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_half_precision_is_rounded_and_integers_stay(checkpoint: Path, weights, tmp_path: Path):
    convert(checkpoint, tmp_path / "half", dtype=torch.float16)
    saved = saved_weights(tmp_path / "half")
    report = json.loads((tmp_path / "half" / "conversion.json").read_text())
    for key, name in report["became"].items():
        wanted = weights[key].half() if weights[key].is_floating_point() else weights[key]
        assert saved[name].dtype == wanted.dtype
        assert torch.equal(saved[name], wanted.reshape(saved[name].shape))
    assert load_pipeline(tmp_path / "half").conditioner.dtype == torch.float32


def test_values_too_large_for_half_precision_are_named(weights, tmp_path: Path):
    path = tmp_path / "last.ckpt"
    torch.save(edited(weights, ID_proj_out__bias=torch.full((64,), 70_000.0)), path)
    with pytest.raises(ValueError, match=r"ID_proj_out\.bias has values too large for torch\.float16"):
        convert(path, tmp_path / "half", dtype=torch.float16)
    assert os.listdir(tmp_path) == ["last.ckpt"]


def test_another_arcface_takes_the_place_of_the_checkpoints(checkpoint: Path, weights, tmp_path: Path):
    arcface = {key.removeprefix(ARCFACE_PREFIX): weight for key, weight in weights.items() if ARCFACE_PREFIX in key}
    arcface["output_layer.3.bias"] = torch.arange(512.0)
    torch.save(arcface, tmp_path / "model_ir_se50.pth", _use_new_zipfile_serialization=False)
    convert(checkpoint, tmp_path / "out", arcface=tmp_path / "model_ir_se50.pth")
    saved = saved_weights(tmp_path / "out")
    assert torch.equal(saved["conditioner/identity_encoder.output_layer.3.bias"], torch.arange(512.0))
    name = "input_layer.0.weight"
    assert torch.equal(saved[f"conditioner/identity_encoder.{name}"], arcface[name])
    torch.save({"body": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(
        ValueError, match=rf"keys are missing, {ARCFACE_PREFIX}.*1 key is unknown, {ARCFACE_PREFIX}body"
    ):
        convert(checkpoint, tmp_path / "other", arcface=tmp_path / "other.pth")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"proj_out_source__bias": None}, r"1 key is missing, proj_out_source\.bias"),
        ({"stowaway__weight": torch.zeros(1)}, r"1 key is unknown, stowaway\.weight"),
        (
            {"landmark_proj_out__weight": torch.zeros(64, 10)},
            r"1 key is of the wrong shape, landmark_proj_out\.weight \(is \(64, 10\), has to be \(64, 136\)\)",
        ),
        (
            {f"stowaway__{index}": torch.zeros(1) for index in range(11)},
            r"11 keys are unknown, stowaway\.0, .* stowaway\.7 and 3 more",
        ),
        (
            {"learnable_vector": torch.zeros(1, 2, 64), "ID_proj_out__bias": None, "more": torch.zeros(1)},
            r"1 key is missing, ID_proj_out\.bias; 1 key is unknown, more; 1 key is of the wrong shape, learnable_vec",
        ),
        ({"alphas_cumprod": torch.linspace(1, 0, 1000)}, "has another noise schedule"),
        ({"alphas_cumprod": torch.ones(10)}, "has another noise schedule"),
    ],
)
def test_keys_that_do_not_fit_are_named(weights, empty_pipeline, changes, message: str):
    with pytest.raises(ValueError, match=message) as error:
        check_reface(Checkpoint(Path("last.ckpt"), edited(weights, **changes), []), empty_pipeline)
    assert "\n" not in str(error.value)


def test_a_stable_diffusion_checkpoint_is_recognised(weights, empty_pipeline):
    prefixes = ("model.diffusion_model.", "first_stage_model.")
    stable_diffusion = {key: weight for key, weight in weights.items() if key.startswith(prefixes)}
    with pytest.raises(ValueError, match=r"sd\.ckpt .*looks like one of Stable Diffusion.*sd-inpaint-init"):
        check_reface(Checkpoint(Path("sd.ckpt"), stable_diffusion, []), empty_pipeline)


def test_what_only_older_releases_store_is_left_out():
    assert reason_for("cond_stage_model.model.vision_model.embeddings.position_ids", LEFT_OUT) == "numbers from 0 on"
    assert reason_for("cond_stage_model.model.text_model.embeddings.position_ids", LEFT_OUT) is not None
    assert reason_for("cond_stage_model.mapper2.resblocks.0.ln_1.bias", LEFT_OUT) is None
    assert reason_for("lpips_loss.net.mean", LEFT_OUT) == "a network of the training's loss"


def test_a_full_disk_leaves_nothing(checkpoint: Path, tmp_path: Path, full_disk):
    with pytest.raises(ValueError, match=r"cannot write .*out: .*File too large") as error:
        convert(checkpoint, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == []


def test_a_full_disk_leaves_the_older_file(folder: Path, tmp_path: Path, full_disk):
    (tmp_path / "back.ckpt").write_bytes(b"older")
    with pytest.raises(ValueError, match=r"cannot write .*back\.ckpt: "):
        convert_to_reface(folder, tmp_path / "back.ckpt", overwrite=True)
    assert (tmp_path / "back.ckpt").read_bytes() == b"older"
    assert os.listdir(tmp_path) == ["back.ckpt"]


def test_an_older_folder_is_replaced_on_demand_alone(checkpoint: Path, folder: Path, tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(ValueError, match="exists: choose another name, or pass --overwrite"):
        convert(checkpoint, out)
    (out / "model_index.json").write_text("older")
    convert(checkpoint, out, overwrite=True)
    assert saved_weights(out).keys() == saved_weights(folder).keys()
    assert os.listdir(tmp_path) == ["out"]


def test_a_failure_leaves_the_older_folder(checkpoint: Path, tmp_path: Path, full_disk):
    out = tmp_path / "out"
    out.mkdir()
    (out / "model_index.json").write_text("older")
    with pytest.raises(ValueError, match="cannot write"):
        convert(checkpoint, out, overwrite=True)
    assert (out / "model_index.json").read_text() == "older"
    assert os.listdir(tmp_path) == ["out"]


def test_a_folder_of_other_things_is_never_replaced(checkpoint: Path, tmp_path: Path):
    (tmp_path / "holiday.jpg").write_bytes(b"photo")
    with pytest.raises(ValueError, match="a folder of other things than a checkpoint"):
        convert(checkpoint, tmp_path, overwrite=True)
    with pytest.raises(ValueError, match="there is no folder"):
        convert(checkpoint, tmp_path / "no" / "where")


def test_foreign_classes_and_calls_of_the_trainer_do_not_matter(weights, tmp_path: Path):
    trace = tmp_path / "it ran"
    torch.save({"callbacks": Call(os.mkdir, str(trace)), "state_dict": weights}, tmp_path / "last.ckpt")
    convert(tmp_path / "last.ckpt", tmp_path / "out")
    assert not trace.exists()
    with pytest.raises(pickle.UnpicklingError):  # what PyTorch itself says of such a file
        torch.load(tmp_path / "last.ckpt", weights_only=True)


@pytest.mark.parametrize(
    ("part", "setting", "value", "message"),
    [
        ("conditioner/config.json", "identity_weight", 5.0, r"identity_weight is 5\.0, and REFace's code has 10\.0"),
        ("conditioner/config.json", "combine", "concat", "combine is 'concat'"),
        ("conditioner/config.json", "hidden_dim", 32, "projections have a hidden layer"),
        ("model_index.json", "channel_order", "latents,mask,masked_image_latents", "channel_order is"),
        ("conditioner/config.json", "cross_attention_dim", 32, "makes tokens 32 wide, but the UNet takes 64"),
    ],
)
def test_only_folders_of_refaces_design_go_back(folder: Path, tmp_path: Path, part, setting, value, message: str):
    copy = tmp_path / "copy"
    for file in folder.rglob("*"):
        if file.is_file():
            (copy / file.relative_to(folder)).parent.mkdir(parents=True, exist_ok=True)
            (copy / file.relative_to(folder)).symlink_to(file)
    config = json.loads((copy / part).read_text())
    (copy / part).unlink()
    (copy / part).write_text(json.dumps({**config, setting: value}))
    with pytest.raises(ValueError, match=message):
        convert_to_reface(copy, tmp_path / "back.ckpt")
    assert os.listdir(tmp_path) == ["copy"]


def test_the_embedded_checkpoint_is_not_of_refaces_design(tmp_path: Path):
    with pytest.raises(ValueError, match="not of REFace's design: identity_network is 'sface'"):
        convert_to_reface(Path("faceswap_diffusion/checkpoints/faceswap-small"), tmp_path / "back.ckpt")
