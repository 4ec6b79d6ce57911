"""Fills networks with converted weights: checks keys and shapes, and reports what became of each key."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch

from faceswap_diffusion.conversion.torch_files import Checkpoint

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
REPORT_NAME = "conversion.json"
NAMES_IN_AN_ERROR = 8


@dataclass
class ConversionReport:
    """What became of every key of a checkpoint.

    Args:
        became (`dict[str, str]`): Maps keys of the checkpoint to component and key in the result.
        left_out (`dict[str, str]`): Maps keys that were left out to the reason.
        added (`dict[str, str]`): Maps keys that only the result has to the reason.
    """

    became: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    added: dict[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Writes the report to a folder."""
        (folder / REPORT_NAME).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def lines(self) -> list[str]:
        """A readable summary: the number of keys in each component, and left out or added for each reason."""
        components = [name.partition("/")[0] for name in self.became.values()]
        lines = [f"{components.count(name):5} keys became {name}" for name in dict.fromkeys(components)]
        for verb, reasons in (("left out", self.left_out), ("added", self.added)):
            counted = list(reasons.values())
            lines += [f"{counted.count(reason):5} {verb}: {reason}" for reason in dict.fromkeys(counted)]
        return lines


def shapes_of(network: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    """The shape of each weight of a network."""
    return {name: tuple(weight.shape) for name, weight in network.state_dict().items()}


def reason_for(key: str, reasons: Mapping[str, str]) -> str | None:
    """The reason for a key, or for a prefix of it that ends in a dot."""
    for name, reason in reasons.items():
        if key == name or (name.endswith(".") and key.startswith(name)):
            return reason
    return None


def left_out(source: Checkpoint, reasons: Mapping[str, str]) -> dict[str, str]:
    """The keys of a checkpoint that are left out, with reasons, see `reason_for`."""
    found = {key: reason_for(key, reasons) for key in source.weights}
    state = dict.fromkeys(source.training_state, "state of the training")
    return {key: reason for key, reason in found.items() if reason is not None} | state


def check_weights(
    checkpoint: Checkpoint, kind: str, shapes: Mapping[str, tuple[int, ...]], reasons: Mapping[str, str]
) -> None:
    """Checks that a checkpoint has the keys of a certain kind of checkpoint.

    Args:
        checkpoint ([`Checkpoint`]): The checkpoint.
        kind (`str`): The expected kind, for the error.
        shapes (`Mapping[str, tuple[int, ...]]`): Shape of every needed key.
        reasons (`Mapping[str, str]`): Reasons for leaving out other keys, see `reason_for`.

    Raises:
        ValueError: Names the keys that are missing, unknown or of the wrong shape.
    """
    weights = checkpoint.weights
    missing = [key for key in shapes if key not in weights]
    unknown = [key for key in weights if key not in shapes and reason_for(key, reasons) is None]
    misshapen = [
        f"{key} (is {tuple(weights[key].shape)}, has to be {shape})"
        for key, shape in shapes.items()
        if key in weights and weights[key].shape != shape
    ]
    faults = {"missing": missing, "unknown": unknown, "of the wrong shape": misshapen}
    found = [_named(what, keys) for what, keys in faults.items() if keys]
    if found:
        raise ValueError(f"{checkpoint.path} is not {kind}: {'; '.join(found)}")


def _named(what: str, keys: list[str]) -> str:
    count = "1 key is" if len(keys) == 1 else f"{len(keys)} keys are"
    more = f" and {len(keys) - NAMES_IN_AN_ERROR} more" if len(keys) > NAMES_IN_AN_ERROR else ""
    return f"{count} {what}, {', '.join(keys[:NAMES_IN_AN_ERROR])}{more}"


def cast(key: str, weight: torch.Tensor, dtype: torch.dtype | None) -> torch.Tensor:
    """Converts a weight to a floating-point precision; with `None`, and for integers, it is unchanged.

    Raises:
        ValueError: If a value is too large.
    """
    if dtype is None or not weight.is_floating_point() or weight.dtype == dtype:
        return weight
    converted = weight.to(dtype)
    if weight.isfinite().all() and not converted.isfinite().all():
        raise ValueError(f"{key} has values too large for {dtype}: convert in another precision")
    return converted


def fill(
    network: torch.nn.Module, keys: Mapping[str, str], weights: Mapping[str, torch.Tensor], dtype: torch.dtype | None
) -> None:
    """Fills a network with weights, which are copied only if their precision changes.

    Args:
        network (`torch.nn.Module`): On the meta device.
        keys (`Mapping[str, str]`): Maps its names of weights to those in `weights`; others are unchanged.
        weights (`Mapping[str, torch.Tensor]`): Each has as many values as the network's own.
        dtype (`torch.dtype`, *optional*): New precision; unchanged if left out.
    """
    shapes = shapes_of(network)
    state = {name: cast(key, weights[key], dtype).reshape(shapes[name]).contiguous() for name, key in keys.items()}
    network.load_state_dict(state, strict=False, assign=True)
