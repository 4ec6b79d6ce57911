"""Cross-attention to a context of one token, such as REFace's, without query, key and softmax.

A softmax over one key is 1, so every position gets the same vector, which depends on the context alone.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import nn

from faceswap_diffusion.pipelines.call_memory import CallMemory


class SingleTokenAttnProcessor(AttnProcessor2_0):
    """Diffusers' default attention, with a shortcut where the context is one token.

    The shortcut gives what attention gives, up to rounding. It is left out where a gradient is recorded: attention
    gives queries and keys one of 0, without which optimisers would treat these weights differently.

    Attributes:
        memory (`CallMemory`, *optional*): Where vectors are kept; see `remembered_vectors`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.memory: CallMemory | None = None

    def __call__(
        self,
        attn: Attention,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """Attends; see diffusers' `Attention.forward` for the arguments."""
        context, to_value, to_out = encoder_hidden_states, attn.to_v, attn.to_out
        is_plain = attention_mask is not None or hidden_states.ndim != 3 or torch.is_grad_enabled()
        if context is None or to_value is None or to_out is None or context.shape[1] != 1 or is_plain:
            return super().__call__(attn, hidden_states, context, attention_mask, *args, **kwargs)
        compute = partial(vector, attn, context)
        attended = compute() if self.memory is None else self.memory.recall(attn, (context,), compute)  # (B, 1, C)
        if attn.residual_connection:
            return (attended + hidden_states) / attn.rescale_output_factor
        return (attended / attn.rescale_output_factor).expand_as(hidden_states)


def vector(attn: Attention, context: torch.Tensor) -> torch.Tensor:
    """What attention gives every position `(B, 1, C)` for a context of one token `(B, 1, D)`."""
    if attn.norm_cross:
        context = attn.norm_encoder_hidden_states(context)
    to_value: Any = attn.to_v
    to_out: Any = attn.to_out
    return to_out[0](to_value(context))


def shorten_single_token_attention(network: nn.Module) -> None:
    """Gives the cross-attentions of a network the shortcut, as far as they have diffusers' default processor."""
    for part in network.modules():
        if isinstance(part, Attention) and part.is_cross_attention and type(part.processor) is AttnProcessor2_0:
            processor: Any = SingleTokenAttnProcessor()  # diffusers declares one of its processors only
            part.set_processor(processor)


@contextmanager
def remembered_vectors(network: nn.Module, memory: CallMemory) -> Iterator[None]:
    """Computes each cross-attention to one token once for a context, in the body of the `with` statement.

    Args:
        network (`nn.Module`): One that is neither compiled nor hooked.
        memory (`CallMemory`): That of the call.
    """
    parts = [part.processor for part in network.modules() if isinstance(part, Attention)]
    processors = [part for part in parts if isinstance(part, SingleTokenAttnProcessor)]
    for processor in processors:
        processor.memory = memory
    try:
        yield
    finally:
        for processor in processors:
            processor.memory = None
