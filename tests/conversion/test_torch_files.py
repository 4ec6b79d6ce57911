"""Weights of PyTorch's files: the same as PyTorch reads, without running what is pickled."""

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from faceswap_diffusion.conversion.torch_files import read_checkpoint
from tests.parity.reduced import lightning_file
from tests.weights.test_pickled import Call


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    shared = torch.randn(4, 6)
    return {
        "matrix": shared,
        "turned": shared.t(),
        "part": shared[1:3, 2:5],
        "number": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.randn(5).half(),
        "brain": torch.randn(3).bfloat16(),
        "double": torch.randn(2).double(),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.randn(3)),
    }


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("wrapped", [True, False], ids=["lightning", "plain"])
def test_weights_are_read_to_the_bit(tmp_path: Path, as_zip: bool, wrapped: bool):
    wanted = weights()
    path = tmp_path / "last.ckpt"
    torch.save(lightning_file(wanted) if wrapped else wanted, path, _use_new_zipfile_serialization=as_zip)
    checkpoint = read_checkpoint(path)
    assert list(checkpoint.weights) == list(wanted)
    for key, weight in wanted.items():
        got = checkpoint.weights[key]
        assert got.dtype == weight.dtype
        assert got.shape == weight.shape
        assert torch.equal(got, weight)
    state = ["epoch", "pytorch-lightning_version", "optimizer_states", "callbacks"]
    assert checkpoint.training_state == (state if wrapped else [])


def test_weights_are_mapped_and_not_copied(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    torch.save({"weight": torch.zeros(1000)}, path)
    weight = read_checkpoint(path).weights["weight"]
    assert weight.untyped_storage().nbytes() == path.stat().st_size
    weight.fill_(1)  # a private copy of the page: the file stays
    assert read_checkpoint(path).weights["weight"].sum() == 0


def test_safetensors_are_read_too(tmp_path: Path):
    wanted = {"a": torch.randn(3, 2), "b": torch.tensor(1)}
    save_file(wanted, tmp_path / "model.safetensors")
    checkpoint = read_checkpoint(tmp_path / "model.safetensors")
    assert all(torch.equal(checkpoint.weights[key], weight) for key, weight in wanted.items())


def malicious(trace: Path) -> Call:
    return Call(os.system, f"touch '{trace}'")


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (malicious, "it holds no dictionary of weights"),
        (lambda trace: {"state_dict": malicious(trace)}, "its state_dict is no dictionary"),
        (lambda trace: {"state_dict": {"a.weight": malicious(trace)}}, r"a\.weight is no plain tensor"),
    ],
)
def test_a_file_that_tries_to_run_code_does_not(tmp_path: Path, as_zip: bool, content: Any, message: str):
    trace, path = tmp_path / "it ran", tmp_path / "last.ckpt"
    torch.save(content(trace), path, _use_new_zipfile_serialization=as_zip)
    with pytest.raises(ValueError, match=f"{path} cannot be read as a checkpoint.*{message}"):
        read_checkpoint(path)
    assert not trace.exists()


def test_code_among_the_state_of_the_training_is_passed_over(tmp_path: Path):
    trace, path = tmp_path / "it ran", tmp_path / "last.ckpt"
    torch.save({"callbacks": [malicious(trace)], "state_dict": {"a": torch.ones(2)}}, path)
    checkpoint = read_checkpoint(path)
    assert torch.equal(checkpoint.weights["a"], torch.ones(2))
    assert checkpoint.training_state == ["callbacks"]
    assert not trace.exists()


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path: Path, as_zip: bool, share: float):
    path = tmp_path / "last.ckpt"
    torch.save(
        lightning_file({"a": torch.randn(2000), "b": torch.randn(300)}), path, _use_new_zipfile_serialization=as_zip
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="cannot be read as a checkpoint, it may be truncated"):
        read_checkpoint(path)


@pytest.mark.parametrize(
    "name", ["photo.ckpt", "pointer.ckpt", "archive.ckpt", "model.safetensors", "folder", "absent"]
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, name: str):
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    elif name == "archive.ckpt":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("letter.txt", "hello")
    elif name != "absent":
        path.write_bytes(
            b"\xff\xd8\xff\xe0JFIF" * 9 if name == "photo.ckpt" else b"version https://git-lfs.github.com"
        )
    with pytest.raises(ValueError, match=str(path)) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)


def test_tensors_cannot_reach_beyond_their_values(tmp_path: Path):
    path = tmp_path / "last.ckpt"
    torch.save({"a": torch.zeros(16), "b": torch.ones(64)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    assert content.count(b"K\x10\x85") == 1  # the shape (16,) in the pickle
    path.write_bytes(content.replace(b"K\x10\x85", b"K\x7f\x85"))
    with pytest.raises(ValueError, match="a reaches beyond its values"):
        read_checkpoint(path)


@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "legacy"])
def test_damaged_bytes_are_value_errors_or_nothing(tmp_path: Path, as_zip: bool):
    path = tmp_path / "last.ckpt"
    torch.save(lightning_file({"a": torch.randn(3, 4)[:, :2]}), path, _use_new_zipfile_serialization=as_zip)
    content = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(300):
        damaged = bytearray(content)
        damaged[generator.randrange(min(len(content), 1500))] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            read_checkpoint(path)
        except ValueError:
            refused += 1
    assert refused > 100
