"""Converts a folder in Diffusers' layout to a checkpoint for REFace's own code: the inverse of `reface`."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from faceswap_diffusion.conversion.compvis import compvis_shape
from faceswap_diffusion.conversion.output import check_output, written
from faceswap_diffusion.conversion.reface import (
    NETWORKS,
    PUBLISHED,
    RAW_LANDMARKS,
    Architecture,
    build_empty_pipeline,
    reface_keys,
)
from faceswap_diffusion.conversion.weights import ConversionReport, shapes_of
from faceswap_diffusion.pipelines.faceswap_inpaint import FORMER_DEFAULTS
from faceswap_diffusion.weights.folders import checkpoint_folder, choose_variant, variant_of, variants_of

FIXED_IN_REFACE = {
    "conditioner": (
        "identity_network", "num_landmarks", "mapper_layers", "combine", "identity_weight", "clip_weight",
        "landmark_weight",
    ),
    "pipeline": ("channel_order",),
}  # fmt: skip
"""Settings that are fixed in REFace's code."""


def convert_to_reface(checkpoint: str | Path, file: str | Path, *, overwrite: bool = False) -> ConversionReport:
    """Writes the weights of a folder to a file that REFace loads, with REFace's keys and shapes.

    Weights are copied bit by bit. Other parts of REFace's file (CLIP's text tower, unused networks, the loss) are not
    in a folder; REFace loads without them (`strict=False`).

    Args:
        checkpoint (`str` or `Path`): Folder in Diffusers' layout, or Hub id.
        file (`str` or `Path`): To write, as `last.ckpt`.
        overwrite (`bool`): Whether an older file is replaced.

    Returns:
        [`ConversionReport`]: What became of every key.

    Raises:
        ValueError: If the folder is not of REFace's design, or the file exists or cannot be written.
    """
    check_output(file, overwrite)
    folder = checkpoint_folder(checkpoint)
    architecture = read_architecture(folder)
    check_design(folder, architecture)
    state_dict, report = {}, ConversionReport()
    pipeline = build_empty_pipeline(architecture)
    for part, keys in reface_keys(pipeline).items():
        weights = _read_part(folder / part, shapes_of(getattr(pipeline, part)))
        for name, key in keys.items():
            state_dict[key] = weights[name].reshape(compvis_shape(key, tuple(weights[name].shape)))
            report.became[f"{part}/{name}"] = f"REFace's checkpoint/{key}"
    report.left_out = {f"conditioner/{name}": "REFace takes landmarks in raw pixels" for name in RAW_LANDMARKS}
    with written(file, overwrite, as_file=True) as target:
        _save(state_dict, target)
    return report


def _save(state_dict: dict[str, torch.Tensor], path: Path) -> None:
    try:
        with path.open("wb") as file:  # PyTorch would write a path's name into it
            torch.save({"state_dict": state_dict}, file)
    except RuntimeError as error:
        raise OSError(f"PyTorch failed, the disk may be full ({error})") from error


def read_architecture(folder: Path) -> Architecture:
    """Reads sizes and settings from a folder's configurations.

    Raises:
        ValueError: If one is missing.
    """
    try:
        networks = {part: _settings(folder / part / "config.json") for part in NETWORKS}
        pipeline = _settings(folder / "model_index.json")
    except OSError as error:
        raise ValueError(f"checkpoint {folder} lacks {error.filename}") from error
    settings = {name: pipeline.get(name, FORMER_DEFAULTS.get(name)) for name in PUBLISHED.pipeline}
    encoder = {name: value for name, value in networks.pop("image_encoder").items() if name in PUBLISHED.image_encoder}
    return Architecture(**networks, image_encoder=encoder, pipeline=settings)


def _settings(path: Path) -> dict[str, Any]:
    config = json.loads(path.read_text(encoding="utf-8"))
    return {name: value for name, value in config.items() if not name.startswith("_")}


def check_design(folder: Path, architecture: Architecture) -> None:
    """Checks that REFace's code would use the weights as our pipeline does.

    Raises:
        ValueError: Names the first setting that differs in REFace.
    """
    for part, names in FIXED_IN_REFACE.items():
        settings, wanted = getattr(architecture, part), getattr(PUBLISHED, part)
        for name in names:
            if settings.get(name) != wanted[name]:
                raise ValueError(
                    f"checkpoint {folder} is not of REFace's design: {name} is {settings.get(name)!r}, and REFace's "
                    f"code has {wanted[name]!r}"
                )
    if architecture.conditioner.get("hidden_dim") is not None:
        raise ValueError(f"checkpoint {folder} is not of REFace's design: its projections have a hidden layer")


def _read_part(folder: Path, shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Memory-maps the weights of one network from its safetensors files, and checks their shapes.

    Raises:
        ValueError: If they cannot be read, or are not those of the network.
    """
    files = sorted(folder.glob("*.safetensors"))
    variant = choose_variant({folder.name: variants_of(files, folder)}, None)
    files = [file for file in files if variant_of(file) == variant]
    try:
        weights = {name: weight for file in files for name, weight in load_file(file).items()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"the weights in {folder} cannot be read: {error}") from error
    for name, value in RAW_LANDMARKS.items():
        if (weights.get(name, torch.tensor(value)) != value).any():
            raise ValueError(f"the weights in {folder} standardise landmarks ({name}), which REFace does not")
    stored = {name: tuple(weight.shape) for name, weight in weights.items()}
    if differing := sorted(name for name, _ in stored.items() ^ shapes.items()):
        raise ValueError(f"the weights in {folder} do not fit its configuration: {differing[0]} is one that does not")
    return weights
