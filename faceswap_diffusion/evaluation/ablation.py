"""Removes the conditions one by one, to measure what each of them contributes.

A condition is removed by replacing it with its mean over the pairs of the set. The mean is an ordinary value without
information about the pair, while zeros would be a value that the network may never have seen.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline, as_batch

CONDITIONS = ("identity_embeds", "source_clip_embeds", "target_clip_embeds", "landmarks")


@contextmanager
def recorded_conditions(conditioner: torch.nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Collects the inputs of the conditioner, row by row, while the context is open."""
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in CONDITIONS}

    def record(conditions: dict[str, Any]) -> None:
        for name in CONDITIONS:
            rows[name].extend(conditions[name].detach())

    with _intercepted(conditioner, record):
        yield rows


@contextmanager
def removed_condition(pipeline: FaceSwapInpaintPipeline, name: str, mean: torch.Tensor) -> Iterator[None]:
    """Replaces one condition of a pipeline by `mean` (without batch dimension), while the context is open.

    Landmarks are also replaced where the pipeline draws them.
    """

    def replace(conditions: dict[str, Any]) -> None:
        conditions[name] = mean.expand_as(conditions[name])

    with ExitStack() as stack:
        stack.enter_context(_intercepted(pipeline.conditioner, replace))
        if name == "landmarks":
            stack.enter_context(_drawn_in_place(pipeline, mean))
        yield


@contextmanager
def _drawn_in_place(pipeline: FaceSwapInpaintPipeline, mean: torch.Tensor) -> Iterator[None]:
    """Makes the pipeline draw `mean` (68, 2), in the conditioner's units, instead of the given landmarks."""
    config, draw = pipeline.config, pipeline.draw

    def draw_mean(landmarks: Any, height: int, width: int) -> torch.Tensor | None:
        in_pixels = mean.float() * mean.new_tensor([width, height]) / (config["landmark_scale"] * config["crop_size"])
        return draw(in_pixels.expand(len(as_batch(landmarks)), -1, -1), height, width)

    pipeline.draw = draw_mean
    try:
        yield
    finally:
        del pipeline.draw  # uncovers the method of the class


def mean_condition(name: str, rows: list[torch.Tensor]) -> torch.Tensor:
    """Mean of a condition's rows. Identities are normalised again, as the conditioner expects."""
    mean = torch.stack(rows).mean(dim=0)
    return torch.nn.functional.normalize(mean, dim=0) if name == "identity_embeds" else mean


@contextmanager
def _intercepted(conditioner: torch.nn.Module, change: Callable[[dict[str, Any]], None]) -> Iterator[None]:
    """Calls `change` with the conditioner's named arguments before each forward pass; it may modify them."""
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
