"""The files for `accelerate launch --config_file`: what they start, read by accelerate's own code."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils.dataclasses import get_module_class_from_name
from accelerate.utils.launch import (
    prepare_multi_gpu_env,
    prepare_simple_launcher_cmd_env,
)
from safetensors.torch import load_file

from tests.processes import finish, free_port, start_two
from tests.train import fsdp_steps
from tests.train.fsdp_steps import build_objective, build_optimizer, take_steps
from tests.train.launching import CONFIGS, fsdp_environment, launched

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("name", "distributed_type", "machines", "processes"),
    [
        ("gpu_1", "NO", 1, 1),
        ("gpu_8", "MULTI_GPU", 1, 8),
        ("gpu_2x8", "MULTI_GPU", 2, 16),
        ("fsdp", "FSDP", 1, 8),
    ],
)
def test_a_file_starts_as_many_processes_as_its_name_says(name, distributed_type, machines, processes):
    config = load_config_from_file(str(CONFIGS / f"{name}.yaml"))
    assert (config.distributed_type, config.num_machines, config.num_processes) == (
        distributed_type,
        machines,
        processes,
    )
    assert config.mixed_precision is None, "the script's --mixed_precision decides"


def test_every_file_is_tested_and_named_in_the_page():
    page = (ROOT / "train" / "README.md").read_text()
    for path in CONFIGS.iterdir():
        assert path.stem in {"gpu_1", "gpu_8", "gpu_2x8", "fsdp"}
        assert f"configs/{path.name}" in page


def test_one_gpu_starts_the_script_itself():
    command, environment = prepare_simple_launcher_cmd_env(launched("gpu_1"))
    assert command == [sys.executable, "train/train_faceswap.py", "--seed", "3"]
    assert "ACCELERATE_USE_FSDP" not in environment


def test_fewer_gpus_are_a_flag():
    args = launched("gpu_8", "--num_processes", "4")
    prepare_multi_gpu_env(args)
    assert int(args.nproc_per_node) == 4


@pytest.mark.parametrize("rank", [0, 1])
def test_two_hosts_meet_at_the_first_one(rank):
    args = launched("gpu_2x8", "--main_process_ip", "10.1.2.3", "--machine_rank", str(rank))
    prepare_multi_gpu_env(args)
    assert (int(args.nnodes), int(args.nproc_per_node), int(args.node_rank)) == (2, 8, rank)
    assert (args.rdzv_backend, args.rdzv_endpoint) == ("static", "10.1.2.3:29500")


@pytest.mark.slow
def test_two_launchers_make_one_run(tmp_path):
    """For real, with one process on each of two hosts that are both this one."""
    script = tmp_path / "script.py"
    script.write_text(
        "import accelerate\n"
        "state = accelerate.PartialState(cpu=True)\n"
        "print('RANKS', *accelerate.utils.gather_object([state.process_index]), 'OF', state.num_processes)\n"
        "state.wait_for_everyone()\n"  # the first host keeps the store that the other one still asks
        "state.destroy_process_group()\n"
    )
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", CONFIGS / "gpu_2x8.yaml"]
    more = ["--num_processes", "2", "--main_process_port", str(free_port())]
    hosts = [
        subprocess.Popen([*launcher, *more, "--machine_rank", str(rank), script], stdout=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    for host in hosts:
        output, _ = host.communicate(timeout=120)
        assert host.returncode == 0
        assert "RANKS 0 1 OF 2" in output


def test_fsdp_gets_its_second_version_and_the_units_of_the_objective():
    environment = fsdp_environment()
    assert environment["ACCELERATE_USE_FSDP"] == "true"
    assert environment["FSDP_VERSION"] == "2"
    assert environment["FSDP_RESHARD_AFTER_FORWARD"] == "true"
    objective = build_objective()
    for name in environment["FSDP_TRANSFORMER_CLS_TO_WRAP"].split(","):
        assert get_module_class_from_name(objective, name) is not None, name
    ignored = [
        module for name, module in objective.named_modules() if re.fullmatch(environment["FSDP_IGNORED_MODULES"], name)
    ]
    assert ignored == [objective.conditioner.identity_encoder]


def test_fsdp_without_resharding_is_a_flag():
    assert fsdp_environment("--fsdp_reshard_after_forward", "false")["FSDP_RESHARD_AFTER_FORWARD"] == "false"


@pytest.mark.slow
def test_two_processes_with_the_units_of_fsdp_train_like_one(tmp_path):
    """Their weights are gathered after two steps, after a swap with the divided networks, and after another step."""
    path = tmp_path / "weights.safetensors"
    finish(*start_two(fsdp_steps.main, str(path), ACCELERATE_USE_CPU="1", **fsdp_environment()))
    objective = build_objective()
    take_steps(objective, build_optimizer(objective), num_processes=2)
    got = load_file(path)
    for name, tensor in objective.state_dict().items():
        torch.testing.assert_close(got[name], tensor, rtol=1e-3, atol=5e-5, msg=name)
