"""Cross-attention to one token: what it gives, when it is used, and what keeps it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.hooks import add_hook_to_module
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from peft import LoraConfig
from torch import nn

from faceswap_diffusion.conversion.reface import PUBLISHED
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.single_token import SingleTokenAttnProcessor, shorten_single_token_attention
from tests.pipelines.test_faceswap_inpaint import OwnTensorsAway
from tests.tiny import CROSS_ATTENTION_DIM, tiny_inputs, tiny_pipeline, tiny_unet

EXACT = 1e-6  # relative


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


def cross_attentions(network: nn.Module) -> list[Attention]:
    return [part for part in network.modules() if isinstance(part, Attention) and part.is_cross_attention]


def queries_of(network: nn.Module, call: Any) -> int:
    """How many queries of cross-attention are computed in a call."""
    asked = []
    layers = [attention.to_q for attention in cross_attentions(network)]
    handles = [layer.register_forward_hook(lambda *_: asked.append(1)) for layer in layers]
    call()
    for handle in handles:
        handle.remove()
    return len(asked)


def predict(unet: nn.Module, num_tokens: int = 1) -> torch.Tensor:
    return unet(draw(2, 9, 16, 16), 500, draw(2, num_tokens, CROSS_ATTENTION_DIM)).sample


@torch.no_grad()
def test_a_unet_predicts_the_same_without_computing_a_query():
    plain, short = tiny_unet(), tiny_unet()
    shorten_single_token_attention(short)
    assert relative_difference(predict(short), predict(plain)) < EXACT
    assert queries_of(plain, lambda: predict(plain)) == len(cross_attentions(plain)) > 0
    assert queries_of(short, lambda: predict(short)) == 0


@pytest.mark.parametrize(("level", "side"), [(0, 64), (1, 32), (2, 16), (3, 8)])
@torch.no_grad()
def test_at_full_size_every_width_gives_the_same(level: int, side: int):
    torch.manual_seed(0)
    width, heads = PUBLISHED.unet["block_out_channels"][level], PUBLISHED.unet["attention_head_dim"]
    context_width = PUBLISHED.unet["cross_attention_dim"]
    attention = Attention(width, context_width, heads=heads, dim_head=width // heads)
    pixels, context = draw(2, side * side, width), draw(2, 1, context_width)
    expected = attention(pixels, context)
    attention.set_processor(SingleTokenAttnProcessor())
    assert relative_difference(attention(pixels, context), expected) < EXACT


@torch.no_grad()
def test_residual_and_rescaling_are_kept():
    torch.manual_seed(0)
    attention = Attention(16, 12, heads=2, dim_head=8, residual_connection=True, rescale_output_factor=2.0)
    expected = attention(draw(2, 9, 16), draw(2, 1, 12))
    attention.set_processor(SingleTokenAttnProcessor())
    assert relative_difference(attention(draw(2, 9, 16), draw(2, 1, 12)), expected) < EXACT


@torch.no_grad()
def test_it_compiles_as_one_graph():
    torch.manual_seed(0)
    attention = Attention(16, 12, heads=2, dim_head=8, processor=SingleTokenAttnProcessor())
    expected = attention(draw(2, 9, 16), draw(2, 1, 12))
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    assert torch.equal(compiled(draw(2, 9, 16), draw(2, 1, 12)), expected)


@torch.no_grad()
def test_several_tokens_are_attended_to_as_ever():
    plain, short = tiny_unet(), tiny_unet()
    shorten_single_token_attention(short)
    assert torch.equal(predict(short, num_tokens=3), predict(plain, num_tokens=3))
    assert queries_of(short, lambda: predict(short, num_tokens=3)) == len(cross_attentions(short))


def test_training_gets_the_gradients_of_plain_attention():
    plain, short = tiny_unet(), tiny_unet()
    shorten_single_token_attention(short)
    for unet in (plain, short):
        predict(unet).square().mean().backward()
    for (name, expected), parameter in zip(plain.named_parameters(), short.parameters(), strict=True):
        assert parameter.grad is not None, name
        assert torch.equal(parameter.grad, expected.grad), name


class TestPipeline:
    def run(self, pipe: FaceSwapInpaintPipeline) -> torch.Tensor:
        return pipe(**tiny_inputs()).images

    def plain(self, pipe: FaceSwapInpaintPipeline) -> torch.Tensor:
        """What comes out with diffusers' own attention."""
        pipe.unet.set_attn_processor(AttnProcessor2_0())
        return self.run(pipe)

    def check(self, pipe: FaceSwapInpaintPipeline) -> None:
        """Whether cross-attention is short, and what comes out that of diffusers' attention."""
        images = []
        assert queries_of(pipe.unet, lambda: images.append(self.run(pipe))) == 0
        assert relative_difference(images[0], self.plain(pipe)) < 10 * EXACT  # of 2 steps and a decoder

    def test_it_is_used_by_itself(self):
        self.check(tiny_pipeline())

    def test_a_saved_checkpoint_has_it_again(self, tmp_path: Path):
        tiny_pipeline().save_pretrained(tmp_path)
        loaded = FaceSwapInpaintPipeline.from_pretrained(tmp_path)
        loaded.set_progress_bar_config(disable=True)
        self.check(loaded)

    def test_lora_layers_are_obeyed(self):
        pipe = tiny_pipeline()
        before = self.run(pipe)
        pipe.unet.add_adapter(
            LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"], init_lora_weights=False)
        )
        assert relative_difference(self.run(pipe), before) > 1e-3
        self.check(pipe)

    def test_offloaded_weights_are_fetched(self):
        expected, away = self.run(tiny_pipeline()), tiny_pipeline()
        for module in away.unet.modules():
            add_hook_to_module(module, OwnTensorsAway())
        assert torch.equal(self.run(away), expected)

    def test_a_processor_of_one_s_own_stays(self):
        class Own(AttnProcessor2_0):
            pass

        unet, components = tiny_unet(), tiny_pipeline().components
        unet.set_attn_processor(Own())
        FaceSwapInpaintPipeline(**{**components, "unet": unet}, **tiny_pipeline().settings)
        assert {type(part.processor) for part in cross_attentions(unet)} == {Own}
