# pyright: reportAttributeAccessIssue=false
# accelerate's kinds of configuration have no common type.
"""What `accelerate launch` makes of the files in train/configs, by its own code and without starting anything."""

from argparse import Namespace
from pathlib import Path

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env

CONFIGS = Path(__file__).parents[2] / "train" / "configs"


def launched(name: str, *more: str) -> Namespace:
    """What `accelerate launch` makes of a file and a command line."""
    arguments = ["--config_file", str(CONFIGS / f"{name}.yaml"), *more, "train/train_faceswap.py", "--seed", "3"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    return args


def fsdp_environment(*more: str) -> dict[str, str]:
    """The variables by which a launched process knows of FSDP, with more on the command line."""
    return {name: value for name, value in prepare_multi_gpu_env(launched("fsdp", *more)).items() if "FSDP" in name}
