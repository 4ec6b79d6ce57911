"""The files of a Hub repository besides the weights, and its upload.

Diffusers refuses a Hub id whose `model_index.json` names a component class of a third-party package, unless a file
`faceswap_diffusion.py` is in the component's folder of the repository; `pipeline.py` serves
`DiffusionPipeline.from_pretrained`, which finds it by `_class_name` in `model_index.json`. Both only re-export the
installed package. The folder `pipelines/faceswap_inpaint` shows them.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.utils import logging
from huggingface_hub import CommitOperationAdd, create_commit, create_repo

from faceswap_diffusion.weights.card import CARD, OWN_NAME, Origin, named, write_card
from faceswap_diffusion.weights.checkpoints import FEW_STEPS_FOLDER, PARSER_FOLDER
from faceswap_diffusion.weights.folders import (
    EMBEDDED_CHECKPOINT,
    checkpoint_folder,
    folder_variant,
    load_networks,
    read_components,
)

if TYPE_CHECKING:
    from typing_extensions import Self

logger = logging.get_logger(__name__)

HUB_ARGUMENTS = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")
OURS = ("conditioner", "safety_checker")
"""Components whose classes are of this package, so that diffusers cannot load them."""

LEFT_TO_DIFFUSERS = (
    "device_map", "quantization_config", "max_memory", "offload_folder", "offload_state_dict", "low_cpu_mem_usage",
    "use_flashpack", "disable_mmap",
)  # fmt: skip
"""Arguments of `from_pretrained` that diffusers applies only to networks which it loads itself."""

CARD_TAGS = ("face-swap", "inpainting")

CONSENT = """Swap faces only of people who agreed to it, and leave in place the metadata that says a picture was made \
with AI.
"""


def swap_example(checkpoint: str) -> str:
    """The example of a model card, in Markdown: a swap from photo to photo.

    Args:
        checkpoint (`str`): Hub id or folder.
    """
    return f"""```py
from faceswap_diffusion import FaceSwapper

FaceSwapper.from_pretrained("{checkpoint}").swap("source.jpg", "target.jpg").save("swapped.png")
```
"""


COMPONENT_FILE = '''"""The components of our own; they need `pip install faceswap-diffusion`."""

from faceswap_diffusion import FaceConditioner, SafetyChecker  # noqa: F401
'''

HUB_FILES = {
    "pipeline.py": '''"""The pipeline, for `custom_pipeline`; it needs `pip install faceswap-diffusion`."""

from faceswap_diffusion import FaceSwapInpaintPipeline  # noqa: F401
''',
    # Diffusers may take one for the other, as they have one name.
    **{f"{name}/faceswap_diffusion.py": COMPONENT_FILE for name in OURS},
    "README.md": f"""---
library_name: diffusers
pipeline_tag: image-to-image
tags:
- {CARD_TAGS[0]}
- {CARD_TAGS[1]}
---

# Face swapping by diffusion

A pipeline for the package `faceswap-diffusion`: it repaints the face of an aligned crop with the identity of a source.

```py
from faceswap_diffusion import FaceSwapInpaintPipeline

pipe = FaceSwapInpaintPipeline.from_pretrained("{OWN_NAME}")
```

From photo to photo:

{swap_example(OWN_NAME)}
{CONSENT}""",
}


def write_hub_files(folder: str | os.PathLike) -> None:
    """Adds the files that make a saved pipeline loadable as a Hub repository. An existing model card is kept.

    Args:
        folder (`str` or `os.PathLike`): Where `save_pretrained` wrote to.
    """
    for name, text in HUB_FILES.items():
        path = Path(folder, name)
        if path.parent.is_dir() and not (name == "README.md" and path.exists()):
            path.write_text(text, encoding="utf-8")
    _name_module(Path(folder, "model_index.json"))


def _name_module(index: Path) -> None:
    """Writes into a `model_index.json` that the pipeline's class is in the module `pipeline` beside it."""
    config = json.loads(index.read_text(encoding="utf-8"))
    if isinstance(config["_class_name"], str):
        config["_class_name"] = ["pipeline", config["_class_name"]]
        index.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def remove_origins(folder: str | os.PathLike) -> None:
    """Removes local paths, from which components were loaded, from the configurations of a saved pipeline.

    Args:
        folder (`str` or `os.PathLike`): Where `save_pretrained` wrote to.
    """
    for path in Path(folder).rglob("*.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload FaceSwapInpaintPipeline",
    create_pr: bool = False,
) -> str:
    """Uploads a folder, and creates the repository if it does not exist. The card is told the repository's name.

    Args:
        folder (`str` or `os.PathLike`): What to upload.
        repo_id (`str`): `name` or `organisation/name`.
        private (`bool`, *optional*): Whether a new repository is private; the organisation's default if left out.
        token (`str`, *optional*): Access token; the stored one if left out.
        commit_message (`str`): Of the commit.
        create_pr (`bool`): Whether to open a pull request instead of committing.

    Returns:
        `str`: URL of the commit.
    """
    repo_id = create_repo(repo_id, private=private, token=token, exist_ok=True).repo_id
    files = {path.relative_to(folder).as_posix(): path for path in sorted(Path(folder).rglob("*")) if path.is_file()}
    contents: dict[str, Path | bytes] = {**files}
    if CARD in files:
        contents[CARD] = named(files[CARD].read_text(encoding="utf-8"), repo_id).encode()
    operations = [CommitOperationAdd(name, content) for name, content in contents.items()]
    commit = create_commit(repo_id, operations, commit_message=commit_message, token=token, create_pr=create_pr)
    return commit.commit_url


def _pop_dtype(arguments: dict[str, Any]) -> torch.dtype | dict[str, torch.dtype]:
    """Removes the precision from the arguments of `from_pretrained` and returns it; float32 if there is none."""
    old_name = arguments.pop("torch_dtype", None)
    dtype = arguments.pop("dtype", None)
    return (old_name if dtype is None else dtype) or torch.float32


def _loaded_here(folder: Path, arguments: dict[str, Any]) -> list[str]:
    """The components that are loaded here and not by diffusers, because its own options do not apply to them."""
    names = [name for name in read_components(folder) if name not in arguments]
    is_placed = any(arguments.get(name) is not None for name in LEFT_TO_DIFFUSERS)
    return [name for name in names if name in OURS or not is_placed]


class HubPipeline(DiffusionPipeline):
    """A pipeline with a `FaceConditioner`, saved and loaded as safetensors, from a Hub id without a trust flag."""

    origin: Origin | None = None
    """Where it was loaded from."""

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """Reads `model_index.json`. That the class is in a file of the repository does not count: it is this one."""
        loaded = super().load_config(*args, **kwargs)
        for config in loaded if isinstance(loaded, tuple) else (loaded,):
            if isinstance(config.get("_class_name"), list):
                config["_class_name"] = config["_class_name"][-1]
        return loaded

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike | None = None, **kwargs: Any) -> "Self":
        """Loads a pipeline from a folder or a Hub id. It reads only safetensors, and all weights are the checkpoint's.

        Loading the networks here, by name, is what makes a trust flag unnecessary: diffusers would import
        `FaceConditioner` from a file in the repository.

        Args:
            pretrained_model_name_or_path (`str` or `os.PathLike`, *optional*): Folder or Hub id; the small checkpoint
                inside the package if left out.
            kwargs: As for [`DiffusionPipeline.from_pretrained`], and `subfolder`. Without `dtype` all networks are
                in float32; without `variant` they come from plain files, or where there are none from the only
                variant.

        Raises:
            ValueError: If weights are missing, are too many or do not fit, or there are only pickled ones.
        """
        if kwargs.setdefault("use_safetensors", True) is not True:
            raise ValueError("use_safetensors has to be True: pickled weights are not read")
        name = str(pretrained_model_name_or_path or EMBEDDED_CHECKPOINT)
        dtype = _pop_dtype(kwargs)
        hub = {key: kwargs.pop(key) for key in HUB_ARGUMENTS if key in kwargs}
        try:
            folder = checkpoint_folder(name, variant=kwargs.get("variant"), **hub)
            kwargs["variant"] = folder_variant(folder, kwargs.get("variant"))
            networks = load_networks(folder, _loaded_here(folder, kwargs), dtype, kwargs["variant"])
        except ValueError as error:
            raise ValueError(f"no pipeline with safetensors at {name}: {error}") from error
        if kwargs.get("device_map") not in (None, "balanced"):
            for name in networks.keys() & OURS:
                networks[name].to(kwargs["device_map"])
        cls._mend_networks(networks, cls.load_config(folder))
        try:
            pipeline = super().from_pretrained(folder, dtype=dtype, **networks, **kwargs)
        except OSError as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"no pipeline with safetensors at {name}: {reason}") from error
        pipeline.register_to_config(_name_or_path=name)
        pipeline.origin = Origin(name, folder)
        return pipeline

    @classmethod
    def _mend_networks(cls, networks: dict[str, Any], config: Any) -> None:
        """Updates the configurations of networks in older checkpoints; subclasses override it."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike,
        safe_serialization: bool = True,
        push_to_hub: bool = False,
        **kwargs: Any,
    ) -> None:
        """Saves in Diffusers' layout, as safetensors, with the files that a Hub repository needs (see `hub`).

        Args:
            save_directory (`str` or `os.PathLike`): Folder, made if there is none.
            safe_serialization (`bool`): Has to be `True`; anything else is warned of.
            push_to_hub (`bool`): Not taken: call `push_to_hub`.
            kwargs: `variant` and `max_shard_size`, as for [`DiffusionPipeline.save_pretrained`].

        Raises:
            ValueError: If a network holds a LoRA, with which its folder would fit no class.
        """
        if push_to_hub:
            raise ValueError("save_pretrained does not upload: call push_to_hub(repo_id)")
        self._refuse_adapters()
        if not safe_serialization:
            logger.warning("safe_serialization=False is not followed: weights are saved as safetensors only.")
        super().save_pretrained(save_directory, **kwargs)
        remove_origins(save_directory)
        write_hub_files(save_directory)

    def _refuse_adapters(self) -> None:
        adapted = [name for name, part in self.components.items() if getattr(part, "peft_config", None)]
        if adapted:
            raise ValueError(
                f"the {adapted[0]} holds a LoRA, with which its folder could not be loaded: call unload_lora_weights "
                "first to save the checkpoint without it, or fuse_lora and unload_lora_weights to save both in one"
            )

    def push_to_hub(
        self,
        repo_id: str,
        variant: str | None = None,
        max_shard_size: int | str | None = None,
        thumbnail: str | os.PathLike | None = None,
        evaluation: str | os.PathLike | None = None,
        **kwargs: Any,
    ) -> str:
        """Saves the pipeline and uploads it, so that `from_pretrained(repo_id)` needs no trust flag.

        The card names the repository, and inherits licence and text from that of the checkpoint which was loaded. Its
        face parser comes along, and its few-step version if the UNet is still the same.

        Args:
            repo_id (`str`): `name` or `organisation/name`.
            variant (`str`, *optional*): Goes into the names of the weight files, as `"fp16"`.
            max_shard_size (`int | str`, *optional*): Size of a file of weights above which it is cut, as `"5GB"`.
            thumbnail (`str | os.PathLike`, *optional*): A picture for the card, as `SwapResult.save` wrote it.
            evaluation (`str | os.PathLike`, *optional*): Folder of a report by `faceswap-diffusion evaluate`, whose
                figures the card shows, in a form that the Hub reads (model-index) as well.
            kwargs: `private`, `token`, `commit_message` and `create_pr`, see `hub.push_folder`.

        Returns:
            `str`: URL of the commit.

        Raises:
            ValueError: If a network holds a LoRA, see `save_pretrained`; if there is no such picture or report.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, variant=variant, max_shard_size=max_shard_size)
            if self.origin is not None:
                self._carry_along(self.origin.folder, Path(folder))
            picture, report = (None if path is None else Path(path) for path in (thumbnail, evaluation))
            write_card(Path(folder), repo_id, self.origin, picture, report)
            return push_folder(folder, repo_id, **kwargs)

    def _carry_along(self, origin: Path, folder: Path) -> None:
        """Copies what belongs to a checkpoint and is no component."""
        if (origin / PARSER_FOLDER).is_dir():
            shutil.copytree(origin / PARSER_FOLDER, folder / PARSER_FOLDER)
        if (origin / FEW_STEPS_FOLDER).is_dir() and self._has_unet_of(origin):
            shutil.copytree(origin / FEW_STEPS_FOLDER, folder / FEW_STEPS_FOLDER)

    def _has_unet_of(self, folder: Path) -> bool:
        unet: Any = self.components["unet"]
        theirs = load_networks(folder, ["unet"], unet.dtype, folder_variant(folder))["unet"].state_dict()
        return all(torch.equal(value.cpu(), theirs[key]) for key, value in unet.state_dict().items())
