"""What a pipeline is made of: components that fit each other, and the settings that their weights were made with."""

import inspect
import json
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.pipelines.faceswap_inpaint import FORMER_DEFAULTS, FaceSwapInpaintPipeline
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT
from tests.tiny import (
    CROP_SIZE,
    TINY_SETTINGS,
    tiny_components,
    tiny_conditioner,
    tiny_inputs,
    tiny_pipeline,
    tiny_unet,
    tiny_vae,
)

OTHER_SETTINGS = {
    "channel_order": "latents,mask,masked_image_latents", "masked_latents": "mode", "shown_regions": "head",
    "landmark_scale": 0.5, "hidden_fill": "landmarks", "mask_identity": True, "identity_size": 48,
    "default_num_inference_steps": 3, "default_strength": 0.5, "default_guidance_scale": 1.5,
}  # fmt: skip


def test_components_of_a_pipeline_paint_the_same_in_another():
    pipe = tiny_pipeline(**OTHER_SETTINGS)
    expected = pipe(**tiny_inputs()).images
    others = {
        "components": FaceSwapInpaintPipeline(**pipe.components),
        "settings, too": FaceSwapInpaintPipeline(**pipe.components, **pipe.settings),
        "from_pipe": FaceSwapInpaintPipeline.from_pipe(pipe),
    }
    for way, other in others.items():
        assert other.settings == pipe.settings, way
        assert torch.equal(other(**tiny_inputs()).images, expected), way
    assert FaceSwapInpaintPipeline(**pipe.components, default_num_inference_steps=7).settings == {
        **pipe.settings, "default_num_inference_steps": 7
    }  # fmt: skip
    with pytest.raises(ValueError, match="hidden_fill is 'blue'"):
        FaceSwapInpaintPipeline(**pipe.components, hidden_fill="blue")
    assert FaceSwapInpaintPipeline(**pipe.components).settings == pipe.settings  # as if nothing had been


def test_settings_that_are_changed_later_go_along():
    pipe = tiny_pipeline()
    pipe.register_to_config(hidden_fill="reference")
    assert FaceSwapInpaintPipeline(**pipe.components).config["hidden_fill"] == "reference"


@pytest.mark.parametrize("missing", TINY_SETTINGS)
def test_with_a_unet_of_other_origin_every_setting_has_to_be_given(missing):
    settings = {name: value for name, value in TINY_SETTINGS.items() if name != missing}
    pipe = FaceSwapInpaintPipeline(**tiny_components(), **settings)
    for use in (lambda: pipe(**tiny_inputs()), lambda: FaceSwapper(pipe)):
        with pytest.raises(ValueError, match=f"^{missing} not given, and this UNet does not say") as error:
            use()
        assert "\n" not in str(error.value)


def test_settings_are_all_that_the_constructor_takes_besides_components():
    pipe = tiny_pipeline()
    told = {*pipe.components, *pipe.settings, "requires_safety_checker"}
    assert told == {*inspect.signature(FaceSwapInpaintPipeline).parameters}


def test_the_size_of_crops_is_that_of_unet_and_autoencoder():
    assert tiny_pipeline().config["crop_size"] == CROP_SIZE  # latents of 16, of 2 pixels each
    assert tiny_pipeline(crop_size=64).config["crop_size"] == 64
    with pytest.raises(ValueError, match="crop_size is 512, but UNet and autoencoder are made for crops of 32 pixels"):
        FaceSwapInpaintPipeline(**tiny_components(), **TINY_SETTINGS, crop_size=512)
    components = tiny_components()
    components["unet"].register_to_config(sample_size=None)
    unsaid = FaceSwapInpaintPipeline(**components, **TINY_SETTINGS)
    with pytest.raises(ValueError, match="crop_size not given"):
        unsaid(**tiny_inputs())
    with pytest.raises(ValueError, match="crop_size is 33: use a multiple of 2"):
        FaceSwapInpaintPipeline(**components, **TINY_SETTINGS, crop_size=33)
    said = FaceSwapInpaintPipeline(**components, **TINY_SETTINGS, crop_size=48)
    assert FaceSwapInpaintPipeline(**said.components).config["crop_size"] == 48


@pytest.mark.parametrize(
    ("name", "component", "message"),
    [
        ("vae", lambda: tiny_vae(latent_channels=8), "takes 9 channels, but .* make 17"),
        ("unet", lambda: tiny_unet(latent_channels=8), "takes 17 channels, but .* make 9"),
        ("conditioner", lambda: tiny_conditioner(cross_attention_dim=24), "tokens 24 wide, but the UNet takes 16"),
        ("conditioner", lambda: tiny_conditioner(clip_embed_dim=8), "8 wide, but the image encoder's are 12"),
    ],
)  # fmt: skip
def test_components_that_do_not_fit_are_refused_in_one_line(name, component, message):
    with pytest.raises(ValueError, match=message) as error:
        FaceSwapInpaintPipeline(**{**tiny_components(), name: component()}, **TINY_SETTINGS)
    assert "\n" not in str(error.value)


def test_a_unet_that_predicts_other_channels_is_refused():
    components = tiny_components()
    components["unet"].register_to_config(out_channels=8)
    with pytest.raises(ValueError, match="the UNet makes 8 channels, but the autoencoder's latents have 4"):
        FaceSwapInpaintPipeline(**components, **TINY_SETTINGS)


def test_old_checkpoints_without_settings_mean_what_they_meant(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    for name in FORMER_DEFAULTS:
        del index[name]
    index |= {"crop_size": CROP_SIZE, "hidden_regions": "head", "landmark_set": "dlib68"}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    pipe = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
    assert pipe.settings == {**FORMER_DEFAULTS, "crop_size": CROP_SIZE, "identity_size": None}
    assert "hidden_regions" not in pipe.config
    settings: dict[str, Any] = {"num_inference_steps": 2}
    assert torch.equal(pipe(**tiny_inputs(), **settings).images, tiny_pipeline()(**tiny_inputs(), **settings).images)


def test_old_checkpoints_whose_crops_grew_and_whose_unet_does_not_say_so_still_load(tmp_path):
    pipe = tiny_pipeline(crop_size=64)
    pipe.save_pretrained(tmp_path)
    config = tmp_path / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "sample_size": 16}))
    loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
    assert (loaded.config["crop_size"], loaded.unet.config["sample_size"]) == (64, 32)
    inputs = {**tiny_inputs(), "landmarks": None}
    expected = pipe(**inputs).images
    assert torch.equal(loaded(**{**inputs, "generator": torch.Generator().manual_seed(0)}).images, expected)
    with pytest.raises(ValueError, match="crop_size is 512, but UNet and autoencoder are made for crops of 64"):
        FaceSwapInpaintPipeline.from_pretrained(tmp_path, crop_size=512)


def test_without_a_name_it_is_the_package_s_checkpoint_in_one_precision(tmp_path):
    pipe = FaceSwapInpaintPipeline.from_pretrained()
    assert pipe.config["crop_size"] == 256
    assert pipe.name_or_path == str(EMBEDDED_CHECKPOINT)
    networks = [part for part in pipe.components.values() if isinstance(part, torch.nn.Module)]
    assert [part.dtype for part in networks] == [torch.float32] * 5
    half = FaceSwapInpaintPipeline.from_pretrained(dtype=torch.float16)
    half.save_pretrained(tmp_path)
    for name in ("vae", "unet", "image_encoder", "conditioner"):
        (saved,) = (tmp_path / name).glob("*.safetensors")
        (shipped,) = (EMBEDDED_CHECKPOINT / name).glob("*.safetensors")
        assert saved.stat().st_size == pytest.approx(shipped.stat().st_size, rel=0.01)  # half of what 32 bits take


def test_precisions_that_were_asked_for_are_kept(tmp_path):
    tiny_pipeline().to(torch.float16).save_pretrained(tmp_path)
    loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path, dtype={"unet": torch.bfloat16})
    assert loaded.unet.dtype == torch.bfloat16
    assert {loaded.vae.dtype, loaded.image_encoder.dtype, loaded.conditioner.dtype} == {torch.float32}


def test_parts_loaded_one_by_one_need_the_settings_as_well(tmp_path):
    pipe = tiny_pipeline(**OTHER_SETTINGS)
    pipe.save_pretrained(tmp_path)
    parts = {
        **pipe.components,
        "unet": UNet2DConditionModel.from_pretrained(tmp_path, subfolder="unet"),
        "conditioner": FaceConditioner.from_pretrained(tmp_path / "conditioner"),
    }
    with pytest.raises(ValueError, match="not given"):
        FaceSwapInpaintPipeline(**parts)(**tiny_inputs())
