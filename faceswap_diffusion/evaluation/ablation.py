"""Takes the conditions away one by one: what does each of them contribute?

A condition is removed by handing the conditioner the mean of it over the set's pairs in place of the pair's own value:
an ordinary value, which says nothing of the pair. (Zeros would be values that the network may never have seen.)
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

CONDITIONS = ("identity_embeds", "source_clip_embeds", "target_clip_embeds", "landmarks")


@contextmanager
def recorded_conditions(conditioner: torch.nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Collects what the conditioner is handed, row by row, for as long as the context lasts."""
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in CONDITIONS}

    def record(conditions: dict[str, Any]) -> None:
        for name in CONDITIONS:
            rows[name].extend(conditions[name].detach())

    with _intercepted(conditioner, record):
        yield rows


@contextmanager
def removed_condition(conditioner: torch.nn.Module, name: str, mean: torch.Tensor) -> Iterator[None]:
    """Hands the conditioner `mean` (without a batch dimension) for one condition, for as long as the context lasts."""

    def replace(conditions: dict[str, Any]) -> None:
        conditions[name] = mean.expand_as(conditions[name])

    with _intercepted(conditioner, replace):
        yield


def mean_condition(name: str, rows: list[torch.Tensor]) -> torch.Tensor:
    """Mean of a condition's rows; that of identities is of unit length again, as the conditioner expects."""
    mean = torch.stack(rows).mean(dim=0)
    return torch.nn.functional.normalize(mean, dim=0) if name == "identity_embeds" else mean


@contextmanager
def _intercepted(conditioner: torch.nn.Module, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Calls `change` with the conditioner's arguments by name before each forward pass; it may alter them."""
    signature = inspect.signature(conditioner.forward)

    def hook(_module: torch.nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        conditions = dict(signature.bind(*args, **kwargs).arguments)
        change(conditions)
        return (), conditions

    handle = conditioner.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
