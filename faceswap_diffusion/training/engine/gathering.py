"""Weights that are divided among processes, as a whole."""

from typing import Any, cast

from accelerate import Accelerator
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline


def gather_pipeline(
    accelerator: Accelerator, model: nn.Module, pipeline: FaceSwapInpaintPipeline
) -> FaceSwapInpaintPipeline:
    """The pipeline as it can be saved: with FSDP another one, of whole weights on the CPU.

    Args:
        accelerator (`Accelerator`): Of the run. All processes call this.
        model (`nn.Module`): The prepared objective, of which `unet` and `conditioner` are submodules.
        pipeline (`FaceSwapInpaintPipeline`): That holds the same two.

    Returns:
        `FaceSwapInpaintPipeline`: To be saved by the main process; in others the weights remain divided.
    """
    if not accelerator.is_fsdp2:
        return pipeline
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if not accelerator.is_main_process:
        return pipeline
    networks = {}
    for name, kind in (("unet", UNet2DConditionModel), ("conditioner", FaceConditioner)):
        divided = getattr(pipeline, name)
        network: Any = kind.from_config(divided.config)  # FSDP has put its own class in place of the network's
        for adapter, config in getattr(divided, "peft_config", {}).items():
            network.add_adapter(config, adapter)
        prefix = f"{name}."
        network.load_state_dict({key.removeprefix(prefix): weights[key] for key in weights if key.startswith(prefix)})
        networks[name] = network
    return cast(FaceSwapInpaintPipeline, FaceSwapInpaintPipeline.from_pipe(pipeline, **networks))
