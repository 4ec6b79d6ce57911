"""`FaceConditioner` against golden tensors of the original REFace implementation."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.pipeline_inputs import preprocess_encoder_image
from tests.parity.synthetic_weights import synthetic_tensor

HERE = Path(__file__).parent
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CONDITIONER_KEYS = {
    "face_ID_model.facenet.": "identity_encoder.",
    "cond_stage_model.mapper2.resblocks.": "mapper.",
    "cond_stage_model.final_ln2.": "mapper_norm.",
    "ID_proj_out.": "identity_projection.",
    "proj_out_source.": "source_projection.",
    "proj_out_target.": "target_projection.",
    "landmark_proj_out.": "landmark_projection.",
    "learnable_vector": "unconditional.embeds",
}
ENCODER_KEYS = {
    "cond_stage_model.model.vision_model.": "vision_model.",
    "cond_stage_model.model.visual_projection.": "visual_projection.",
}


def weights(prefixes: dict[str, str]) -> dict[str, torch.Tensor]:
    shapes = json.loads((HERE / "keys.json").read_text())
    return {
        key.replace(old, new, 1): synthetic_tensor(key, shape)
        for key, (_, shape) in shapes.items()
        for old, new in prefixes.items()
        if key.startswith(old) and not key.endswith("position_ids")
    }


def relative_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    return ((got - wanted).norm() / wanted.norm()).item()


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(HERE / "golden.safetensors")


@pytest.fixture(scope="module")
def conditioner() -> FaceConditioner:
    model = FaceConditioner(clip_embed_dim=64, cross_attention_dim=64)
    missing, unexpected = model.load_state_dict(weights(CONDITIONER_KEYS), strict=False)
    assert missing == ["landmark_mean", "landmark_std"]  # raw pixels: mean 0, deviation 1, as they are
    assert not unexpected
    return model.eval()


@pytest.fixture(scope="module")
def image_encoder() -> CLIPVisionModelWithProjection:
    model = CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, image_size=224,
            patch_size=32, projection_dim=64,
        )
    )  # fmt: skip
    model.load_state_dict(weights(ENCODER_KEYS))
    return model.eval()


@torch.no_grad()
def test_identity_embedding(conditioner, golden):
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    pixels = (golden["source_clip_pixels"] * std + mean) * 2 - 1
    assert relative_error(conditioner.encode_identity(pixels), golden["identity_embedding"]) <= 1e-5


@torch.no_grad()
def test_clip_token_and_whole_context(conditioner, image_encoder, golden):
    source = image_encoder(golden["source_clip_pixels"]).image_embeds
    target = image_encoder(preprocess_encoder_image(golden["target_pixels"], 224, CLIP_MEAN, CLIP_STD)).image_embeds
    assert relative_error(conditioner.map_clip(source)[:, None], golden["clip_token_source"]) <= 1e-5
    context = conditioner(golden["identity_embedding"], source, target, golden["landmarks"])
    assert relative_error(context, golden["conditioning"]) <= 1e-5
    assert torch.equal(conditioner.unconditional(2), golden["unconditional"])
