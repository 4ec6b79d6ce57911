"""Weights in files of a variant, as `save_pretrained(folder, variant="fp16")` writes them: they load everywhere."""

from pathlib import Path

import pytest
import torch

from faceswap_diffusion import FaceSwapInpaintPipeline, FaceSwapper
from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.pipelines.loading import PARSER_FOLDER, load_parser, load_pipeline
from faceswap_diffusion.training.engine.checkpoints import load_whole_pipeline
from faceswap_diffusion.weights.folders import choose_variant, needed_files, variant_of
from tests.tiny import tiny_pipeline

LOADERS = {
    "pipeline": FaceSwapInpaintPipeline.from_pretrained,
    "swapper": lambda folder, **variant: FaceSwapper.from_pretrained(folder, device="cpu", **variant).pipeline,
    "evaluation": lambda folder, **variant: load_pipeline(folder, **variant),
    "training": lambda folder, **variant: load_whole_pipeline(str(folder), **variant),
}


@pytest.fixture(scope="module")
def halves(tmp_path_factory) -> Path:
    """A checkpoint that has nothing but float16 weights."""
    folder = tmp_path_factory.mktemp("variants") / "halves"
    tiny_pipeline(seed=1).to(torch.float16).save_pretrained(folder, variant="fp16")
    return folder


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A checkpoint whose plain weights are others than those of the variant."""
    folder = tmp_path_factory.mktemp("variants") / "both"
    tiny_pipeline(seed=2).save_pretrained(folder)
    tiny_pipeline(seed=1).to(torch.float16).save_pretrained(folder, variant="fp16")
    return folder


def is_from(pipeline, seed: int, dtype: torch.dtype) -> bool:
    """Whether all weights are those that a seed draws, rounded to a precision."""
    drawn = tiny_pipeline(seed).to(dtype)
    return all(
        torch.equal(value.float(), getattr(drawn, part).state_dict()[key].float())
        for part in ("vae", "unet", "image_encoder", "conditioner")
        for key, value in getattr(pipeline, part).state_dict().items()
    )


@pytest.mark.parametrize("loader", LOADERS)
def test_the_only_variant_loads_by_itself_and_by_its_name(halves, loader):
    for arguments in ({}, {"variant": "fp16"}):
        pipeline = LOADERS[loader](halves, **arguments)
        assert pipeline.unet.dtype == torch.float32
        assert is_from(pipeline, 1, torch.float16)


@pytest.mark.parametrize("loader", LOADERS)
def test_plain_weights_come_first_and_the_variant_if_it_is_asked_for(both, loader):
    assert is_from(LOADERS[loader](both), 2, torch.float32)
    assert is_from(LOADERS[loader](both, variant="fp16"), 1, torch.float16)
    with pytest.raises(ValueError, match="the `variant=bf16`, but there are fp16") as error:
        LOADERS[loader](both, variant="bf16")
    assert "\n" not in str(error.value)


def test_sharded_variants_load(tmp_path):
    tiny_pipeline(seed=1).to(torch.float16).save_pretrained(tmp_path, variant="fp16", max_shard_size="40KB")
    assert len(list((tmp_path / "unet").glob("*.safetensors"))) > 1
    assert is_from(load_pipeline(tmp_path), 1, torch.float16)


def test_a_parser_of_a_variant_loads(tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    parser = BiSeNet()
    parser.save_pretrained(tmp_path / PARSER_FOLDER, variant="fp16")
    loaded = load_parser(tmp_path)
    assert isinstance(loaded, BiSeNet)
    assert torch.equal(loaded.cp.arm16.conv.conv.weight, parser.cp.arm16.conv.conv.weight)


@pytest.mark.parametrize(
    ("name", "variant"),
    [
        ("diffusion_pytorch_model.safetensors", None),
        ("diffusion_pytorch_model-00001-of-00002.safetensors", None),
        ("diffusion_pytorch_model.fp16.safetensors", "fp16"),
        ("diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "fp16"),
        ("diffusion_pytorch_model-00001-of-00002.fp16.safetensors", "fp16"),  # as older releases wrote it
        ("model.no_ema.safetensors", "no_ema"),
    ],
)
def test_names_tell_variants(name, variant):
    assert variant_of(Path("unet", name)) == variant


def test_which_variant_is_chosen():
    assert choose_variant({"unet": {None, "fp16"}, "vae": {None}}, None) is None
    assert choose_variant({"unet": {None, "fp16"}, "vae": {None}}, "fp16") == "fp16"
    assert choose_variant({"unet": {"fp16"}, "vae": {None}}, None) == "fp16"
    assert choose_variant({"unet": {"fp16", "bf16"}, "vae": {"bf16"}}, None) == "bf16"
    with pytest.raises(ValueError, match="the weights are of the variants bf16, fp16: choose one by variant"):
        choose_variant({"unet": {"fp16", "bf16"}}, None)
    with pytest.raises(ValueError, match="the `variant=fp16`, but there are only plain ones"):
        choose_variant({"unet": {None}}, "fp16")


class TestNeededFiles:
    """What is fetched of a Hub repository."""

    FILES = (
        "README.md", "model_index.json", "unet/config.json", "unet/w.safetensors", "unet/w.fp16.safetensors",
        "unet/w.safetensors.index.fp16.json", "vae/w.safetensors", "vae/w.bf16.safetensors", "vae/w.bin",
        "few_steps/lora.safetensors", "all_in_one.safetensors",
    )  # fmt: skip

    def weights(self, *arguments) -> set[str]:
        return {name for name in needed_files(*arguments) if name.endswith(".safetensors")}

    def test_plain_ones_alone(self):
        wanted = {"unet/w.safetensors", "vae/w.safetensors", "few_steps/lora.safetensors"}
        assert self.weights(self.FILES) == wanted
        assert {*needed_files(self.FILES)} - wanted == {
            "README.md", "model_index.json", "unet/config.json", "unet/w.safetensors.index.fp16.json"
        }  # fmt: skip

    def test_those_of_the_variant_and_plain_ones_where_there_is_none(self):
        wanted = {"unet/w.fp16.safetensors", "vae/w.safetensors", "few_steps/lora.safetensors"}
        assert self.weights(self.FILES, "fp16") == wanted

    def test_the_only_variant(self):
        files = [name for name in self.FILES if name != "unet/w.safetensors"]
        assert "unet/w.fp16.safetensors" in self.weights(files)

    def test_those_of_a_subfolder(self):
        files = [f"small/{name}" for name in self.FILES] + ["large/unet/w.safetensors", "large/model_index.json"]
        assert self.weights(files, "fp16", "small") == {
            f"small/{name}" for name in self.weights(self.FILES, "fp16")
        }  # fmt: skip
