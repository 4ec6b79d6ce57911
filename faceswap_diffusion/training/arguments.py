# pyright: reportOperatorIssue=false
# jsonargparse makes its kinds of numbers at run time.
"""Arguments that the training scripts of the swap model share: how it is optimised, and what becomes of it."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from faceswap_diffusion.pipelines.faceswap_inpaint import HIDDEN_FILLS
from faceswap_diffusion.training.data.batches import SampleSettings
from faceswap_diffusion.training.data.references import ReferenceFaults
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT

REFERENCE = "reference_"
"""What the names of options begin with that are fields of `ReferenceFaults`."""

VARIATIONS: dict[str, Any] = {
    "pair_probability": ClosedUnitInterval,
    "identity_noise": NonNegativeFloat,
    "landmark_noise": NonNegativeFloat,
    "warped_masks": ClosedUnitInterval,
    "geometry_share": ClosedUnitInterval,
    "occluded_targets": ClosedUnitInterval,
}
"""Fields of `SampleSettings` that are options, and the kinds of their values."""

FAULTS: dict[str, Any] = {
    "cycled": ClosedUnitInterval,
    "misaligned": NonNegativeFloat,
    "shaded": NonNegativeFloat,
    "toned": NonNegativeFloat,
    "blurred": ClosedUnitInterval,
    "holed": ClosedUnitInterval,
    "bare": ClosedUnitInterval,
    "toothless": ClosedUnitInterval,
    "occluded": ClosedUnitInterval,
}
"""Fields of `ReferenceFaults`, likewise."""

SAMPLE_ARGUMENTS = ("mask_sets", *VARIATIONS, *(REFERENCE + name for name in FAULTS))
"""Options that decide what samples are made of faces."""


def build_parser(script: str, description: str | None) -> ArgumentParser:
    """A parser that takes a file of settings as well as flags.

    Args:
        script (`str`): Name of the script.
        description (`str`): Its docstring.
    """
    parser = ArgumentParser(prog=script, description=description)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags after it win")
    return parser


def add_data_arguments(parser: ArgumentParser) -> None:
    """Adds which faces are trained on, and how samples are made of them.

    Args:
        parser (`ArgumentParser`): To add to.
    """
    group = parser.add_argument_group("data")
    group.add_argument("--train_data_dir", type=str, nargs="+", required=True, help="folders of prepare_faces.py")
    add_sample_arguments(parser)


def add_cached_data_arguments(parser: ArgumentParser) -> None:
    """Adds which faces are trained on, or which samples that are encoded already.

    Args:
        parser (`ArgumentParser`): To add to.
    """
    group = parser.add_argument_group("data")
    group.add_argument("--train_data_dir", type=str, nargs="+", help="folders of prepare_faces.py")
    group.add_argument(
        "--latents_dir", type=Path, help="folder of cache_latents.py, in place of them: the plain denoising loss alone"
    )
    group.add_argument(
        "--latent_window", type=PositiveInt | None, help="side in latents of what is seen of each, round its mask"
    )


def add_sample_arguments(parser: ArgumentParser) -> None:
    """Adds how samples are made of faces.

    Args:
        parser (`ArgumentParser`): To add to.
    """
    group = parser.add_argument_group("samples")
    group.add_argument(
        "--mask_sets",
        type=str,
        nargs="+",
        default=["face=0.6", "head=0.3", "features=0.1"],
        help="what is hidden of the target and shown of the source, drawn for each sample",
    )
    add_settings(group, SampleSettings, VARIATIONS)
    add_reference_arguments(parser)


def add_reference_arguments(parser: ArgumentParser) -> None:
    """Adds how references are made wrong.

    Args:
        parser (`ArgumentParser`): To add to.
    """
    group = parser.add_argument_group("references", "how they are made wrong, where hidden_fill is reference")
    add_settings(group, ReferenceFaults, FAULTS, REFERENCE)


def add_settings(group: Any, kind: type, types: Mapping[str, Any], prefix: str = "") -> None:
    """Adds fields of a dataclass as options, with its own defaults and descriptions.

    Args:
        group (`ArgumentParser` or group of one): To add to.
        kind (`type`): The dataclass; `script.settings_of` makes one of the options.
        types (`Mapping[str, Any]`): Kinds of values by field.
        prefix (`str`): What the options' names begin with.
    """
    defaults = {field.name: field.default for field in fields(kind)}
    told = dict(re.findall(r"^    (\w+) \(.*?\): (.*(?:\n     +.*)*)", inspect.getdoc(kind) or "", re.MULTILINE))
    for name, type_ in types.items():
        group.add_argument(f"--{prefix}{name}", type=type_, default=defaults[name], help=" ".join(told[name].split()))


def add_model_arguments(parser: ArgumentParser) -> Any:
    """Adds which checkpoint is gone on from, and what is changed of it; returns the group.

    Args:
        parser (`ArgumentParser`): To add to.
    """
    group = parser.add_argument_group("model")
    group.add_argument(
        "--pretrained_model_name_or_path",
        type=str,
        default=str(EMBEDDED_CHECKPOINT),
        help="checkpoint to go on from: folder or Hub id; the package's if left out",
    )
    group.add_argument("--variant", type=str, help="of its weights, as fp16; plain files, or else the only variant")
    group.add_argument("--new_vae", type=Path, help="exchange the checkpoint's autoencoder for this finished one")
    group.add_argument(
        "--crop_size",
        type=PositiveInt | None,
        help="side of the crops in pixels; the checkpoint's if left out, and 128 for a new model",
    )
    group.add_argument(
        "--hidden_fill",
        type=Literal[HIDDEN_FILLS] | None,
        help="what the target shows where its face is hidden; as the checkpoint has it if left out",
    )
    return group


def add_optimization_arguments(parser: ArgumentParser, learning_rate: float, ema_decay: float) -> None:
    """Adds batch sizes, optimiser, schedule and precision.

    Args:
        parser (`ArgumentParser`): To add to.
        learning_rate (`float`): Default.
        ema_decay (`float`): Default.
    """
    group = parser.add_argument_group("optimization")
    group.add_argument("--train_batch_size", type=PositiveInt, default=16, help="of each process")
    group.add_argument("--gradient_accumulation_steps", type=PositiveInt, default=1)
    group.add_argument("--max_train_steps", type=PositiveInt, default=1000)
    group.add_argument("--learning_rate", type=PositiveFloat, default=learning_rate)
    group.add_argument(
        "--lr_scheduler", type=Literal["constant", "constant_with_warmup", "linear", "cosine"], default="cosine"
    )
    group.add_argument("--lr_warmup_steps", type=NonNegativeInt, default=100)
    group.add_argument("--weight_decay", type=NonNegativeFloat, default=0.01)
    group.add_argument("--max_grad_norm", type=PositiveFloat, default=1.0)
    group.add_argument("--ema_decay", type=ClosedUnitInterval, default=ema_decay, help="0: no running average")
    group.add_argument("--use_8bit_adam", action="store_true", help="bitsandbytes'; NVIDIA GPUs only")
    group.add_argument("--mixed_precision", type=Literal["no", "fp16", "bf16"], default="no")
    group.add_argument("--allow_tf32", action="store_true")
    group.add_argument("--gradient_checkpointing", action="store_true")
    group.add_argument("--enable_xformers_memory_efficient_attention", action="store_true")
    group.add_argument("--torch_compile", action="store_true")
    group.add_argument("--dataloader_num_workers", type=NonNegativeInt, default=2)
    group.add_argument("--seed", type=NonNegativeInt, default=0)


def add_output_arguments(parser: ArgumentParser) -> None:
    """Adds where to write, how often, whom to report to, and the upload.

    Args:
        parser (`ArgumentParser`): To add to.
    """
    group = parser.add_argument_group("output")
    group.add_argument("--output_dir", type=Path, required=True, help="receives states, swaps, curves, the checkpoint")
    group.add_argument("--checkpointing_steps", type=PositiveInt, default=250)
    group.add_argument("--checkpoints_total_limit", type=PositiveInt | None, default=2, help="older states go")
    group.add_argument("--validation_data_dir", type=str, nargs="+", help="folders that validation swaps are made of")
    group.add_argument("--num_validation", type=PositiveInt, default=24, help="faces taken of them")
    group.add_argument("--validation_steps", type=PositiveInt, default=250)
    group.add_argument("--report_to", type=Literal["tensorboard", "wandb", "trackio", "none"], default="tensorboard")
    group.add_argument("--tracker_project_name", type=str, default="faceswap-diffusion")
    group.add_argument("--license", type=str, help="of the trained weights, for the model card")
    group.add_argument("--push_to_hub", action="store_true")
    group.add_argument("--hub_model_id", type=str, help="owner/name; the output folder's name if left out")
    group.add_argument("--hub_private", action="store_true")


def add_small_run_arguments(parser: ArgumentParser, batch_size: int, num_steps: int, learning_rate: float) -> None:
    """Adds what `take_steps` needs: the run of a small network that becomes part of a swap model.

    Args:
        parser (`ArgumentParser`): To add to.
        batch_size (`int`): Default.
        num_steps (`int`): Default.
        learning_rate (`float`): Default.
    """
    group = parser.add_argument_group("run")
    group.add_argument("--output_dir", type=Path, required=True, help="receives states and the finished network")
    group.add_argument("--train_batch_size", type=PositiveInt, default=batch_size, help="of each process")
    group.add_argument("--max_train_steps", type=PositiveInt, default=num_steps)
    group.add_argument("--learning_rate", type=PositiveFloat, default=learning_rate)
    group.add_argument("--mixed_precision", type=Literal["no", "fp16", "bf16"], default="no")
    group.add_argument("--checkpointing_steps", type=PositiveInt, default=250)
    group.add_argument("--dataloader_num_workers", type=NonNegativeInt, default=0)
    group.add_argument("--seed", type=NonNegativeInt, default=0)
