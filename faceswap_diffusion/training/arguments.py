# pyright: reportOperatorIssue=false
# jsonargparse makes its kinds of numbers at run time.
"""Arguments that the training scripts of the swap model share: how it is optimised, and what becomes of it."""

from pathlib import Path
from typing import Literal

from jsonargparse import ArgumentParser
from jsonargparse.typing import ClosedUnitInterval, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt


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
    group.add_argument(
        "--mask_sets",
        type=str,
        nargs="+",
        default=["face=0.6", "head=0.3", "features=0.1"],
        help="what is hidden of the target and shown of the source, drawn for each sample",
    )
    group.add_argument(
        "--pair_probability",
        type=ClosedUnitInterval,
        default=0.5,
        help="how often another picture of the same person is the source, where there is one",
    )


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
