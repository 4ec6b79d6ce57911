"""The names of weights in CompVis' layout, held to Diffusers' own conversion and to the published list of keys."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

from faceswap_diffusion.conversion.reface import LEFT_OUT, PUBLISHED, build_empty_pipeline, reface_keys, reface_shapes
from faceswap_diffusion.conversion.weights import reason_for
from tests.parity.reduced import REDUCED

PARITY = Path(__file__).parents[1] / "parity"


class KeyAsWeight(str):
    """A key that goes through Diffusers' conversion in place of its weight."""

    shape = ()


@pytest.fixture(
    scope="module", params=[("keys_full_size.json", PUBLISHED), ("keys.json", REDUCED)], ids=["full", "reduced"]
)
def listed(request) -> tuple[dict[str, tuple[int, ...]], Any]:
    name, architecture = request.param
    shapes = {key: tuple(shape) for key, (_, shape) in json.loads((PARITY / name).read_text()).items()}
    return shapes, build_empty_pipeline(architecture)


@pytest.mark.parametrize(
    ("part", "prefix", "convert"),
    [
        ("unet", "model.diffusion_model.", convert_ldm_unet_checkpoint),
        ("vae", "first_stage_model.", convert_ldm_vae_checkpoint),
    ],
)
def test_the_map_is_diffusers_own(listed, part: str, prefix: str, convert):
    shapes, pipeline = listed
    keys = {key: KeyAsWeight(key) for key in shapes if key.startswith(prefix)}
    wanted = {name: str(key) for name, key in convert(keys, getattr(pipeline, part).config).items()}
    assert reface_keys(pipeline)[part] == wanted


def test_every_listed_key_is_used_once_or_left_out_for_a_reason(listed):
    shapes, pipeline = listed
    used = reface_shapes(pipeline)
    assert {key: shapes[key] for key in used} == used
    names = [key for keys in reface_keys(pipeline).values() for key in keys.values()]
    assert len(names) == len(set(names)) == len(used) == (1794 if pipeline.config["crop_size"] == 512 else 1442)
    assert [key for key in shapes if (key in used) == (reason_for(key, LEFT_OUT) is not None)] == []


def test_every_weight_of_the_networks_has_its_key(listed):
    _, pipeline = listed
    for part, keys in reface_keys(pipeline).items():
        lacking = set(getattr(pipeline, part).state_dict()) - set(keys)
        assert lacking == ({"landmark_mean", "landmark_std"} if part == "conditioner" else set())


def test_shapes_differ_in_the_autoencoders_attention_alone():
    pipeline = build_empty_pipeline(REDUCED)
    shapes = reface_shapes(pipeline)
    key = "first_stage_model.decoder.mid.attn_1.q.weight"
    assert shapes[key] == (128, 128, 1, 1)
    assert pipeline.vae.state_dict()["decoder.mid_block.attentions.0.to_q.weight"].shape == torch.Size([128, 128])
    assert shapes["first_stage_model.decoder.mid.attn_1.q.bias"] == (128,)
