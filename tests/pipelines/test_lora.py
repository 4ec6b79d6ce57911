"""LoRA layers for the UNet, through peft."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import fuse_lora
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_inputs, tiny_pipeline


@pytest.fixture
def lora_folder(tmp_path):
    """A LoRA with random layers, saved as diffusers saves them."""
    unet = tiny_pipeline().unet
    torch.manual_seed(0)
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    layers: Any = get_peft_model_state_dict(unet)
    FaceSwapInpaintPipeline.save_lora_weights(tmp_path, unet_lora_layers=layers)
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_lora_weights.safetensors"]
    return tmp_path


def run(pipe, **arguments):
    return pipe(**tiny_inputs(), **arguments).images


def test_loading_changes_the_result_and_unloading_restores_it(lora_folder):
    pipe = tiny_pipeline()
    plain = run(pipe)
    pipe.load_lora_weights(lora_folder)
    assert pipe.get_active_adapters() == ["default_0"]
    assert (run(pipe) - plain).abs().max() > 1e-3
    assert torch.allclose(run(pipe, cross_attention_kwargs={"scale": 0.0}), plain, atol=1e-5)
    pipe.unload_lora_weights()
    assert torch.equal(run(pipe), plain)


def test_fused_layers_give_the_same_and_can_be_taken_out(lora_folder):
    pipe = tiny_pipeline()
    plain = run(pipe)
    pipe.load_lora_weights(lora_folder, adapter_name="look")
    with_lora = run(pipe)
    pipe.fuse_lora()
    assert pipe.fused_loras == {"look"}
    assert torch.allclose(run(pipe), with_lora, atol=1e-4)
    pipe.unfuse_lora()
    pipe.unload_lora_weights()
    assert torch.allclose(run(pipe), plain, atol=1e-4)


def test_layers_of_a_text_encoder_are_left_out_with_a_warning(lora_folder, caplog):
    state = FaceSwapInpaintPipeline.lora_state_dict(lora_folder)[0]
    pipe = tiny_pipeline()
    logger = logging.getLogger("diffusers")
    logger.propagate = True
    pipe.load_lora_weights({**state, "text_encoder.layers.0.q_proj.lora_A.weight": torch.zeros(2, 4)})
    logger.propagate = False
    assert pipe.get_active_adapters() == ["default_0"]
    assert "text encoder are left out" in caplog.text


def test_with_a_lora_loaded_nothing_is_saved_or_uploaded(lora_folder, tmp_path):
    pipe = tiny_pipeline()
    pipe.load_lora_weights(lora_folder)
    for save in (lambda: pipe.save_pretrained(tmp_path / "saved"), lambda: pipe.push_to_hub("owner/name")):
        with pytest.raises(
            ValueError, match=r"the unet holds a LoRA.*call unload_lora_weights first.*or fuse_lora"
        ) as error:
            save()
        assert "\n" not in str(error.value)
    assert not (tmp_path / "saved").exists()
    pipe.fuse_lora()
    with pytest.raises(ValueError, match="the unet holds a LoRA"):
        pipe.save_pretrained(tmp_path / "saved")


@pytest.mark.parametrize("is_fused", [False, True])
def test_as_advised_it_is_saved_without_or_with_the_lora(lora_folder, tmp_path, is_fused):
    pipe = tiny_pipeline()
    plain = run(pipe)
    pipe.load_lora_weights(lora_folder)
    with_lora = run(pipe)
    if is_fused:
        pipe.fuse_lora()
    pipe.unload_lora_weights()
    pipe.save_pretrained(tmp_path / "saved")
    loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path / "saved")
    assert torch.allclose(run(loaded), with_lora if is_fused else plain, atol=1e-4)
    assert (with_lora - plain).abs().max() > 1e-3


def test_a_folder_that_was_saved_with_one_is_refused_with_advice(lora_folder, tmp_path):
    pipe = tiny_pipeline()
    pipe.save_pretrained(tmp_path / "saved")
    pipe.load_lora_weights(lora_folder)
    pipe.unet.save_pretrained(tmp_path / "saved" / "unet")  # as Diffusers does it
    with pytest.raises(ValueError, match=r"do not fit UNet2DConditionModel: \d+ missing keys.*unload_lora_weights"):
        FaceSwapInpaintPipeline.from_pretrained(tmp_path / "saved")


def test_a_swapper_takes_a_lora_from_its_folder_or_file(lora_folder, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path / "tiny")
    pipe = tiny_pipeline()
    pipe.load_lora_weights(lora_folder)
    wanted = run(pipe)
    for lora in (lora_folder, lora_folder / "pytorch_lora_weights.safetensors"):
        swapper = FaceSwapper.from_pretrained(tmp_path / "tiny", device="cpu", occlusion="off", lora=lora)
        swapper.pipeline.set_progress_bar_config(disable=True)
        assert swapper.name == f"tiny+{lora.stem}"
        assert torch.allclose(run(swapper.pipeline), wanted, atol=1e-4)


def test_what_is_no_lora_of_the_checkpoint_is_refused(lora_folder, tmp_path):
    with pytest.raises(
        ValueError, match=r"got LoRA nowhere: give a \.safetensors file, or the folder of a pytorch_lora"
    ):
        fuse_lora(tiny_pipeline(), Path("nowhere"))
    (tmp_path / "pickled.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pickled\.bin: give a \.safetensors file"):
        fuse_lora(tiny_pipeline(), tmp_path / "pickled.bin")
    state = FaceSwapInpaintPipeline.lora_state_dict(lora_folder)[0]
    save_file({name: torch.cat([layer, layer], dim=1) for name, layer in state.items()}, tmp_path / "wide.safetensors")
    with pytest.raises(ValueError, match=r"wide\.safetensors does not fit this checkpoint \("):
        fuse_lora(tiny_pipeline(), tmp_path / "wide.safetensors")
    save_file({"text_encoder.q.lora_A.weight": torch.zeros(2, 4)}, tmp_path / "words.safetensors")
    with pytest.raises(ValueError, match=r"words\.safetensors"):
        fuse_lora(tiny_pipeline(), tmp_path / "words.safetensors")
