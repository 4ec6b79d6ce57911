"""States of a run: all that it takes to go on as if nothing had been, in safetensors and JSON.

A state is a folder `step_000250` with `model.safetensors` (what is trained, and buffers), `optimizer.safetensors`,
`ema.safetensors` and `state.json`. It is written under another name and renamed once it is on the disk: a folder of
that name is complete. Runs in one process, with DDP and with FSDP2 write the same files and read each other's.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, broadcast_object_list
from diffusers.training_utils import EMAModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from faceswap_diffusion.training.engine.state_folders import saved_steps, state_folder
from faceswap_diffusion.writing import remove, remove_left_overs, whole_folder

NUMBERS = "state.json"
VERSIONED = ("faceswap-diffusion", "torch", "accelerate", "diffusers")

Tensors = dict[str, torch.Tensor]
Described = dict[str, tuple[tuple[int, ...], torch.dtype]]  # shape and type of each of some tensors
Result = TypeVar("Result")


class StateNotSavedError(OSError):
    """A state cannot be written; those before it are as they were."""


@dataclass(frozen=True)
class TrainingParts:
    """What a run consists of.

    Args:
        model (`nn.Module`): Everything that is trained, as accelerate prepared it.
        optimizer (`torch.optim.Optimizer`): Of parameters of `model`, in one group or more, plain or prepared.
        lr_scheduler (`Any`): Plain or prepared, with a state of numbers.
        ema (`EMAModel`, *optional*): Running average of some of the parameters.
        settings (`dict[str, Any]`): JSON values that must not change between a stop and going on: seed, global batch
            size, fingerprint of the data, what is trained, ...
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    lr_scheduler: Any
    ema: EMAModel | None
    settings: dict[str, Any]


def save_state(
    accelerator: Accelerator, folder: Path, step: int, parts: TrainingParts, total_limit: int | None
) -> Path:
    """Saves the state of a run, then removes the oldest ones. All processes call it, the main one writes.

    Args:
        accelerator (`Accelerator`): Of the run.
        folder (`Path`): Of all its states.
        step (`int`): Steps taken so far. If there is a state of this step already, it stays as it is.
        parts (`TrainingParts`): What to save.
        total_limit (`int`, *optional*): How many states are kept; all if left out. While one is being written there
            is one more.

    Returns:
        `Path`: The folder of the state.

    Raises:
        StateNotSavedError: If it cannot be written. The states before it are kept.
    """
    finished = state_folder(folder, step)
    if _in_main_process(accelerator, lambda: step in saved_steps(folder)):
        return finished
    kept = _optimizer_values(accelerator, parts)
    tensors = {
        "model": _model_tensors(accelerator, parts),
        "optimizer": {name: value for name, value in kept.items() if isinstance(value, torch.Tensor)},
    }
    if parts.ema is not None:
        tensors["ema"] = _ema_tensors(parts.ema)
    others = {name: value for name, value in kept.items() if not isinstance(value, torch.Tensor)}
    whole = {kind: gather(group, keep=accelerator.is_main_process) for kind, group in tensors.items()}
    numbers = {"step": step, **_numbers(accelerator, parts, others)}
    _in_main_process(accelerator, lambda: _write(finished, whole, numbers))
    if accelerator.is_main_process and total_limit is not None:
        for former in saved_steps(folder)[:-total_limit]:
            remove(state_folder(folder, former))
    return finished


@torch.no_grad()
def load_state(accelerator: Accelerator, folder: Path, parts: TrainingParts) -> int:
    """Loads the newest state of a run. All processes call it, the main one reads.

    Args:
        accelerator (`Accelerator`): Of the run.
        folder (`Path`): Of all its states.
        parts (`TrainingParts`): Changed in place.

    Returns:
        `int`: Steps taken so far; 0 if there is no state.

    Raises:
        ValueError: If the state is of a run with other settings or parameters, or cannot be read.
    """
    tensors: dict[str, Tensors] = {}
    numbers = _in_main_process(accelerator, lambda: _read(folder, parts.settings, tensors))
    if numbers is None:
        return 0
    state, contents = state_folder(folder, numbers["step"]), numbers["contents"]
    model = _model_tensors(accelerator, parts)
    _check_names(state, "model", model, contents)
    for name, tensor in _spread(accelerator, contents["model"], tensors.get("model", {})):
        model[name].copy_(_like(model[name], tensor))
    _load_optimizer(accelerator, state, parts, numbers["optimizer"], contents["optimizer"], tensors)
    if parts.ema is not None:
        shadow = _ema_tensors(parts.ema)
        _check_names(state, "ema", shadow, contents)
        for name, tensor in _spread(accelerator, contents["ema"], tensors.get("ema", {})):
            shadow[name].copy_(_like(shadow[name], tensor))
        parts.ema.load_state_dict(numbers["ema"])
    parts.lr_scheduler.load_state_dict(numbers["lr_scheduler"])
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(numbers["grad_scaler"])
    return numbers["step"]


def _in_main_process(accelerator: Accelerator, action: Callable[[], Result]) -> Result:
    """Does something in the main process; all processes wait for it, and return its result or raise its error."""
    outcome: list[Any] = [None, None]
    if accelerator.is_main_process:
        try:
            outcome = [action(), None]
        except (OSError, ValueError) as error:
            outcome = [None, error]
    result, error = broadcast_object_list(outcome)
    if error is not None:
        raise error
    return result


def _parameter_names(accelerator: Accelerator, model: nn.Module) -> dict[torch.Tensor, str]:
    """The name of each parameter within the model itself, whatever is wrapped around it."""
    module = accelerator.unwrap_model(model, keep_torch_compile=False)
    return {parameter: name for name, parameter in module.named_parameters()}


def _model_tensors(accelerator: Accelerator, parts: TrainingParts) -> Tensors:
    """What is trained, and all buffers: spectral norms, for one, change in a run. Frozen weights do not."""
    buffers = accelerator.unwrap_model(parts.model, keep_torch_compile=False).named_buffers()
    parameters = _parameter_names(accelerator, parts.model).items()
    return {**{name: parameter for parameter, name in parameters if parameter.requires_grad}, **dict(buffers)}


def _ema_tensors(ema: EMAModel) -> Tensors:
    """Averages have no names, only an order."""
    return {str(index): tensor for index, tensor in enumerate(ema.shadow_params)}


def _optimizer_values(accelerator: Accelerator, parts: TrainingParts) -> dict[str, Any]:
    """What the optimiser keeps of each parameter, as `parameter.value`; nothing of those that had no gradient yet."""
    names = _parameter_names(accelerator, parts.model)
    state = parts.optimizer.state
    return {
        f"{names[parameter]}.{key}": value
        for group in parts.optimizer.param_groups
        for parameter in group["params"]
        if parameter in state
        for key, value in state[parameter].items()
    }


def _numbers(accelerator: Accelerator, parts: TrainingParts, optimizer_values: dict[str, Any]) -> dict[str, Any]:
    """Everything that is no tensor."""
    ema = {} if parts.ema is None else parts.ema.state_dict()
    return {
        "settings": parts.settings,
        "lr_scheduler": parts.lr_scheduler.state_dict(),
        "grad_scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
        "ema": {name: value for name, value in ema.items() if name != "shadow_params"},
        "optimizer": {"param_groups": _named_groups(accelerator, parts), "values": optimizer_values},
        "versions": {package: version(package) for package in VERSIONED},
    }


def _named_groups(accelerator: Accelerator, parts: TrainingParts) -> list[dict[str, Any]]:
    names = _parameter_names(accelerator, parts.model)
    return [
        {**group, "params": [names[parameter] for parameter in group["params"]]}
        for group in parts.optimizer.param_groups
    ]


def gather(tensors: Tensors, keep: bool) -> Tensors:
    """Puts together tensors that may be divided among processes, one after the other.

    Args:
        tensors (`dict[str, torch.Tensor]`): By name. All processes call this, with the same names.
        keep (`bool`): Whether this process keeps the whole ones. All others let go of each at once.

    Returns:
        `dict[str, torch.Tensor]`: On the CPU; empty in processes that keep none.
    """
    kept = {}
    for name, tensor in tensors.items():
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            kept[name] = whole.detach().cpu().contiguous()
    return kept


def _like(target: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """A whole tensor, which every process has, divided as `target` is, and laid out in memory like it.

    Fused optimisers take it for granted that a parameter and what is kept of it have the same strides.
    """
    if isinstance(target, DTensor):
        return distribute_tensor(whole.to(target.device), target.device_mesh, target.placements, src_data_rank=None)
    return torch.empty_like(target, dtype=whole.dtype).copy_(whole)


def _spread(accelerator: Accelerator, described: Described, tensors: Tensors) -> Iterator[tuple[str, torch.Tensor]]:
    """Gives all processes, one after the other, the tensors that the main one has read."""
    for name, (shape, dtype) in described.items():
        if accelerator.is_main_process:
            tensor = tensors[name].to(accelerator.device)
        else:
            tensor = torch.empty(shape, dtype=dtype, device=accelerator.device)
        yield name, cast(torch.Tensor, broadcast(tensor))


def _load_optimizer(
    accelerator: Accelerator,
    folder: Path,
    parts: TrainingParts,
    numbers: dict[str, Any],
    described: Described,
    tensors: dict[str, Tensors],
) -> None:
    groups, present = numbers["param_groups"], _named_groups(accelerator, parts)
    if [group["params"] for group in groups] != [group["params"] for group in present]:
        raise ValueError(f"{folder} has other parameters, or in another order, than this run's optimizer")
    parameters = [parameter for group in parts.optimizer.param_groups for parameter in group["params"]]
    names = [name for group in groups for name in group["params"]]
    positions = {name: position for position, name in enumerate(names)}
    for group in groups:
        group["params"] = [positions[name] for name in group["params"]]
        group.update(
            {key: tuple(value) for key, value in group.items() if key != "params" and isinstance(value, list)}
        )
    read = _spread(accelerator, described, tensors.get("optimizer", {}))
    state: dict[int, dict[str, Any]] = defaultdict(dict)
    for name, value in numbers["values"].items():
        parameter, _, key = name.rpartition(".")
        state[positions[parameter]][key] = value
    for name, tensor in read:
        parameter, _, key = name.rpartition(".")
        position = positions[parameter]
        same_shape = tensor.shape == parameters[position].shape and tensor.ndim > 0
        state[position][key] = _like(parameters[position], tensor) if same_shape else tensor.cpu()
    parts.optimizer.load_state_dict({"state": dict(state), "param_groups": groups})


def _check_names(folder: Path, kind: str, present: Tensors, contents: dict[str, Any]) -> None:
    saved = {name: shape for name, (shape, _) in contents.get(kind, {}).items()}
    other = saved.items() ^ {name: tuple(tensor.shape) for name, tensor in present.items()}.items()
    if other:
        name = min(other)[0]
        raise ValueError(
            f"{folder} does not fit this run: {len({name for name, _ in other})} tensors of its {kind} are missing or "
            f"have another shape, {name} among them; use another --output_dir"
        )


def _write(finished: Path, tensors: dict[str, Tensors], numbers: dict[str, Any]) -> None:
    """Writes a state, which gets its name once the disk has it."""
    with _told_if_not_saved(finished.parent, numbers["step"]):
        remove_left_overs(finished.parent)
        with whole_folder(finished, sync=True) as unfinished:
            for kind, group in tensors.items():
                save_file(group, unfinished / f"{kind}.safetensors")
            (unfinished / NUMBERS).write_text(json.dumps({**numbers, "files": list(tensors)}, indent=1))


@contextmanager
def _told_if_not_saved(folder: Path, step: int) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:
        steps = saved_steps(folder)
        last = f"the last good state is {state_folder(folder, steps[-1])}" if steps else "there is none before it"
        reason = getattr(error, "strerror", None) or str(error)
        raise StateNotSavedError(
            f"cannot save the state of step {step} in {folder} ({reason}): {last}; make room and start the run again"
        ) from error


def _read(folder: Path, settings: dict[str, Any], tensors: dict[str, Tensors]) -> dict[str, Any] | None:
    """Reads the newest state: its numbers, with name, shape and type of tensors as `contents`, and fills `tensors`."""
    remove_left_overs(folder)
    steps = saved_steps(folder)
    if not steps:
        return None
    state = state_folder(folder, steps[-1])
    path = state / NUMBERS
    try:
        numbers = json.loads(path.read_text())
        _check_settings(state, numbers["settings"], json.loads(json.dumps(settings)))
        for kind in numbers["files"]:
            path = state / f"{kind}.safetensors"
            tensors[kind] = load_file(path)
    except (OSError, json.JSONDecodeError, SafetensorError) as error:
        before = (
            f"remove {state} to go on from step {steps[-2]}" if len(steps) > 1 else f"remove {state} to start over"
        )
        raise ValueError(f"{path} is damaged ({error}): {before}") from error
    contents = {
        kind: {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in group.items()}
        for kind, group in tensors.items()
    }
    return {**numbers, "contents": contents}


def _check_settings(state: Path, saved: dict[str, Any], present: dict[str, Any]) -> None:
    differences = [
        f"{name} was {json.dumps(saved.get(name))} and is {json.dumps(present.get(name))}"
        for name in {**saved, **present}
        if saved.get(name) != present.get(name)
    ]
    if differences:
        raise ValueError(
            f"{state} belongs to a run with other settings: {', '.join(differences)}; start it with the same "
            "settings, or with another --output_dir"
        )
