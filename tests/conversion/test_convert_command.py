"""`convert` on the command line: what it says, and how it refuses what it cannot do."""

import functools
import json
import os
from pathlib import Path

import pytest
import torch

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.conversion import reface
from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.pipelines.loading import load_parser, load_pipeline
from faceswap_diffusion.provenance.save import read_provenance
from tests.masks.test_bisenet import synthetic_file
from tests.parity.reduced import REDUCED
from tests.tiny import tiny_unet, tiny_vae
from tests.weights.test_pickled import Call

IMAGES = Path(__file__).parents[2] / "examples" / "images"
SOURCE, TARGET = str(IMAGES / "p001_portrait.jpg"), str(IMAGES / "p010_selfie.jpg")


@pytest.fixture
def convert(monkeypatch: pytest.MonkeyPatch):
    """Runs `convert` in this process on checkpoints of reduced size; returns the exit status, argparse's included."""
    monkeypatch.setattr(reface, "convert_reface", functools.partial(reface.convert_reface, architecture=REDUCED))

    def run(*arguments: object) -> int:
        try:
            return cli.main(["convert", *map(str, arguments)])
        except SystemExit as end:
            return int(end.code or 0)

    return run


def test_a_converted_checkpoint_swaps_with_its_own_parser(convert, checkpoint, tmp_path: Path, capsys):
    parser = synthetic_file(tmp_path / "79999_iter.pth")
    out = tmp_path / "reface"
    assert convert("reface", checkpoint, "-o", out, "--dtype", "fp16", "--parser", parser) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{out}: converted"
    assert [line.split() for line in lines[1:5]] == [
        ["686", "keys", "became", "unet"],
        ["248", "keys", "became", "vae"],
        ["40", "keys", "became", "image_encoder"],
        ["468", "keys", "became", "conditioner"],
    ]
    assert "   16 left out: never used by REFace" in lines
    loaded = load_parser(out)
    assert isinstance(loaded, BiSeNet)
    name = "ffm.conv1.weight"
    assert torch.equal(loaded.state_dict()[name], torch.load(parser, weights_only=True)[name])
    swapped = tmp_path / "swapped.png"
    options = ["--checkpoint", out, "--steps", 1, "--region", "head", "--device", "cpu"]
    assert cli.main(["swap", SOURCE, TARGET, "-o", str(swapped), *map(str, options)]) == 0
    provenance = read_provenance(swapped)
    assert provenance is not None
    assert provenance["checkpoint"] == "reface"
    assert (load_photo(swapped).rgb != load_photo(TARGET).rgb).any()


def test_there_and_back(convert, checkpoint, weights, tmp_path: Path, capsys):
    assert convert("reface", checkpoint, "-o", tmp_path / "there", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert report["output"] == str(tmp_path / "there")
    assert report["became"]["proj_out_source.weight"] == "conditioner/source_projection.weight"
    assert convert("diffusers-to-reface", tmp_path / "there", "-o", tmp_path / "back.ckpt") == 0
    assert "1442 keys became REFace's checkpoint" in capsys.readouterr().out
    back = torch.load(tmp_path / "back.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(weight, weights[key]) for key, weight in back.items())


def test_a_training_begins_with_stable_diffusion(convert, tmp_path: Path, capsys):
    unet = tiny_unet()
    narrow = type(unet).from_config({**unet.config, "in_channels": 4})
    narrow.save_pretrained(tmp_path / "sd" / "unet")
    tiny_vae().save_pretrained(tmp_path / "sd" / "vae")
    assert convert("sd-inpaint-init", tmp_path / "sd", "-o", tmp_path / "start", "--seed", 3) == 0
    assert "1 added: input channels for the masked target and the mask: zeros" in capsys.readouterr().out
    assert load_pipeline(tmp_path / "start").unet.config["in_channels"] == 9


def bad_checkpoints(folder: Path, weights: dict[str, torch.Tensor]) -> dict[str, Path]:
    prefixes = ("model.diffusion_model.", "first_stage_model.")
    stable_diffusion = {key: weight for key, weight in weights.items() if key.startswith(prefixes)}
    torch.save({"state_dict": stable_diffusion}, folder / "sd.ckpt")
    torch.save({"state_dict": weights}, folder / "truncated.ckpt")
    os.truncate(folder / "truncated.ckpt", 100_000_000)
    (folder / "photo.ckpt").write_bytes(Path(SOURCE).read_bytes())
    torch.save(Call(os.mkdir, str(folder / "it ran")), folder / "malicious.ckpt")
    torch.save({"state_dict": {"learnable_vector": Call(os.mkdir, str(folder / "it ran"))}}, folder / "sly.ckpt")
    return {name: folder / f"{name}.ckpt" for name in ("sd", "truncated", "photo", "malicious", "sly", "absent")}


def test_bad_checkpoints_are_refused_in_one_line(convert, weights, tmp_path: Path, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    messages = {
        "sd": "looks like one of Stable Diffusion",
        "truncated": "cannot be read as a checkpoint, it may be truncated",
        "photo": "cannot be read as a checkpoint",
        "malicious": "it holds no dictionary of weights",
        "sly": "learnable_vector is no plain tensor",
        "absent": "there is no file",
    }
    for name, path in bad_checkpoints(tmp_path / "in", weights).items():
        assert convert("reface", path, "-o", tmp_path / "out" / "folder") == 2, name
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("faceswap-diffusion: error: ")
        assert captured.err.count("\n") == 1
        assert messages[name] in captured.err
        assert str(path) in captured.err
    assert os.listdir(tmp_path / "out") == []
    assert not (tmp_path / "in" / "it ran").exists()


def test_a_full_disk_is_told_in_one_line(convert, checkpoint, tmp_path: Path, capsys, full_disk):
    assert convert("reface", checkpoint, "-o", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"cannot write {tmp_path / 'out'}: " in error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reface", "-o", "new"], "CKPT --from-hub is required"),
        (["reface", "a.ckpt", "--from-hub", "o/n", "-o", "new"], "not allowed with argument"),
        (["reface", "a.ckpt"], "required: -o/--output"),
        (["reface", "a.ckpt", "-o", "new", "--dtype", "fp8"], "invalid choice: 'fp8'"),
        (["reface", "a.ckpt", "-o", "new", "--revision", "v1"], "it needs --from-hub"),
        (["reface", "a.ckpt", "-o", "older"], "exists: choose another name, or pass --overwrite"),
        (["reface", "a.ckpt", "-o", "older", "--overwrite"], "a folder of other things than a checkpoint"),
        (["reface", "--from-hub", "o/n", "-o", "older"], "exists: choose another name"),
        (["reface", "a.ckpt", "-o", "no/where"], "there is no folder"),
        (["diffusers-to-reface", "older", "-o", "b.ckpt"], "has no model_index.json"),
        (["diffusers-to-reface", "older", "-o", "older/file.txt"], "exists: choose another name"),
        (["sd-inpaint-init", "older", "-o", "new"], "no unet of Stable Diffusion"),
        (["sd-inpaint-init", "a.ckpt", "-o", "new"], "there is no file a.ckpt"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(convert, tmp_path: Path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "file.txt").write_text("mine")
    assert convert(*arguments) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert os.listdir(tmp_path) == ["older"]
    assert os.listdir(tmp_path / "older") == ["file.txt"]


def test_help_names_the_three_ways(capsys, convert):
    assert convert("--help") == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("reface", "diffusers-to-reface", "sd-inpaint-init"))
