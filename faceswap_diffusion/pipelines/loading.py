"""Loads what a swap needs from a checkpoint, a folder or a Hub id: pipeline, few-step version, face parser."""

import json
from pathlib import Path

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.schedulers.scheduling_lcm import LCMScheduler

from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.masks.occlusion import OcclusionNetwork, load_occlusion_network
from faceswap_diffusion.masks.parsing import FaceParser, load_face_parser
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.safety.checker import SafetyChecker
from faceswap_diffusion.weights.checkpoints import FEW_STEPS_FOLDER as FEW_STEPS_FOLDER
from faceswap_diffusion.weights.checkpoints import PARSER_FOLDER as PARSER_FOLDER
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT as EMBEDDED_CHECKPOINT
from faceswap_diffusion.weights.folders import (
    checkpoint_folder,
    choose_variant,
    load_weights,
    read_json,
    variants_of,
)

PICKLED_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
FEW_STEPS_CONFIG = "config.json"
FEW_STEPS = 2
"""Denoising steps that a few-step version is made for if nothing else is said."""

FEW_STEPS_DEFAULTS = {
    "default_num_inference_steps": FEW_STEPS, "default_guidance_scale": 1.0, "default_strength": 1.0,
}  # fmt: skip
"""Settings of older few-step versions, which have no config of their own."""


def load_pipeline(
    checkpoint: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    variant: str | None = None,
    safety_checker: SafetyChecker | str | None = "auto",
) -> FaceSwapInpaintPipeline:
    """Loads a pipeline from a checkpoint without pickled files.

    Args:
        checkpoint (`str | Path`, *optional*): Folder or Hub id; the embedded checkpoint if left out.
        dtype (`torch.dtype`): Precision of the networks.
        variant (`str`, *optional*): Of the weights, as `"fp16"`; see `checkpoint_folders.choose_variant`.
        safety_checker ([`SafetyChecker`] or `str`, *optional*): "auto" for the checkpoint's, or the package's if it
            has none and does not say that it requires none.

    Returns:
        `FaceSwapInpaintPipeline`: On the CPU.

    Raises:
        ValueError: If the checkpoint is unknown, holds pickled files, or its keys are not those of the networks.
    """
    folder = checkpoint_folder(checkpoint, variant=variant)
    _refuse_pickles(folder)
    if safety_checker != "auto":
        return FaceSwapInpaintPipeline.from_pretrained(
            folder, dtype=dtype, variant=variant, safety_checker=safety_checker
        )
    pipeline = FaceSwapInpaintPipeline.from_pretrained(folder, dtype=dtype, variant=variant)
    index = read_json(folder / "model_index.json")
    if pipeline.safety_checker is None and index.get("requires_safety_checker", True):
        pipeline.register_modules(safety_checker=SafetyChecker())
    return pipeline


def load_few_steps(pipeline: FaceSwapInpaintPipeline, folder: Path) -> None:
    """Turns a pipeline into its few-step version: a LoRA from `train/distill_lcm.py`, with its scheduler.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): Of the checkpoint that was distilled; changed in place.
        folder (`Path`): Of the LoRA.

    Raises:
        ValueError: If there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"checkpoint {folder.parent} has no few-step version (no folder {folder.name}): leave few_steps out, or "
            "make one by train/distill_lcm.py"
        )
    fuse_lora(pipeline, folder)
    pipeline.register_modules(scheduler=LCMScheduler.from_pretrained(folder, subfolder="scheduler"))
    config = folder / FEW_STEPS_CONFIG
    pipeline.register_to_config(**(json.loads(config.read_text()) if config.is_file() else FEW_STEPS_DEFAULTS))


def write_few_steps_config(pipeline: FaceSwapInpaintPipeline, folder: Path) -> None:
    """Writes the default steps, guidance and strength of a few-step version beside its LoRA.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): The few-step version.
        folder (`Path`): Of the LoRA.
    """
    config = {name: pipeline.config[name] for name in FEW_STEPS_DEFAULTS}
    (folder / FEW_STEPS_CONFIG).write_text(json.dumps(config, indent=2) + "\n")


def fuse_lora(pipeline: FaceSwapInpaintPipeline, lora: Path) -> None:
    """Adds a LoRA to the weights of the checkpoint that it was trained on.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): The checkpoint; changed in place.
        lora (`Path`): A safetensors file, or the folder of one that is called as Diffusers' trainings call it.

    Raises:
        ValueError: If there is none, or it was trained on another checkpoint.
    """
    file = lora / LORA_WEIGHT_NAME_SAFE if lora.is_dir() else lora
    if not file.is_file() or file.suffix != ".safetensors":
        raise ValueError(f"got LoRA {lora}: give a .safetensors file, or the folder of a {LORA_WEIGHT_NAME_SAFE}")
    try:
        pipeline.load_lora_weights(str(file.parent), weight_name=file.name, local_files_only=True)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"LoRA {lora} does not fit this checkpoint ({reason}): load the one it was trained on"
        ) from None
    if not getattr(pipeline.unet, "peft_config", None):
        raise ValueError(f"LoRA {lora} has no layers for this checkpoint's UNet: load the one it was trained on")
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def load_parser(checkpoint: str | Path | None = None, variant: str | None = None) -> FaceParser | BiSeNet:
    """Loads the face parser that a checkpoint brings along, or else the package's.

    Args:
        checkpoint (`str | Path`, *optional*): Folder or Hub id; the embedded checkpoint if left out.
        variant (`str`, *optional*): Of the weights; plain files if left out, or if it has none such.

    Returns:
        [`FaceParser`] or [`BiSeNet`]: In float32, on the CPU.

    Raises:
        ValueError: If the checkpoint is unknown, or its parser's keys are not those of the network.
    """
    folder = checkpoint_folder(checkpoint, variant=variant) / PARSER_FOLDER
    if not folder.is_dir():
        return load_face_parser()
    found = variants_of(folder.iterdir(), folder)
    variant = choose_variant({PARSER_FOLDER: found}, variant if variant in found else None)
    return load_weights(folder, BiSeNet, torch.float32, variant).eval()


def load_occlusion(which: str | Path = "auto") -> OcclusionNetwork | None:
    """Loads the network that finds things in front of faces.

    Args:
        which (`str | Path`): "auto" for the package's, "off" for none, or the folder of another.

    Returns:
        [`OcclusionNetwork`], *optional*: In float32, on the CPU.

    Raises:
        ValueError: If there is no such folder, or its keys are not those of the network.
    """
    if which == "auto":
        return load_occlusion_network()
    if which == "off":
        return None
    if not Path(which).is_dir():
        raise ValueError(f"occlusion is {str(which)!r}: give 'auto', 'off', or the folder of a network")
    return load_weights(Path(which), OcclusionNetwork, torch.float32).eval()


def _refuse_pickles(folder: Path) -> None:
    pickled = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICKLED_SUFFIXES)
    if pickled:
        raise ValueError(
            f"checkpoint {folder} holds a pickled file, {pickled[0].relative_to(folder)}, which may run code when "
            "it is loaded: only safetensors are read; convert it or remove it"
        )
