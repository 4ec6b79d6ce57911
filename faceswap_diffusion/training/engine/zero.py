# pyright: reportMissingImports=false, reportAttributeAccessIssue=false
# DeepSpeed is installed only where it is used.
"""AdamW under DeepSpeed's ZeRO-2 (arXiv 1910.02054), as a whole.

Each process has all weights. DeepSpeed lays each group of parameters out flat, and gives each process a part of it to
optimise: a copy of its weights and their moments. They are exchanged parameter by parameter here.
"""

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

MOMENTS = ("exp_avg", "exp_avg_sq")


def grouped_parameters(optimizer: torch.optim.Optimizer) -> list[list[nn.Parameter]]:
    """The model's parameters in the groups of the optimiser, which names only their flat parts.

    Args:
        optimizer (`torch.optim.Optimizer`): As accelerate prepared it.
    """
    return optimizer.optimizer.bit16_groups


def gather_state(optimizer: torch.optim.Optimizer) -> dict[nn.Parameter, dict[str, torch.Tensor]]:
    """What AdamW in one process keeps of each parameter; nothing before the first step.

    Args:
        optimizer (`torch.optim.Optimizer`): All processes call this.

    Returns:
        `dict[nn.Parameter, dict[str, torch.Tensor]]`: On the CPU: `step`, and moments with the parameter's shape.
    """
    from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_get_full_optimizer_state

    whole = {}
    for members, group in zip(grouped_parameters(optimizer), optimizer.param_groups, strict=True):
        (flat,) = group["params"]
        if state := optimizer.state.get(flat):
            # DeepSpeed does so by itself before any group but the first has a state.
            lazy_init_hp_params_optimizer_state(members, flat, optimizer.state)
            for parameter in members:
                whole[parameter] = {key: safe_get_full_optimizer_state(parameter, key).cpu() for key in MOMENTS}
                whole[parameter]["step"] = state["step"].to("cpu", copy=True)  # safetensors wants one for each
    return whole


def load_state(
    optimizer: torch.optim.Optimizer,
    groups: list[dict[str, Any]],
    parameters: dict[str, nn.Parameter],
    values: Iterable[tuple[str, torch.Tensor]],
) -> None:
    """Takes over weights that were loaded into the model, and what AdamW kept of them.

    Args:
        optimizer (`torch.optim.Optimizer`): Changed in place. All processes call this.
        groups (`list[dict[str, Any]]`): Settings of each group.
        parameters (`dict[str, nn.Parameter]`): All of them by name.
        values (`Iterable[tuple[str, torch.Tensor]]`): What `gather_state` returns, as `parameter.exp_avg` and so on.
            A group has one counter of steps: that of its last parameter.
    """
    from deepspeed.utils import lazy_init_hp_params_optimizer_state, safe_set_full_optimizer_state

    optimizer.optimizer.refresh_fp32_params()
    state_of = {}
    for members, group, settings in zip(grouped_parameters(optimizer), optimizer.param_groups, groups, strict=True):
        (flat,) = group["params"]
        group.update({**settings, "params": [flat]})
        moments = {key: torch.zeros_like(flat, requires_grad=False) for key in MOMENTS}
        optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **moments}
        lazy_init_hp_params_optimizer_state(members, flat, optimizer.state)
        state_of.update(dict.fromkeys(members, optimizer.state[flat]))
    for name, tensor in values:
        owner, _, key = name.rpartition(".")
        if key in MOMENTS:
            safe_set_full_optimizer_state(parameters[owner], tensor, key)
        else:
            state_of[parameters[owner]][key].copy_(tensor)
