"""Conditions are taken from, and taken away from, the real conditioner."""

import pytest
import torch

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conditioning.landmark_drawing import draw_landmarks
from faceswap_diffusion.evaluation.ablation import CONDITIONS, mean_condition, recorded_conditions, removed_condition
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from tests.tiny import CLIP_DIM, CROP_SIZE, CROSS_ATTENTION_DIM, TINY_SETTINGS, tiny_components, tiny_landmarks


@pytest.fixture(scope="module")
def conditioner() -> FaceConditioner:
    torch.manual_seed(0)
    return FaceConditioner(
        "sface", clip_embed_dim=CLIP_DIM, cross_attention_dim=CROSS_ATTENTION_DIM, mapper_layers=0
    ).eval()


def conditions(seed: int, batch_size: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "identity_embeds": (128,),
        "source_clip_embeds": (CLIP_DIM,),
        "target_clip_embeds": (CLIP_DIM,),
        "landmarks": (68, 2),
    }
    return {name: torch.randn(batch_size, *shape, generator=generator) for name, shape in shapes.items()}


def tiny_pipeline_of(conditioner: FaceConditioner, crop_size: int = CROP_SIZE, **config) -> FaceSwapInpaintPipeline:
    components = {**tiny_components(crop_size=crop_size), "conditioner": conditioner}
    return FaceSwapInpaintPipeline(**components, **{**TINY_SETTINGS, **config})


def test_recorded_rows_are_what_was_handed_in_by_name_or_by_position(conditioner: FaceConditioner):
    first, second = conditions(1), conditions(2)
    with recorded_conditions(conditioner) as rows:
        conditioner(**first)
        conditioner(*(second[name] for name in CONDITIONS))
    conditioner(**conditions(3))
    for name in CONDITIONS:
        assert torch.equal(torch.stack(rows[name]), torch.cat([first[name], second[name]]))


def test_recording_changes_nothing(conditioner: FaceConditioner):
    inputs = conditions(1)
    plain = conditioner(**inputs)
    with recorded_conditions(conditioner):
        assert torch.equal(conditioner(**inputs), plain)


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_removed_condition_is_the_mean_for_everybody_and_comes_back(conditioner: FaceConditioner, name: str):
    inputs, mean = conditions(1), conditions(2, batch_size=1)[name][0]
    expected = conditioner(**{**inputs, name: mean.expand_as(inputs[name])})
    plain = conditioner(**inputs)
    assert not torch.allclose(expected, plain)
    with removed_condition(tiny_pipeline_of(conditioner), name, mean):
        assert torch.equal(conditioner(**inputs), expected)
    assert torch.equal(conditioner(**inputs), plain)


def test_removed_landmarks_are_gone_from_the_drawing_as_well(conditioner: FaceConditioner):
    pipeline = tiny_pipeline_of(conditioner, crop_size=64, landmark_scale=0.5, hidden_fill="landmarks")
    given, mean = tiny_landmarks(2, size=128), tiny_landmarks(1, size=64)[0]
    plain = pipeline.draw(given, 128, 128)
    with removed_condition(pipeline, "landmarks", mean * 0.5):  # in the conditioner's units
        drawn = pipeline.draw(given, 128, 128)
    assert torch.equal(drawn, draw_landmarks((mean * 2).expand(2, -1, -1), 128, 128))  # twice the config's crop
    assert torch.equal(pipeline.draw(given, 128, 128), plain)
    with removed_condition(pipeline, "identity_embeds", torch.zeros(128)):
        assert torch.equal(pipeline.draw(given, 128, 128), plain)


def test_the_mean_identity_is_of_unit_length_and_other_means_are_plain():
    rows = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])]
    torch.testing.assert_close(mean_condition("identity_embeds", rows), torch.tensor([0.5**0.5, 0.5**0.5]))
    torch.testing.assert_close(mean_condition("landmarks", rows), torch.tensor([0.5, 0.5]))
