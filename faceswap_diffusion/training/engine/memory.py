"""Memory that training takes, counted without a weight in memory: per parameter, and per sample for activations."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.multiprocessing.reductions import StorageWeakRef

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.latents import channel_count, spatial_factor
from faceswap_diffusion.training.engine.trainable import trained_parameters

FLOAT32 = 4
ADAM, ADAM_8BIT = 8, 2  # two moments a weight


@dataclass(frozen=True)
class ParameterCounts:
    """Parameters of a pipeline by what training does with them.

    Args:
        trained (`int`): Of UNet and conditioner.
        held (`int`): Others of UNet and conditioner, frozen.
        frozen (`int`): Of autoencoder, image encoder and recogniser.
        largest_unit (`int`): Of the largest part that FSDP gathers at a time.
    """

    trained: int
    held: int
    frozen: int
    largest_unit: int


def count_parameters(pipeline: FaceSwapInpaintPipeline) -> ParameterCounts:
    """Counts the parameters of a pipeline.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): After `select_trainable`; may be on the meta device.
    """
    recognizer = pipeline.conditioner.identity_encoder
    generator = [pipeline.unet, pipeline.conditioner]
    trained = sum(parameter.numel() for module in generator for parameter in trained_parameters(module))
    whole = sum(map(_size, generator)) - _size(recognizer)
    units = [module for module in pipeline.unet.modules() if isinstance(module, BasicTransformerBlock | ResnetBlock2D)]
    return ParameterCounts(
        trained=trained,
        held=whole - trained,
        frozen=sum(map(_size, [pipeline.vae, pipeline.image_encoder, recognizer])),
        largest_unit=max(map(_size, units)),
    )


def _size(module: nn.Module) -> int:
    """Weights of a network, some of which keep theirs as buffers."""
    return sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))


def count_memory(
    counts: ParameterCounts, strategy: str = "one", num_gpus: int = 1, use_8bit_adam: bool = False
) -> dict[str, int]:
    """Bytes on each GPU that do not depend on the batch, in float32.

    A parameter that is trained takes 4 for itself, 4 for its gradient, 8 for Adam's moments (2 with 8 bits) and 4 for
    the running average: 20 (14). A frozen one takes 4. `--mixed_precision` adds 2 for each weight of UNet and
    conditioner, the copy that autocast keeps through a step.

    Args:
        counts (`ParameterCounts`): See there.
        strategy (`str`): `"one"` GPU; `"ddp"`: each holds everything, and the buckets that gradients are exchanged in;
            `"fsdp"`: all but the frozen networks is divided, two units are gathered at a time, and the gradients of
            one (arXiv 2304.11277, section 3).
        num_gpus (`int`): Among which is divided.
        use_8bit_adam (`bool`): Moments of 8 bits.

    Returns:
        `dict[str, int]`: Bytes of `"weights"`, `"gradients"`, `"optimizer"`, `"ema"` and `"exchange"`.

    Raises:
        ValueError: For an unknown strategy.
    """
    weights, trained = FLOAT32 * (counts.held + counts.trained), FLOAT32 * counts.trained
    moments = (ADAM_8BIT if use_8bit_adam else ADAM) * counts.trained
    if strategy in ("one", "ddp"):
        exchange = trained if strategy == "ddp" else 0
        parts = {"weights": weights, "gradients": trained, "optimizer": moments, "ema": trained, "exchange": exchange}
    elif strategy == "fsdp":
        parts = {"weights": weights, "gradients": trained, "optimizer": moments, "ema": trained}
        parts = {name: size // num_gpus for name, size in parts.items()}
        parts["exchange"] = 3 * FLOAT32 * counts.largest_unit
    else:
        raise ValueError(f"got strategy {strategy!r}; choose one of one, ddp, fsdp")
    parts["weights"] += FLOAT32 * counts.frozen
    return parts


@dataclass(frozen=True)
class ActivationCounts:
    """Bytes that autograd keeps of one sample, in float32, each without and with gradient checkpointing.

    With it, the inputs of each recomputed part are kept, and for a time the activations of the largest part.

    Args:
        unet, unet_checkpointed (`int`): Of one pass through the UNet.
        decoder, decoder_checkpointed (`int`): Of decoding to a picture, for the losses that look at one.
    """

    unet: int
    unet_checkpointed: int
    decoder: int
    decoder_checkpointed: int


def count_activations(pipeline: FaceSwapInpaintPipeline) -> ActivationCounts:
    """Runs UNet and decoder on tensors that have shapes and no values, and adds up what they keep.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): Its settings are what counts; it is trained as a whole.
    """
    with FakeTensorMode():
        unet = cast(UNet2DConditionModel, UNet2DConditionModel.from_config(pipeline.unet.config)).train()
        vae: Any = type(pipeline.vae).from_config(pipeline.vae.config)
        vae.requires_grad_(False).eval()
        side = pipeline.config["crop_size"] // spatial_factor(vae)
        latents = torch.zeros(1, channel_count(vae), side, side, requires_grad=True)
        unet_input = torch.zeros(1, unet.config["in_channels"], side, side)
        tokens = pipeline.conditioner.num_tokens
        context = torch.zeros(1, tokens, unet.config["cross_attention_dim"], requires_grad=True)
        return ActivationCounts(
            *_bytes_kept(unet, lambda: unet(unet_input, torch.zeros(1), context)),
            *_bytes_kept(vae, lambda: vae.decode(latents)),
        )


def _bytes_kept(network: ModelMixin, compute: Callable[[], Any]) -> tuple[int, int]:
    """Bytes kept of a computation, without and with gradient checkpointing of the network."""
    whole = SavedTensors(network.parameters())
    whole.run(compute)
    between, within = SavedTensors(network.parameters()), [0]

    def compute_anew(part: Callable[..., Any], *inputs: Any) -> Any:
        for value in inputs:
            if isinstance(value, torch.Tensor):
                between.note(value)
        inner = SavedTensors(network.parameters())
        result = inner.run(lambda: part(*inputs))
        within.append(inner.num_bytes)
        return result

    network.enable_gradient_checkpointing(compute_anew)
    between.run(compute)
    return whole.num_bytes, between.num_bytes + max(within)


class SavedTensors:
    """What autograd keeps of a computation for the way back, each storage once.

    Args:
        weights (`Iterable[torch.Tensor]`): Are there anyway, and not counted.
    """

    def __init__(self, weights: Iterable[torch.Tensor]):
        self._weights = {_storage(weight) for weight in weights}
        self._kept: dict[StorageWeakRef, torch.Tensor] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes kept so far."""
        return sum(tensor.untyped_storage().nbytes() for tensor in self._kept.values())

    def note(self, tensor: torch.Tensor) -> torch.Tensor:
        """Counts a tensor as kept, and returns it."""
        if _storage(tensor) not in self._weights:
            self._kept[_storage(tensor)] = tensor
        return tensor

    def run(self, compute: Callable[[], Any]) -> Any:
        """Returns what `compute` does, and counts what is kept of it."""
        with saved_tensors_hooks(self.note, lambda tensor: tensor):
            return compute()


def _storage(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())
