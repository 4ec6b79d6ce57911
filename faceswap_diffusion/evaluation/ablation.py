"""Takes the conditions away one by one: what does each of them contribute?

A condition is removed by handing the conditioner the mean of it over the set's pairs in place of the pair's own value:
an ordinary value, which says nothing of the pair. (Zeros would be values that the network may never have seen.)
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
    """Collects what the conditioner is handed, row by row, for as long as the context lasts."""
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in CONDITIONS}

    def record(conditions: dict[str, Any]) -> None:
        for name in CONDITIONS:
            rows[name].extend(conditions[name].detach())

    with _intercepted(conditioner, record):
        yield rows


@contextmanager
def removed_condition(pipeline: FaceSwapInpaintPipeline, name: str, mean: torch.Tensor) -> Iterator[None]:
    """Hands a pipeline's conditioner `mean` (without a batch dimension) for one condition, while the context lasts.

    Landmarks are exchanged where the pipeline draws them as well.
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
    """Has the pipeline draw `mean` (68, 2), in the conditioner's units, in place of the landmarks it is given."""
    config, draw = pipeline.config, pipeline.draw

    def draw_mean(landmarks: Any, height: int, width: int) -> torch.Tensor | None:
        in_pixels = mean.float() * mean.new_tensor([width, height]) / (config["landmark_scale"] * config["crop_size"])
        return draw(in_pixels.expand(len(as_batch(landmarks)), -1, -1), height, width)

    pipeline.draw = draw_mean
    try:
        yield
    finally:
        del pipeline.draw  # the method of the class shows again


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
