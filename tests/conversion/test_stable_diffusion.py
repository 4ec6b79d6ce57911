"""A training's beginning from Stable Diffusion: it paints as it did, and sees what it will learn to use."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from faceswap_diffusion.conversion.reface import ARCFACE_PREFIX, build_empty_pipeline
from faceswap_diffusion.conversion.stable_diffusion import init_from_stable_diffusion, widen_input
from faceswap_diffusion.pipelines.loading import EMBEDDED_CHECKPOINT, load_pipeline
from tests.parity.reduced import REDUCED
from tests.tiny import CROSS_ATTENTION_DIM, tiny_image_encoder, tiny_unet, tiny_vae


@pytest.fixture(scope="module")
def stable_diffusion(weights) -> dict[str, torch.Tensor]:
    """A file's weights: REFace's reduced ones without its additions, and Stable Diffusion's text encoder."""
    prefixes = ("model.diffusion_model.", "first_stage_model.", "alphas_cumprod", "betas")
    kept = {key: weight for key, weight in weights.items() if key.startswith(prefixes)}
    conv_in = "model.diffusion_model.input_blocks.0.0.weight"
    text = {"cond_stage_model.transformer.text_model.embeddings.position_ids": torch.arange(77)[None]}
    return {**kept, conv_in: kept[conv_in][:, :4].clone(), **text, "model_ema.decay": torch.tensor(0.9999)}


@pytest.fixture
def tiny_folder(tmp_path: Path) -> Path:
    """Stable Diffusion in Diffusers' layout, tiny."""
    config: dict[str, Any] = {**tiny_unet().config, "in_channels": 4}
    torch.manual_seed(3)
    UNet2DConditionModel.from_config(config).save_pretrained(tmp_path / "sd" / "unet")
    tiny_vae().save_pretrained(tmp_path / "sd" / "vae")
    return tmp_path / "sd"


@torch.no_grad()
def paints_as(narrow: UNet2DConditionModel, wide: UNet2DConditionModel) -> bool:
    torch.manual_seed(0)
    latents, context = torch.randn(1, 4, 16, 16), torch.randn(1, 1, narrow.config["cross_attention_dim"])
    others = 100 * torch.randn(1, 5, 16, 16)
    wanted = narrow(latents, torch.tensor(500), context).sample
    got = wide(torch.cat([latents, others], dim=1), torch.tensor(500), context).sample
    return torch.allclose(got, wanted, rtol=0, atol=1e-5) and wanted.std().item() > 1e-3


def test_a_folder_paints_as_before_at_first(tiny_folder: Path, tmp_path: Path):
    report = init_from_stable_diffusion(tiny_folder, tmp_path / "start")
    pipeline = load_pipeline(tmp_path / "start")
    assert paints_as(UNet2DConditionModel.from_pretrained(tiny_folder / "unet"), pipeline.unet)
    weight = pipeline.unet.conv_in.weight
    assert weight.shape == (8, 9, 3, 3)
    assert weight[:, :4].abs().min() > 0
    assert weight[:, 4:].abs().max() == 0
    assert pipeline.unet.config["in_channels"] == 9
    vae = load_file(tiny_folder / "vae" / "diffusion_pytorch_model.safetensors")
    assert all(torch.equal(pipeline.vae.state_dict()[name], value) for name, value in vae.items())
    assert report.added["unet/conv_in.weight"] == "input channels for the masked target and the mask: zeros"
    assert set(report.left_out) == {"text_encoder", "tokenizer"}
    assert sorted(os.listdir(tmp_path)) == ["sd", "start"]


def test_without_further_files_the_packages_recogniser_and_encoder_are_used(tiny_folder: Path, tmp_path: Path):
    init_from_stable_diffusion(tiny_folder, tmp_path / "start")
    pipeline, embedded = load_pipeline(tmp_path / "start"), load_pipeline(EMBEDDED_CHECKPOINT)
    assert pipeline.conditioner.config["identity_network"] == "sface"
    assert pipeline.conditioner.config["cross_attention_dim"] == CROSS_ATTENTION_DIM
    ours, theirs = pipeline.image_encoder.state_dict(), embedded.image_encoder.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert pipeline.config["channel_order"] == "latents,masked_image_latents,keep_mask"
    assert pipeline.config["crop_size"] == 32  # twice the UNet's sample size, by an autoencoder of two levels
    assert pipeline.scheduler.config["prediction_type"] == "epsilon"


def test_heads_are_fresh_by_the_seed(tiny_folder: Path, tmp_path: Path):
    before = torch.random.get_rng_state()
    for name, seed in (("first", 0), ("same", 0), ("other", 1)):
        init_from_stable_diffusion(tiny_folder, tmp_path / name, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), before)
    first, same, other = (
        load_file(tmp_path / name / "conditioner" / "diffusion_pytorch_model.safetensors")
        for name in ("first", "same", "other")
    )
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["source_projection.weight"], other["source_projection.weight"])


def test_a_file_in_compvis_layout_with_arcface_and_clip(stable_diffusion, weights, tmp_path: Path):
    save_file(stable_diffusion, tmp_path / "sd.safetensors")
    arcface = {key.removeprefix(ARCFACE_PREFIX): weight for key, weight in weights.items() if ARCFACE_PREFIX in key}
    torch.save(arcface, tmp_path / "model_ir_se50.pth")
    tiny_image_encoder().save_pretrained(tmp_path / "clip")
    report = init_from_stable_diffusion(
        tmp_path / "sd.safetensors",
        tmp_path / "start",
        arcface=tmp_path / "model_ir_se50.pth",
        image_encoder=tmp_path / "clip",
        architecture=REDUCED,
    )
    pipeline = load_pipeline(tmp_path / "start")
    assert torch.equal(
        pipeline.unet.conv_in.weight[:, :4], stable_diffusion["model.diffusion_model.input_blocks.0.0.weight"]
    )
    identity = pipeline.conditioner.identity_encoder.state_dict()
    assert all(torch.equal(identity[name], weight) for name, weight in arcface.items())
    assert pipeline.conditioner.config["clip_embed_dim"] == tiny_image_encoder().config.projection_dim
    assert pipeline.feature_extractor.crop_size == {"height": 24, "width": 24}
    assert set(report.became) | set(report.left_out) == set(stable_diffusion)
    assert report.left_out["model_ema.decay"] == "moving averages of the weights"
    assert report.added["conditioner/identity_encoder.input_layer.0.weight"].endswith("model_ir_se50.pth")
    assert report.added["conditioner/source_projection.bias"] == "fresh layers of the conditioner"
    assert report.added["image_encoder/visual_projection.weight"] == f"the image encoder of {tmp_path / 'clip'}"
    assert json.loads((tmp_path / "start" / "conversion.json").read_text())["became"] == report.became


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "reface",
            r"is not a checkpoint of Stable Diffusion 1\.x: .*keys are unknown.*1 key is of the wrong shape, model",
        ),
        ("wide context", r"of the wrong shape, .*attn2\.to_k\.weight \(is \(32, 1024\), has to be \(32, 64\)\)"),
        ("no autoencoder", r"248 keys are missing, first_stage_model"),
    ],
)
def test_other_files_are_refused(stable_diffusion, weights, tmp_path: Path, change: str, message: str):
    content = dict(stable_diffusion)
    if change == "reface":
        content = weights
    elif change == "wide context":
        key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
        content[key] = torch.zeros(32, 1024)
    else:
        content = {key: weight for key, weight in content.items() if not key.startswith("first_stage_model.")}
    torch.save({"state_dict": content}, tmp_path / "sd.ckpt")
    with pytest.raises(ValueError, match=message):
        init_from_stable_diffusion(tmp_path / "sd.ckpt", tmp_path / "start", architecture=REDUCED)
    assert os.listdir(tmp_path) == ["sd.ckpt"]


def test_other_folders_and_files_are_refused(tiny_folder: Path, tmp_path: Path):
    out = tmp_path / "start"
    with pytest.raises(ValueError, match="no unet of Stable Diffusion with safetensors can be read"):
        init_from_stable_diffusion(tmp_path, out)
    with pytest.raises(ValueError, match="there is no file"):
        init_from_stable_diffusion(tmp_path / "absent.ckpt", out)
    with pytest.raises(ValueError, match="no CLIP model with safetensors can be read"):
        init_from_stable_diffusion(tiny_folder, out, image_encoder=tmp_path / "absent")
    (tmp_path / "other.pth").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"other\.pth cannot be read as a checkpoint"):
        init_from_stable_diffusion(tiny_folder, out, arcface=tmp_path / "other.pth")
    tiny_unet().save_pretrained(tiny_folder / "unet")
    with pytest.raises(ValueError, match="takes 9 channels: give one of Stable Diffusion"):
        init_from_stable_diffusion(tiny_folder, out)
    assert not out.exists()


def test_widening_keeps_precision_and_bias():
    narrow = UNet2DConditionModel.from_config({**tiny_unet().config, "in_channels": 4}).half()
    bias = narrow.conv_in.bias.clone()
    widen_input(narrow, Path("sd"))
    assert narrow.conv_in.weight.dtype == torch.float16
    assert torch.equal(narrow.conv_in.bias, bias)
    assert narrow.conv_in.weight.requires_grad


def test_an_empty_pipeline_takes_no_memory():
    pipeline = build_empty_pipeline(REDUCED)
    assert {parameter.device.type for parameter in pipeline.unet.parameters()} == {"meta"}
    assert pipeline.scheduler.alphas_cumprod.device.type == "cpu"
