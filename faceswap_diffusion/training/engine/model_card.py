"""The card of a finished checkpoint, filled from the run that made it."""

import platform
import re
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml
from accelerate import Accelerator
from huggingface_hub import ModelCard, ModelCardData
from PIL import Image

from faceswap_diffusion.provenance.save import save_image
from faceswap_diffusion.training.command_line import flatten
from faceswap_diffusion.training.data.dataset import FacesSummary
from faceswap_diffusion.training.engine.states import VERSIONED
from faceswap_diffusion.training.engine.trainer import Trainer
from faceswap_diffusion.weights.hub import CARD_TAGS, CONSENT, swap_example

LEFT_OUT = ("output_dir", "license", "push_to_hub", "hub_model_id", "hub_private", "report_to")
"""Settings that say nothing about the weights."""

NO_LICENSE = """**No licence was chosen for these weights** (`--license`). What they may be used for depends on what
they were made of: the terms of the checkpoint that they began with go on to hold, and so may those of the photos.
Weights that descend from FFHQ, CelebAMask-HQ or StyleGAN2's FFHQ model are for non-commercial use only; photos of
people need these people's consent."""


def write_model_card(folder: Path, trainer: Trainer) -> None:
    """Writes `README.md` into the folder of a finished checkpoint, with curves and validation swaps if there are any.

    Args:
        folder (`Path`): The checkpoint, as `save_pretrained` wrote it.
        trainer (`Trainer`): Which made it, at its end.
    """
    values, settings = trainer.history.last(), flatten(trainer.config)
    base, license_name, output_dir = base_model(settings), settings["license"], trainer.config.output.output_dir
    data = ModelCardData(
        license=license_name or "other",
        license_name=None if license_name else "not-chosen",
        library_name="diffusers",
        pipeline_tag="image-to-image",
        tags=[*CARD_TAGS],
        base_model=base if base and _is_hub_id(base) else None,
    )
    parts = [
        f"---\n{data.to_yaml()}\n---",
        f"# {output_dir.resolve().name}",
        "A model for the package `faceswap-diffusion`, which swaps faces by masked inpainting with diffusion.",
        swap_example("owner/name"),
        *_pictures(folder, output_dir, int(values["step"])),
        "## Training",
        _table(_facts(trainer, base, int(values["step"]))),
        "Losses of the last step, and means over the validation swaps:" if "detected" in values else "Losses:",
        _table({name: f"{value:.4g}" for name, value in values.items() if name != "step"}),
        "All settings:",
        f"```yaml\n{yaml.safe_dump(card_settings(settings), sort_keys=False).strip()}\n```",
        "## Licence and use",
        f"{license_name}, chosen by who trained it." if license_name else NO_LICENSE,
        CONSENT,
    ]
    ModelCard("\n\n".join(part.strip() for part in parts) + "\n").save(folder / "README.md")


def base_model(settings: Mapping[str, Any]) -> str | None:
    """What a run began with: a Hub id, or the name of a folder; none for a new model."""
    return None if settings.get("vae") else _without_path(settings["pretrained_model_name_or_path"])


def card_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """All settings that were given. Files and folders appear by name only: their location is private."""
    return {name: _plain(value) for name, value in settings.items() if name not in LEFT_OUT and value is not None}


def hardware(accelerator: Accelerator) -> str:
    """What a run was computed on: `"8 x NVIDIA H100"`."""
    if accelerator.device.type == "cuda":
        device = torch.cuda.get_device_name(accelerator.device)
    elif accelerator.device.type == "cpu":
        device = f"{platform.machine()} processor, {torch.get_num_threads()} thread(s)"
    else:
        device = accelerator.device.type
    return f"{accelerator.num_processes} x {device}"


def _facts(trainer: Trainer, base: str | None, step: int) -> dict[str, str]:
    return {
        "began with": base or "random weights",
        **_data(trainer.task.faces),
        "steps": f"{step:,}",
        "global batch": f"{trainer.global_batch_size:,}",
        "samples seen": f"{step * trainer.global_batch_size:,}",
        "hardware": hardware(trainer.accelerator),
        "precision": trainer.accelerator.mixed_precision,
        "versions": ", ".join(f"{package} {version(package)}" for package in VERSIONED),
    }


def _data(faces: FacesSummary | None) -> dict[str, str]:
    if faces is None:
        return {}
    folders = ", ".join(f"`{folder}`" for folder in faces.folders)
    people = f"{faces.num_faces:,} of {faces.num_people:,} people ({folders})"
    return {"faces": people, "crop": f"{faces.resolution} px"}


def _pictures(folder: Path, output_dir: Path, step: int) -> list[str]:
    """Copies what a run has drawn into the checkpoint; returns the links. Swaps are marked as made with AI."""
    links = []
    swaps, curves = output_dir / "validation" / f"step_{step:06}.png", output_dir / "curves.png"
    if swaps.exists():
        with Image.open(swaps) as picture:
            save_image(picture, folder / "validation.png", provenance={"step": step})
        links.append("![Sources, targets and swaps](validation.png)\n\nRows: sources, targets, swaps.")
    if curves.exists():
        with Image.open(curves) as picture:
            save_image(picture, folder / "curves.png", provenance=None)
        links.append("![Losses and validation by step](curves.png)")
    return links


def _table(rows: dict[str, str]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows.items())])


def _is_hub_id(name: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", name) is not None


def _without_path(name: str | Path) -> str:
    """The name of a folder; anything else, a Hub id, as it is."""
    return Path(name).resolve().name if Path(name).exists() else str(name)


def _plain(value: Any) -> Any:
    if isinstance(value, str | Path):
        return _without_path(value)
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
