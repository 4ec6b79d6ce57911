"""From the checkpoint that a run begins with to the one that it leaves."""

import shutil
from pathlib import Path

import torch
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from peft import get_peft_model_state_dict
from torch import nn

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import PARSER_FOLDER, load_pipeline, write_few_steps_config
from faceswap_diffusion.writing import whole_folder


def load_whole_pipeline(checkpoint: str, variant: str | None = None) -> FaceSwapInpaintPipeline:
    """Loads a checkpoint to train, in float32 on the CPU.

    Args:
        checkpoint (`str`): Folder or Hub id.
        variant (`str`, *optional*): Of the weights, as `"fp16"`; see `checkpoint_folders.choose_variant`.

    Raises:
        ValueError: If it cannot be loaded, or lacks parts that training needs.
    """
    pipeline = load_pipeline(checkpoint, variant=variant)
    if pipeline.image_encoder is None or pipeline.conditioner is None:
        raise ValueError(
            f"checkpoint {checkpoint} lacks an image encoder or a conditioner: training needs a whole checkpoint, as "
            "`convert reface` and `convert sd-inpaint-init` write it"
        )
    return pipeline


def save_pipeline(pipeline: FaceSwapInpaintPipeline, folder: Path, base: str) -> None:
    """Writes a checkpoint that loads at once.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): To write.
        folder (`Path`): Where to; replaced if it is there.
        base (`str`): The checkpoint that training began with: its face parser goes along.
    """
    with whole_folder(folder) as unfinished:
        pipeline.save_pretrained(unfinished)
        parser = Path(base, PARSER_FOLDER)
        if parser.is_dir():
            shutil.copytree(parser, unfinished / PARSER_FOLDER)


def save_lora(pipeline: FaceSwapInpaintPipeline, folder: Path) -> None:
    """Writes a UNet's additions of low rank by themselves, as `load_lora_weights` takes them, and their scheduler.

    Those of a few-step student get the settings of its swaps as well.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): Whose UNet has an adapter.
        folder (`Path`): Where to; replaced if it is there.
    """
    # With peft's names: diffusers' old ones are only for attention, and are lost beside others when loaded.
    layers: dict[str, nn.Module | torch.Tensor] = {**get_peft_model_state_dict(pipeline.unet)}
    with whole_folder(folder) as unfinished:
        FaceSwapInpaintPipeline.save_lora_weights(unfinished, unet_lora_layers=layers)
        pipeline.scheduler.save_pretrained(unfinished / "scheduler")
        if isinstance(pipeline.scheduler, LCMScheduler):
            write_few_steps_config(pipeline, unfinished)
