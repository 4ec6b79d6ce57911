import pytest
import torch
import torch.nn.functional as F

from faceswap_diffusion.conditioning.conditioner import FaceConditioner, SingleTokenAttention

CONCAT = {
    "identity_network": "sface", "clip_embed_dim": 6, "cross_attention_dim": 8, "num_landmarks": 5, "mapper_layers": 0,
    "identity_tokens": 3, "clip_tokens": 1, "landmark_tokens": 2, "combine": "concat", "hidden_dim": 10,
}  # fmt: skip


@pytest.fixture
def conditions() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "identity_embeds": F.normalize(torch.randn(2, 128, generator=generator)),
        "source_clip_embeds": torch.randn(2, 6, generator=generator),
        "target_clip_embeds": torch.randn(2, 6, generator=generator),
        "landmarks": torch.randn(2, 5, 2, generator=generator),
    }


def conditioner(**changes) -> FaceConditioner:
    torch.manual_seed(0)
    return FaceConditioner(**{**CONCAT, **changes}).eval()


def test_sum_is_the_weighted_mean_of_four_projections(conditions):
    single = {"identity_tokens": 1, "landmark_tokens": 1, "combine": "sum", "hidden_dim": None}
    model = conditioner(**single, identity_weight=10.0, clip_weight=1.0, landmark_weight=0.05)
    wanted = (
        10.0 * model.identity_projection(conditions["identity_embeds"])
        + model.source_projection(conditions["source_clip_embeds"])
        + model.target_projection(conditions["target_clip_embeds"])
        + 0.05 * model.landmark_projection(conditions["landmarks"].flatten(1))
    ) / 11.05
    torch.testing.assert_close(model(**conditions), wanted[:, None])


def test_concat_keeps_a_token_group_for_each_condition(conditions):
    model = conditioner()
    context = model(**conditions)
    assert context.shape == (2, 7, 8)
    assert model.num_tokens == 7
    groups = {
        "identity_embeds": slice(0, 3),
        "source_clip_embeds": 3,
        "target_clip_embeds": 4,
        "landmarks": slice(5, 7),
    }
    for name, group in groups.items():
        changed = model(**{**conditions, name: conditions[name] + 1}) != context
        assert changed[:, group].any(), name
        changed[:, group] = False
        assert not changed.any(), name


def test_landmarks_are_standardized_and_zeros_mean_none(conditions):
    model = conditioner()
    model.landmark_mean.fill_(2.0)
    model.landmark_std.fill_(0.5)
    at_mean = model(**{**conditions, "landmarks": torch.full((2, 5, 2), 2.0)})
    torch.testing.assert_close(model(**{**conditions, "landmarks": torch.zeros(2, 5, 2)}), at_mean)
    above = model.landmark_projection(torch.full((2, 10), 2.0)).view(2, 2, 8) * model.config["landmark_weight"]
    torch.testing.assert_close(model(**{**conditions, "landmarks": torch.full((2, 5, 2), 3.0)})[:, 5:], above)


def test_single_token_attention_is_attention():
    attention = SingleTokenAttention(6)
    hidden = torch.randn(4, 6)
    query, key, value = attention.c_qkv(hidden)[:, None].chunk(3, dim=-1)  # one head, one token
    wanted = attention.c_proj(F.scaled_dot_product_attention(query, key, value)[:, 0])
    torch.testing.assert_close(attention(hidden), wanted)


def test_unconditional_context_is_a_trained_parameter(conditions):
    model = conditioner()
    assert model.unconditional(3).shape == model(**conditions)[:1].expand(3, -1, -1).shape
    model.unconditional(3).sum().backward()
    assert (model.unconditional.embeds.grad == 3).all()


def test_save_and_load_is_bit_equal_and_brings_the_recognizer_along(conditions, tmp_path):
    model = conditioner()
    model.save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "diffusion_pytorch_model.safetensors"}
    loaded = FaceConditioner.from_pretrained(tmp_path)
    assert torch.equal(loaded(**conditions), model(**conditions))
    pixels = torch.rand(1, 3, 64, 64) * 2 - 1
    assert torch.equal(loaded.encode_identity(pixels), model.encode_identity(pixels))


def test_recognizer_survives_half_precision():
    model = conditioner()
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wanted = model.encode_identity(pixels)
    got = model.to(torch.bfloat16).encode_identity(pixels.bfloat16()).float()
    assert F.cosine_similarity(wanted, got).min() > 0.99


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"identity_network": "facenet"}, "identity_network is 'facenet': choose one of"),
        ({"combine": "mean"}, "combine is 'mean'"),
        ({"combine": "sum"}, "adds single tokens"),
    ],
)
def test_wrong_configuration_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        conditioner(**wrong)
