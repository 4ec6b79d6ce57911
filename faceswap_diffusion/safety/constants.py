"""Networks whose weights are constants of the package: no checkpoint holds them, no training changes them."""

from collections.abc import Mapping

import torch
from torch import nn


def fix_weights(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Exchanges all parameters of a network for buffers outside its state dict.

    Args:
        network (`nn.Module`): Changed in place. Its parameters may be on the meta device.
        weights (`Mapping[str, torch.Tensor]`): All its parameters by name.

    Raises:
        ValueError: If one is missing, left over or of another shape.
    """
    wanted = {name: parameter.shape for name, parameter in network.named_parameters()}
    given = {name: tensor.shape for name, tensor in weights.items()}
    if given != wanted:
        wrong = sorted(name for name in {*wanted, *given} if wanted.get(name) != given.get(name))
        raise ValueError(f"{type(network).__name__} cannot take weights of {', '.join(wrong[:3])}: they do not fit it")
    for name, tensor in weights.items():
        path, _, part = name.rpartition(".")
        module = network.get_submodule(path)
        delattr(module, part)
        module.register_buffer(part, tensor, persistent=False)


def channels_last(tensor: torch.Tensor) -> torch.Tensor:
    """The layout in which convolutions and pooling take a CPU half to two thirds of the time."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor
