# pyright: reportAttributeAccessIssue=false
# accelerate's kinds of configuration have no common type.
"""What `accelerate launch` makes of the files in train/configs, by its own code and without starting anything."""

from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

import pytest
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

CONFIGS = Path(__file__).parents[2] / "train" / "configs"

# It is built when it is installed, and so no dependency.
without_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="DeepSpeed is not installed")


def launched(name: str, *more: str) -> Namespace:
    """What `accelerate launch` makes of a file and a command line."""
    arguments = ["--config_file", str(CONFIGS / f"{name}.yaml"), *more, "train/train_faceswap.py", "--seed", "3"]
    args, config, _ = _validate_launch_command(launch_command_parser().parse_args(arguments))
    args.deepspeed_fields_from_accelerate_config = ",".join(config.deepspeed_config)  # as `launch_command` does
    return args


def fsdp_environment() -> dict[str, str]:
    """The variables by which a launched process knows of FSDP."""
    return {name: value for name, value in prepare_multi_gpu_env(launched("fsdp")).items() if "FSDP" in name}


def zero_2_environment() -> dict[str, str]:
    """The variables by which a launched process knows of DeepSpeed."""
    _, environment = prepare_deepspeed_cmd_env(launched("zero_2"))
    return {name: value for name, value in environment.items() if "DEEPSPEED" in name}
