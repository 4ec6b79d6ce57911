"""What a UNet computes alike in every step of a call: computed in the first step, remembered until the call ends.

The vectors of cross-attention to one token depend on the context alone. The embeddings of the timesteps depend on the
timesteps alone, which are known before the first step.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel


class CallMemory:
    """Tensors of one call, by what they are computed of.

    Attributes:
        step (`int`): Number of the current step, from 0.
    """

    def __init__(self) -> None:
        self.step = 0
        self._kept: dict[tuple[int, ...], tuple[Any, ...]] = {}

    def forget(self) -> None:
        """Drops all, so that the next step computes its own."""
        self._kept.clear()

    def recall(
        self, owner: object, inputs: Sequence[torch.Tensor], compute: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """The result of `compute`, which is called once for each owner and inputs.

        Args:
            owner (`object`): Whose result it is.
            inputs (`Sequence[torch.Tensor]`): What it depends on; told apart by identity.
            compute (`Callable`): Computes it.
        """
        key = (id(owner), *map(id, inputs))
        if key not in self._kept:
            self._kept[key] = (owner, inputs, compute())  # holding the inputs, so that no other gets their identity
        return self._kept[key][-1]


@contextmanager
def remembered_time_embeddings(
    unet: UNet2DConditionModel, timesteps: torch.Tensor, memory: CallMemory
) -> Iterator[None]:
    """Makes a UNet embed all timesteps at once, and take the row of `memory.step` in each step.

    They are embedded within its first pass, in which LoRA layers have the scale of the call.

    Args:
        unet (`UNet2DConditionModel`): One that is neither compiled nor hooked.
        timesteps (`torch.Tensor` of shape `(S,)`): Those of the steps, on the UNet's device.
        memory (`CallMemory`): That of the call.
    """
    embedding = unet.time_embedding
    forward = embedding.forward

    def row_of_step(sample: torch.Tensor, condition: torch.Tensor | None = None) -> torch.Tensor:
        if condition is not None:
            return forward(sample, condition)
        rows = memory.recall(embedding, (), lambda: forward(unet.time_proj(timesteps).to(sample.dtype)))
        return rows[memory.step].expand(len(sample), -1)

    embedding.forward = row_of_step
    try:
        yield
    finally:
        del embedding.forward
