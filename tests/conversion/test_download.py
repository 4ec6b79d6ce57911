"""REFace's checkpoint from an imitation of the Hub: fetched, resumed, cached, and refused for a reason."""

import functools
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.conversion import reface
from faceswap_diffusion.conversion.download import download_reface
from faceswap_diffusion.conversion.reface import convert_reface
from faceswap_diffusion.photos.loading import load_photo
from tests.conversion.test_reface import saved_weights
from tests.masks.test_bisenet import synthetic_file
from tests.parity.reduced import REDUCED
from tests.weights.imitation import HubImitation, list_files

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "examples" / "images"
CONTENT = np.random.default_rng(0).bytes(30_000_000)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    hub = HubImitation()
    hub.repositories["owner/reface"] = {"last.ckpt": CONTENT}
    hub.repositories["owner/reface@first-try"] = {"last.ckpt": b"something else"}
    hub.repositories["owner/other"] = {"README.md": b"no checkpoint"}
    hub.repositories["owner/closed"] = {"last.ckpt": b"secret"}
    hub.gated.add("owner/closed")
    hub.stand_in(monkeypatch, tmp_path / "cache")
    yield hub
    hub.close()


def transfers(hub: HubImitation) -> int:
    return sum(request.startswith("GET") and "/resolve/" in request for request in hub.requests)


def test_a_broken_transfer_goes_on_from_where_it_was(hub: HubImitation, tmp_path: Path):
    hub.cut_after = 25_000_000
    path = download_reface("owner/reface", cache_dir=tmp_path)
    assert path.read_bytes() == CONTENT
    (start,) = (int(request.split()[1]) for request in hub.requests if request.startswith("RANGE"))
    assert 0 < start <= 25_000_000
    assert transfers(hub) == 2


def test_it_is_fetched_once_and_found_again_offline(hub: HubImitation, tmp_path: Path, monkeypatch):
    path = download_reface("owner/reface", cache_dir=tmp_path)
    assert download_reface("owner/reface", cache_dir=tmp_path) == path
    assert transfers(hub) == 1
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert download_reface("owner/reface", cache_dir=tmp_path) == path
    with pytest.raises(
        ValueError, match=r"the Hub cannot be reached, and last\.ckpt of owner/reface is not in the cache"
    ):
        download_reface("owner/reface", cache_dir=tmp_path / "elsewhere")


def test_a_revision_has_its_own_file(hub: HubImitation, tmp_path: Path):
    assert download_reface("owner/reface", "first-try", cache_dir=tmp_path).read_bytes() == b"something else"
    assert download_reface("owner/reface", "main", cache_dir=tmp_path).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("repo_id", "revision", "message"),
    [
        ("owner/nowhere", None, "there is no Hub repository owner/nowhere, or it is private"),
        ("owner/closed", None, r"last\.ckpt of owner/closed cannot be had: it is gated: accept its terms at"),
        ("owner/other", None, r"Hub repository owner/other holds no last\.ckpt"),
        ("owner/reface", "v9", "Hub repository owner/reface has no revision v9"),
        ("not an id", None, "'not an id' is no Hub id like owner/name"),
    ],
)
def test_what_cannot_be_had_is_told_in_one_line(hub: HubImitation, tmp_path: Path, repo_id, revision, message: str):
    with pytest.raises(ValueError, match=message) as error:
        download_reface(repo_id, revision, cache_dir=tmp_path)
    assert "\n" not in str(error.value)


def test_the_command_line_with_hub_ids(
    hub: HubImitation, checkpoint: Path, weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    """Fetches and converts REFace's file, is refused another, and swaps by the Hub id of a converted folder."""
    hub.repositories["owner/reface"] = {"last.ckpt": checkpoint.read_bytes()}
    parser = synthetic_file(tmp_path / "79999_iter.pth")
    convert_reface(checkpoint, tmp_path / "folder", parser=parser, architecture=REDUCED)
    hub.repositories["owner/folder"] = list_files(tmp_path / "folder")
    fetch = ["convert", "reface", "-o", str(tmp_path / "out"), "--from-hub"]
    photos = [str(IMAGES / name) for name in ("p001_portrait.jpg", "p010_selfie.jpg")]
    swap = ["swap", *photos, "--steps", "1", "--region", "head", "--device", "cpu", "--checkpoint"]
    commands = [
        [*fetch, "owner/closed"],
        [*fetch, "owner/reface"],
        [*swap, "owner/folder", "-o", str(tmp_path / "by_id.png")],
        [*swap, str(tmp_path / "folder"), "-o", str(tmp_path / "by_folder.png")],
    ]
    monkeypatch.setattr(reface, "convert_reface", functools.partial(convert_reface, architecture=REDUCED))
    assert [cli.main(command) for command in commands] == [2, 0, 0, 0]
    assert capsys.readouterr().err.count("faceswap-diffusion: error: ") == 1
    fetched = saved_weights(tmp_path / "out")
    assert torch.equal(fetched["conditioner/unconditional.embeds"], weights["learnable_vector"])
    assert any(request.endswith("/face_parser/diffusion_pytorch_model.safetensors") for request in hub.requests)
    assert not any(request.startswith("GET") and request.endswith(".py") for request in hub.requests)
    by_id, by_folder = (load_photo(tmp_path / f"{name}.png").rgb for name in ("by_id", "by_folder"))
    assert np.array_equal(by_id, by_folder)
