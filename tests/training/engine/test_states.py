"""States of a run: exact, whole or not at all, the same files however many processes write them."""

import json
import os
import re
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from faceswap_diffusion.training.engine.states import StateNotSavedError, gather, load_state, save_state, saved_steps
from tests.processes import finish
from tests.training.engine.small_run import build_parts, fresh_accelerator, start, start_two, take_step

FILES = ("model.safetensors", "optimizer.safetensors", "ema.safetensors", "state.json")


@pytest.fixture
def accelerator() -> Accelerator:
    return fresh_accelerator()


def train(accelerator: Accelerator, folder: Path, steps: int, **settings: object):
    """Goes on until so many steps, and saves."""
    parts = build_parts(accelerator, **settings)
    for step in range(load_state(accelerator, folder, parts), steps):
        take_step(accelerator, parts, step)
    save_state(accelerator, folder, steps, parts, total_limit=None)
    return parts


def assert_same_state(first: Path, second: Path) -> None:
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes(), name


@pytest.mark.parametrize("stop", [0, 1, 4])
def test_going_on_ends_at_the_same_bits(accelerator, tmp_path, stop):
    train(accelerator, tmp_path / "undisturbed", 6)
    train(accelerator, tmp_path / "stopped", stop)
    train(accelerator, tmp_path / "stopped", 6)
    assert_same_state(tmp_path / "undisturbed" / "step_000006", tmp_path / "stopped" / "step_000006")


def test_going_on_in_a_new_process_ends_at_the_same_bits(accelerator, tmp_path):
    train(accelerator, tmp_path / "undisturbed", 6)
    train(accelerator, tmp_path / "stopped", 4)
    output = finish(start(tmp_path / "stopped", 6))
    assert re.findall("^step .*", output, re.MULTILINE) == ["step 5", "step 6"]
    assert_same_state(tmp_path / "undisturbed" / "step_000006", tmp_path / "stopped" / "step_000006")


def test_a_state_holds_what_is_trained_and_what_changes_with_it(accelerator, tmp_path):
    parts = train(accelerator, tmp_path, 3)
    state = tmp_path / "step_000003"
    assert {path.name for path in state.iterdir()} == set(FILES)
    model = load_file(state / "model.safetensors")
    assert torch.equal(model["generator.0.weight"], parts.model.generator[0].weight)
    assert torch.equal(model["generator.1.running_mean"], parts.model.generator[1].running_mean)
    assert "discriminator.layers.0.parametrizations.weight.0._u" in model
    assert not any(name.startswith("frozen") for name in model)
    optimizer = load_file(state / "optimizer.safetensors")
    assert optimizer["generator.0.weight.step"] == 3
    assert optimizer["discriminator.layers.0.bias.step"] == 1
    numbers = json.loads((state / "state.json").read_text())
    assert (numbers["step"], numbers["ema"]["optimization_step"], numbers["lr_scheduler"]["last_epoch"]) == (3, 3, 3)
    assert [group["betas"] for group in numbers["optimizer"]["param_groups"]] == [[0.9, 0.99], [0.5, 0.99]]
    assert len(load_file(state / "ema.safetensors")) == len(list(parts.model.generator.parameters()))


def test_loading_brings_back_every_part(accelerator, tmp_path):
    saved = train(accelerator, tmp_path, 4)
    loaded = build_parts(accelerator)
    assert load_state(accelerator, tmp_path, loaded) == 4
    for (name, tensor), other in zip(
        saved.model.state_dict().items(), loaded.model.state_dict().values(), strict=True
    ):
        assert torch.equal(tensor, other), name
    for mine, other in zip(saved.ema.shadow_params, loaded.ema.shadow_params, strict=True):
        assert torch.equal(mine, other)
    assert loaded.ema.optimization_step == 4
    assert loaded.lr_scheduler.get_last_lr() == saved.lr_scheduler.get_last_lr()
    assert loaded.optimizer.param_groups[0]["lr"] == saved.optimizer.param_groups[0]["lr"]
    assert loaded.optimizer.param_groups[1]["betas"] == (0.5, 0.99)
    weight = loaded.model.generator[0].weight
    assert loaded.optimizer.state[weight]["exp_avg"].stride() == weight.stride()  # channels_last


def test_without_a_state_a_run_begins(accelerator, tmp_path):
    parts = build_parts(accelerator)
    before = parts.model.generator[0].weight.clone()
    assert load_state(accelerator, tmp_path / "none", parts) == 0
    assert torch.equal(parts.model.generator[0].weight, before)


def test_only_the_process_that_writes_keeps_whole_tensors():
    tensors = {"a": torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T), "b": torch.tensor(1.0)}
    assert gather(tensors, keep=False) == {}
    kept = gather(tensors, keep=True)
    assert {name: tensor.tolist() for name, tensor in kept.items()} == {"a": [[0, 3], [1, 4], [2, 5]], "b": 1}
    assert kept["a"].is_contiguous()
    assert not kept["a"].requires_grad


def test_the_newest_states_are_kept(accelerator, tmp_path):
    parts = build_parts(accelerator)
    for step in (1, 2, 3, 10):
        assert save_state(accelerator, tmp_path, step, parts, total_limit=2) == tmp_path / f"step_{step:06}"
    assert saved_steps(tmp_path) == [3, 10]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000003", "step_000010"]
    save_state(accelerator, tmp_path, 11, parts, total_limit=None)
    assert saved_steps(tmp_path) == [3, 10, 11]


def test_left_overs_of_killed_runs_are_no_states_and_are_removed(accelerator, tmp_path):
    train(accelerator, tmp_path, 1)
    for name in (".unfinished-1", ".unfinished-2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    parts = build_parts(accelerator)
    assert load_state(accelerator, tmp_path, parts) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["step_000001"]
    (tmp_path / ".unfinished-3").mkdir()
    save_state(accelerator, tmp_path, 2, parts, total_limit=2)
    assert saved_steps(tmp_path) == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000001", "step_000002"]


def test_a_state_of_the_step_that_is_there_stays(accelerator, tmp_path):
    parts = train(accelerator, tmp_path, 1)
    before = (tmp_path / "step_000001" / "model.safetensors").read_bytes()
    take_step(accelerator, parts, 1)
    save_state(accelerator, tmp_path, 1, parts, total_limit=1)
    assert (tmp_path / "step_000001" / "model.safetensors").read_bytes() == before


def test_other_settings_are_named_with_what_they_were_and_are(accelerator, tmp_path):
    train(accelerator, tmp_path, 1, global_batch_size=4, sets=("face", "head"))
    parts = build_parts(accelerator, global_batch_size=8, sets=("face", "head"), compiled=True)
    before = parts.model.generator[0].weight.clone()
    with pytest.raises(ValueError, match="other settings") as error:
        load_state(accelerator, tmp_path, parts)
    assert "step_000001" in str(error.value)
    assert "global_batch_size was 4 and is 8, compiled was null and is true;" in str(error.value)
    assert "another --output_dir" in str(error.value)
    assert torch.equal(parts.model.generator[0].weight, before)


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_state_is_named_and_not_passed_over(accelerator, tmp_path, name):
    train(accelerator, tmp_path, 1)
    train(accelerator, tmp_path, 2)
    path = tmp_path / "step_000002" / name
    os.truncate(path, path.stat().st_size - 20)
    with pytest.raises(ValueError, match="is damaged") as error:
        load_state(accelerator, tmp_path, build_parts(accelerator))
    assert str(path) in str(error.value)
    assert f"remove {path.parent} to go on from step 1" in str(error.value)


def test_a_state_of_another_model_is_refused(accelerator, tmp_path):
    train(accelerator, tmp_path, 1)
    parts = build_parts(accelerator)
    parts.model.generator.append(torch.nn.BatchNorm2d(3))
    with pytest.raises(ValueError, match=r"5 tensors of its model .* generator\.3\.bias"):
        load_state(accelerator, tmp_path, parts)


def test_a_full_disk_leaves_the_states_before_usable(accelerator, tmp_path):
    """The limit on the size of a file stops the optimiser's file half-way, as a full disk would."""
    train(accelerator, tmp_path, 2)
    sizes = {name: (tmp_path / "step_000002" / name).stat().st_size for name in FILES}
    limit = (sizes["model.safetensors"] + sizes["optimizer.safetensors"]) // 2
    process = start(tmp_path, 4, "--file_size", limit)
    _, errors = process.communicate()
    assert process.returncode == 1
    (line,) = errors.strip().splitlines()[-1:]
    assert line.startswith("StateNotSavedError: cannot save the state of step 3")
    assert f"the last good state is {tmp_path / 'step_000002'}" in line
    assert [path.name for path in tmp_path.iterdir()] == ["step_000002"]
    train(accelerator, tmp_path / "undisturbed", 4)
    train(accelerator, tmp_path, 4)
    assert_same_state(tmp_path / "undisturbed" / "step_000004", tmp_path / "step_000004")


def test_a_folder_that_cannot_be_made_is_a_state_not_saved(accelerator, tmp_path):
    (tmp_path / "states").write_text("a file")
    with pytest.raises(StateNotSavedError, match=r"step 1 .*there is none before it"):
        save_state(accelerator, tmp_path / "states", 1, build_parts(accelerator), total_limit=1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="ddp"),
        pytest.param(("--sharded",), id="fsdp2"),
    ],
)
def test_two_processes_go_on_at_the_same_bits_and_one_reads_their_state(accelerator, tmp_path, options):
    for folder, steps in (("undisturbed", 5), ("stopped", 3), ("stopped", 5)):
        finish(*start_two(tmp_path / folder, steps, *options))
    state = tmp_path / "stopped" / "step_000005"
    assert_same_state(tmp_path / "undisturbed" / "step_000005", state)
    alone = train(accelerator, tmp_path / "alone", 3)
    assert set(load_file(state / "model.safetensors")) == set(
        load_file(tmp_path / "alone" / "step_000003" / "model.safetensors")
    )
    parts = build_parts(accelerator)
    assert load_state(accelerator, tmp_path / "stopped", parts) == 5
    weight = load_file(state / "model.safetensors")["generator.0.weight"]
    assert torch.equal(parts.model.generator[0].weight, weight)
    assert not torch.equal(alone.model.generator[0].weight, weight)


@pytest.mark.slow
def test_all_processes_are_told_of_a_full_disk(tmp_path):
    for program in start_two(tmp_path, 4, "--file_size", 4000):
        _, errors = program.communicate()
        assert program.returncode == 1
        assert "StateNotSavedError: cannot save the state of step 1" in errors
