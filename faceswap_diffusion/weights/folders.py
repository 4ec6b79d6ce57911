"""Checkpoint folders: finds them, selects the needed files, and loads networks strictly from safetensors."""

import importlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import DryRunError, HFValidationError
from safetensors import SafetensorError

from faceswap_diffusion.weights.checkpoints import EMBEDDED_CHECKPOINT

COMPONENT_LIBRARIES = {"diffusers", "transformers", "faceswap_diffusion"}
READ = ["*.json", "*.safetensors", "*README.md", "*LICENSE*"]
TEXTS = ("README.md", "LICENSE")
SHARD = re.compile(r"-\d{5}-of-\d{5}")

ADAPTER_ADVICE = "; they were saved with a LoRA loaded: take the LoRA out by unload_lora_weights, and save again"

DtypeLike = torch.dtype | Mapping[str, torch.dtype] | None


def checkpoint_folder(
    checkpoint: str | Path | None,
    *,
    variant: str | None = None,
    subfolder: str | None = None,
    **hub: Any,
) -> Path:
    """Finds the folder of a checkpoint; a Hub id is downloaded.

    Args:
        checkpoint (`str | Path`, *optional*): Folder in Diffusers' layout, or Hub id `owner/name`; the embedded
            checkpoint if left out. Of a Hub repository only configurations and safetensors of one variant are fetched.
        variant (`str`, *optional*): See `choose_variant`.
        subfolder (`str`, *optional*): Where in the folder or repository the checkpoint is.
        hub: `revision`, `token`, `cache_dir`, `local_files_only` and `force_download`, as Diffusers' `from_pretrained`
            has them.

    Raises:
        ValueError: If there is no such folder and no such repository can be downloaded.
    """
    folder = Path(checkpoint or EMBEDDED_CHECKPOINT)
    if folder.is_file():
        raise ValueError(f"checkpoint {folder} is a file; the folder of a checkpoint in Diffusers' layout is needed")
    if checkpoint is not None and not folder.is_dir():
        folder = _fetch(str(checkpoint), variant, subfolder, hub)
    folder = folder / (subfolder or "")
    if not (folder / "model_index.json").is_file():
        where = f"{checkpoint or folder}{f'/{subfolder}' if subfolder else ''}"
        raise ValueError(f"checkpoint {where} has no model_index.json: it is not in Diffusers' layout")
    return folder


def _fetch(repository: str, variant: str | None, subfolder: str | None, hub: dict[str, Any]) -> Path:
    try:
        files = _list_files(repository, hub)
        if files is None:  # offline: use what the cache has
            index = f"{subfolder}/model_index.json" if subfolder else "model_index.json"
            return Path(snapshot_download(repository, **{**hub, "local_files_only": True}, allow_patterns=index))
        wanted = needed_files(files, variant, subfolder)
        return Path(snapshot_download(repository, **hub, allow_patterns=wanted))
    except HFValidationError as error:
        raise ValueError(f"checkpoint {repository} is neither a folder here nor a Hub id like owner/name") from error
    except OSError as error:
        raise ValueError(
            f"checkpoint {repository} is no folder here, and no such Hub repository could be read "
            f"({type(error).__name__}): check the name, the network and the access token"
        ) from error


def _list_files(repository: str, hub: dict[str, Any]) -> list[str] | None:
    """The configurations and safetensors in a Hub repository; `None` if it cannot be reached."""
    if hub.get("local_files_only"):
        return None
    try:
        return [file.filename for file in snapshot_download(repository, **hub, allow_patterns=READ, dry_run=True)]
    except DryRunError:
        return None


def needed_files(files: Iterable[str], variant: str | None = None, subfolder: str | None = None) -> list[str]:
    """Selects the files of a Hub repository that make up one checkpoint.

    Args:
        files (`Iterable[str]`): Paths in the repository.
        variant (`str`, *optional*): See `choose_variant`.
        subfolder (`str`, *optional*): Where the checkpoint is.

    Returns:
        `list[str]`: All configurations, card and licence; of the weights in its folders those of the variant, or else
            plain ones.

    Raises:
        ValueError: If there is no such variant.
    """
    prefix = f"{subfolder.strip('/')}/" if subfolder else ""
    files = [name for name in files if name.startswith(prefix)]
    configurations = [name for name in files if name.endswith(".json") or name[len(prefix) :] in TEXTS]
    weights = {name: Path(name) for name in files if name.endswith(".safetensors") and "/" in name[len(prefix) :]}
    folders = {str(path.parent): variants_of(weights.values(), path.parent) for path in weights.values()}
    chosen = choose_variant(folders, variant)
    needed = {folder: chosen if chosen in found else None for folder, found in folders.items()}
    return configurations + [name for name, path in weights.items() if variant_of(path) == needed[str(path.parent)]]


def variant_of(path: Path) -> str | None:
    """The variant of a weights file: "fp16" for `model.fp16-00001-of-00002.safetensors`, `None` for plain files."""
    _, *variant, _ = SHARD.sub("", path.name).split(".")
    return ".".join(variant) or None


def variants_of(files: Iterable[Path], folder: Path) -> set[str | None]:
    """The variants of weights in a folder; plain files are the variant `None`."""
    return {variant_of(path) for path in files if path.parent == folder and path.suffix == ".safetensors"}


def choose_variant(folders: Mapping[str, set[str | None]], variant: str | None) -> str | None:
    """Chooses the variant of a checkpoint. A network without it is loaded from its plain files.

    Args:
        folders (`Mapping[str, set[str | None]]`): For each folder of weights its variants, see `variants_of`.
        variant (`str`, *optional*): The one asked for; if left out, the plain files, or where there are none the only
            variant.

    Raises:
        ValueError: If no network has the variant, or there are several and none was asked for.
    """
    there = sorted({name for found in folders.values() for name in found if name is not None})
    if variant is not None:
        if variant not in there:
            raise ValueError(
                f"You are trying to load the model files of the `variant={variant}`, but there are "
                f"{', '.join(there) or 'only plain ones'}"
            )
        return variant
    lacking = [found for found in folders.values() if found and None not in found]
    if not lacking:
        return None
    common = sorted(map(str, set.intersection(*lacking)))
    if len(common) != 1:
        raise ValueError(f"the weights are of the variants {', '.join(there)}: choose one by variant")
    return common[0]


def read_json(path: Path) -> dict[str, Any]:
    """Reads an object from a file of JSON.

    Raises:
        ValueError: If it holds something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from None
    if not isinstance(value, dict):
        raise ValueError(f"cannot read {path}: an object in JSON is wanted, in braces")
    return value


def read_components(folder: Path) -> dict[str, tuple[str, str]]:
    """The components in a checkpoint's `model_index.json`, each with its library and class.

    Raises:
        ValueError: If it cannot be read, a name leads out of the folder, or a folder of one is absent.
    """
    index = read_json(folder / "model_index.json")
    entries = {
        name: entry
        for name, entry in index.items()
        if isinstance(entry, list) and entry[:1] not in ([], [None]) and name != "_class_name"
    }
    for name, entry in entries.items():
        if not (name.isidentifier() and len(entry) == 2 and all(isinstance(part, str) for part in entry)):
            raise ValueError(f"checkpoint {folder}: {name!r} in its model_index.json is no component; save it anew")
    components = {name: (entry[0], entry[1]) for name, entry in entries.items() if entry[0]}
    if absent := [name for name in components if not (folder / name).is_dir()]:
        raise ValueError(f"checkpoint {folder} lacks the folder {absent[0]}, which its model_index.json names")
    return components


def folder_variant(folder: Path, variant: str | None = None) -> str | None:
    """The variant of a checkpoint's networks to load, see `choose_variant`."""
    networks = [folder / name for name in read_components(folder) if (folder / name / "config.json").is_file()]
    try:
        return choose_variant({path.name: variants_of(path.iterdir(), path) for path in networks}, variant)
    except ValueError as error:
        raise ValueError(f"checkpoint {folder}: {error}") from error


def load_networks(
    folder: Path, names: Iterable[str], dtype: DtypeLike = None, variant: str | None = None
) -> dict[str, Any]:
    """Loads networks of a checkpoint. Every key must be in its files.

    Args:
        folder (`Path`): In Diffusers' layout.
        names (`Iterable[str]`): Components; those that are no networks are left out.
        dtype (`torch.dtype` or a mapping of components, *optional*): Precision; float32 if left out.
        variant (`str`, *optional*): See `choose_variant`.

    Raises:
        ValueError: If a network cannot be read, or its keys are not those of its class.
    """
    components = read_components(folder)
    return {
        name: _load_network(folder / name, *components[name], dtype_of(name, dtype), variant)
        for name in names
        if (folder / name / "config.json").is_file()
    }


def dtype_of(component: str, dtype: DtypeLike) -> torch.dtype:
    """The precision of a component; float32 if unspecified."""
    if isinstance(dtype, Mapping):
        dtype = dtype.get(component, dtype.get("default"))
    return dtype or torch.float32


def _load_network(
    folder: Path, library: str, class_name: str, dtype: torch.dtype, variant: str | None
) -> torch.nn.Module:
    if library not in COMPONENT_LIBRARIES:
        known = ", ".join(sorted(COMPONENT_LIBRARIES))
        raise ValueError(f"{folder.name} in checkpoint {folder.parent} is of library {library!r}; known are {known}")
    network_class = getattr(importlib.import_module(library), class_name, None)
    if network_class is None:
        raise ValueError(f"{folder.name} in checkpoint {folder.parent}: {library} has no {class_name}")
    return load_weights(folder, network_class, dtype, variant)


def load_weights(folder: Path, network_class: Any, dtype: torch.dtype, variant: str | None = None) -> Any:
    """Loads a network from its folder, and refuses weights that do not exactly match its class.

    Args:
        folder (`Path`): Holds `config.json` and safetensors.
        network_class (`type`): Of diffusers or transformers.
        dtype (`torch.dtype`): Precision.
        variant (`str`, *optional*): Of the weights; plain files if left out, or if there is none such.

    Raises:
        ValueError: If they cannot be read, or keys are missing, left over or of another shape.
    """
    found = variants_of(folder.iterdir(), folder)
    try:
        network, info = network_class.from_pretrained(
            folder,
            dtype=dtype,
            variant=variant if variant in found else None,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"the weights in {folder} cannot be read: {' '.join(str(error).split())}") from error
    for kind in ("missing", "unexpected", "mismatched"):
        if keys := sorted(map(str, info[f"{kind}_keys"])):
            raise ValueError(
                f"the weights in {folder} do not fit {network_class.__name__}: {len(keys)} {kind} keys, as {keys[0]}"
                f"{ADAPTER_ADVICE if any('lora_' in key for key in map(str, info['unexpected_keys'])) else ''}"
            )
    return network
