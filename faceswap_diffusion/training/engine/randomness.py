"""Randomness of a run: every draw depends on the run's seed and its purpose, never on earlier draws.

So a sample is the same in whichever process, batch or restarted run it is drawn, and no random state has to be saved.
"""

from functools import lru_cache

import numpy as np
import torch

STREAMS = ("order", "sample", "noise", "step", "window")
"""What is drawn: an epoch's order, a sample's augmentations, its noise, what all samples of a step share, and which
window of a sample is seen."""


def generator_for(seed: int, stream: str, index: int) -> torch.Generator:
    """A CPU generator for one thing to draw.

    Args:
        seed (`int`): The run's.
        stream (`str`): One of `STREAMS`.
        index (`int`): Of the epoch, the sample or the step, from 0.
    """
    (state,) = np.random.SeedSequence([seed, STREAMS.index(stream), index]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def draw_uniform(generator: torch.Generator) -> float:
    """A number in [0, 1)."""
    return torch.rand((), generator=generator).item()


def choose(count: int, generator: torch.Generator) -> int:
    """An index below `count`."""
    return int(torch.randint(count, (), generator=generator))


def row_of_sample(seed: int, index: int, count: int) -> int:
    """Which of `count` rows a sample takes: each row comes once an epoch, in a new order.

    Args:
        seed (`int`): The run's.
        index (`int`): The sample's number in the run.
        count (`int`): Number of rows.
    """
    epoch, position = divmod(index, count)
    return int(_order(seed, epoch, count)[position])


@lru_cache(maxsize=4)
def _order(seed: int, epoch: int, count: int) -> torch.Tensor:
    return torch.randperm(count, generator=generator_for(seed, "order", epoch))
