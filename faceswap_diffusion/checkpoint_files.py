"""From a checkpoint, a folder or a Hub id, to a pipeline: what is in it is checked before and while it is read."""

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers.loaders.lora_base import LORA_WEIGHT_NAME_SAFE
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError

from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.masks.occlusion import OcclusionNetwork, load_occlusion_network
from faceswap_diffusion.masks.parsing import FaceParser, load_face_parser
from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline

EMBEDDED_CHECKPOINT = Path(__file__).parent / "checkpoints" / "faceswap-small"
PICKLED_SUFFIXES = {".bin", ".ckpt", ".pt", ".pth", ".pkl"}
PARSER_FOLDER = "face_parser"
FEW_STEPS_FOLDER = "few_steps"
FEW_STEPS = 2
"""Denoising steps of a checkpoint's few-step version, if a call names none."""

COMPONENT_LIBRARIES = {"diffusers", "transformers", "faceswap_diffusion"}


def checkpoint_folder(checkpoint: str | Path | None) -> Path:
    """Finds the folder of a checkpoint, fetching it from the Hub if it is a Hub id.

    Args:
        checkpoint (`str | Path`, *optional*): Folder in Diffusers' layout, or Hub id `owner/name`; the embedded
            checkpoint if left out. Of a Hub repository only configurations and safetensors are fetched.

    Raises:
        ValueError: If there is no such folder and no such repository can be had.
    """
    folder = Path(checkpoint or EMBEDDED_CHECKPOINT)
    if folder.is_file():
        raise ValueError(f"checkpoint {folder} is a file; the folder of a checkpoint in Diffusers' layout is needed")
    if checkpoint is not None and not folder.is_dir():
        folder = _fetch(str(checkpoint))
    if not (folder / "model_index.json").is_file():
        raise ValueError(f"checkpoint {checkpoint or folder} has no model_index.json: it is not in Diffusers' layout")
    return folder


def _fetch(repository: str) -> Path:
    try:
        return Path(snapshot_download(repository, allow_patterns=["*.json", "*.safetensors"]))
    except HFValidationError as error:
        raise ValueError(f"checkpoint {repository} is neither a folder here nor a Hub id like owner/name") from error
    except OSError as error:
        raise ValueError(
            f"checkpoint {repository} is no folder here, and no such Hub repository could be read "
            f"({type(error).__name__}): check the name, the network and the access token"
        ) from error


def load_pipeline(checkpoint: str | Path | None = None, dtype: torch.dtype = torch.float32) -> FaceSwapInpaintPipeline:
    """Loads a pipeline whose every weight comes from the checkpoint, and from safetensors alone.

    Args:
        checkpoint (`str | Path`, *optional*): Folder or Hub id; the embedded checkpoint if left out.
        dtype (`torch.dtype`): Precision of the networks.

    Returns:
        `FaceSwapInpaintPipeline`: On the CPU.

    Raises:
        ValueError: If the checkpoint is unknown, holds pickled files, or its keys are not those of the networks.
    """
    folder = checkpoint_folder(checkpoint)
    _refuse_pickles(folder)
    index = json.loads((folder / "model_index.json").read_text())
    components = {name: entry for name, entry in index.items() if isinstance(entry, list) and entry[0] is not None}
    if absent := [name for name in components if not (folder / name).is_dir()]:
        raise ValueError(f"checkpoint {folder} lacks the folder {absent[0]}, which its model_index.json names")
    networks = {
        name: _load_network(folder / name, library, class_name, dtype)
        for name, (library, class_name) in components.items()
        if (folder / name / "config.json").is_file()
    }
    return FaceSwapInpaintPipeline.from_pretrained(folder, **networks)


def load_few_steps(pipeline: FaceSwapInpaintPipeline, folder: Path) -> None:
    """Makes of a checkpoint its few-step version: a LoRA that `train/distill_lcm.py` left, with its scheduler.

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
    pipeline.register_to_config(
        default_num_inference_steps=FEW_STEPS, default_guidance_scale=1.0, default_strength=1.0
    )


def fuse_lora(pipeline: FaceSwapInpaintPipeline, folder: Path) -> None:
    """Adds a LoRA to the weights of the checkpoint that it was trained on.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): The checkpoint; changed in place.
        folder (`Path`): Of the LoRA, in safetensors.
    """
    pipeline.load_lora_weights(str(folder), weight_name=LORA_WEIGHT_NAME_SAFE, local_files_only=True)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()


def load_parser(checkpoint: str | Path | None = None) -> FaceParser | BiSeNet:
    """Loads the face parser that a checkpoint brings along, or else the package's.

    Args:
        checkpoint (`str | Path`, *optional*): Folder or Hub id; the embedded checkpoint if left out.

    Returns:
        [`FaceParser`] or [`BiSeNet`]: In float32, on the CPU.

    Raises:
        ValueError: If the checkpoint is unknown, or its parser's keys are not those of the network.
    """
    folder = checkpoint_folder(checkpoint) / PARSER_FOLDER
    return _load_weights(folder, BiSeNet, torch.float32).eval() if folder.is_dir() else load_face_parser()


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
    return _load_weights(Path(which), OcclusionNetwork, torch.float32).eval()


def _refuse_pickles(folder: Path) -> None:
    pickled = sorted(path for path in folder.rglob("*") if path.suffix.lower() in PICKLED_SUFFIXES)
    if pickled:
        raise ValueError(
            f"checkpoint {folder} holds a pickled file, {pickled[0].relative_to(folder)}, which may run code when "
            "it is loaded: only safetensors are read; convert it or remove it"
        )


def _load_network(folder: Path, library: str, class_name: str, dtype: torch.dtype) -> torch.nn.Module:
    if library not in COMPONENT_LIBRARIES:
        known = ", ".join(sorted(COMPONENT_LIBRARIES))
        raise ValueError(f"{folder.name} in checkpoint {folder.parent} is of library {library!r}; known are {known}")
    network_class = getattr(importlib.import_module(library), class_name, None)
    if network_class is None:
        raise ValueError(f"{folder.name} in checkpoint {folder.parent}: {library} has no {class_name}")
    return _load_weights(folder, network_class, dtype)


def _load_weights(folder: Path, network_class: Any, dtype: torch.dtype) -> Any:
    try:
        network, info = network_class.from_pretrained(
            folder, dtype=dtype, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"the weights in {folder} cannot be read: {error}") from error
    for kind in ("missing", "unexpected", "mismatched"):
        if keys := sorted(map(str, info[f"{kind}_keys"])):
            raise ValueError(
                f"the weights in {folder} do not fit {network_class.__name__}: {len(keys)} {kind} keys, as {keys[0]}"
            )
    return network
