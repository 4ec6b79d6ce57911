"""Content Credentials: written by default, read again, and known to be altered or trusted."""

import io
import json
import socket
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.provenance.credentials import read_credentials, sign_video
from faceswap_diffusion.provenance.save import COMPOSITE, GENERATED, read_provenance, save_image
from faceswap_diffusion.provenance.signing import BEGIN_CERTIFICATE, CERTIFICATE, KEY, choose_signing, local_path
from faceswap_diffusion.provenance.verify import verify
from tests.clips import noise, write_clip

c2pa = pytest.importorskip("c2pa")

FACTS = {"checkpoint": "tiny", "seed": np.int64(3)}


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(autouse=True)
def own_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))


@pytest.fixture
def picture() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8))


def manifests(path: Path) -> dict:
    return json.loads(c2pa.Reader(path).json())


@pytest.mark.parametrize("name", ["swap.png", "swap.jpg", "swap.webp"])
def test_pictures_are_signed_by_a_local_key(tmp_path: Path, picture: Image.Image, name: str):
    save_image(picture, tmp_path / name, provenance=FACTS)
    found = read_credentials(tmp_path / name)
    assert found is not None
    assert (found.is_ours, found.is_valid, found.is_trusted, found.is_altered) == (True, True, False, False)
    assert found.signer == "local key of faceswap-diffusion, untrusted"
    assert found.digital_source_types == ["compositeWithTrainedAlgorithmicMedia"]
    assert found.problems == []
    assert read_provenance(tmp_path / name)["seed"] == 3
    with Image.open(tmp_path / name) as again:
        assert again.size == (96, 96)
        assert name != "swap.png" or np.array_equal(np.asarray(again), np.asarray(picture))
    manifest = manifests(tmp_path / name)
    (active,) = manifest["manifests"].values()
    actions = active["assertions"][0]["data"]["actions"]
    assert [action["action"] for action in actions] == ["c2pa.created", "c2pa.edited"]
    assert next(a["data"] for a in active["assertions"] if a["label"].endswith("facts")) == {
        "checkpoint": "tiny", "seed": 3,
    }  # fmt: skip


def test_the_target_is_an_ingredient_and_keeps_its_own_credentials(tmp_path: Path, picture: Image.Image):
    save_image(picture, tmp_path / "target.png", provenance={}, digital_source_type=GENERATED)
    save_image(picture, tmp_path / "swap.jpg", provenance=FACTS, parent=tmp_path / "target.png")
    told = manifests(tmp_path / "swap.jpg")
    assert len(told["manifests"]) == 2
    active = told["manifests"][told["active_manifest"]]
    (ingredient,) = active["ingredients"]
    assert ingredient["relationship"] == "parentOf"
    assert ingredient["active_manifest"] in told["manifests"]
    assert [a["action"] for a in active["assertions"][0]["data"]["actions"]] == ["c2pa.opened", "c2pa.edited"]
    assert "thumbnail" not in json.dumps(told)  # it would show the target's face
    found = read_credentials(tmp_path / "swap.jpg")
    assert found is not None
    assert found.ingredients == ["target"]
    assert found.is_valid


def test_what_was_altered_since_is_known(tmp_path: Path, picture: Image.Image):
    save_image(picture, tmp_path / "swap.png", provenance=FACTS)
    content = bytearray((tmp_path / "swap.png").read_bytes())
    content[-100] ^= 1
    (tmp_path / "swap.png").write_bytes(content)
    found = read_credentials(tmp_path / "swap.png")
    assert found is not None
    assert (found.is_valid, found.is_altered) == (False, True)
    assert found.problems == ["assertion.dataHash.mismatch"]


def test_other_formats_and_plain_pictures_are_not_signed(tmp_path: Path, picture: Image.Image):
    save_image(picture, tmp_path / "swap.tif", provenance=FACTS)
    save_image(picture, tmp_path / "plain.png", provenance=None)
    assert read_credentials(tmp_path / "swap.tif") is None
    assert read_credentials(tmp_path / "plain.png") is None
    (tmp_path / "text.png").write_text("no picture")
    assert read_credentials(tmp_path / "text.png") is None


def test_the_local_key_is_made_once_and_nobody_else_may_read_it(tmp_path: Path, picture: Image.Image):
    assert not local_path().exists()
    save_image(picture, io.BytesIO(), provenance=FACTS)
    made = local_path().read_bytes()
    save_image(picture, io.BytesIO(), provenance=FACTS)
    assert local_path().read_bytes() == made
    assert stat.S_IMODE(local_path().stat().st_mode) == 0o600
    assert made.startswith(b"-----BEGIN PRIVATE KEY-----")
    assert made.count(BEGIN_CERTIFICATE) == 2


def test_the_users_own_key_signs_and_a_trust_list_knows_it(tmp_path: Path, picture: Image.Image, monkeypatch, capsys):
    signing = choose_signing()  # as if it came from an authority
    assert signing is not None
    local_path().unlink()
    files = {"cert": tmp_path / "cert.pem", "key": tmp_path / "key.pem", "root": tmp_path / "root.pem"}
    files["cert"].write_bytes(signing.certificates)
    files["key"].write_bytes(signing.key)
    files["root"].write_bytes(BEGIN_CERTIFICATE + signing.certificates.split(BEGIN_CERTIFICATE)[2])
    monkeypatch.setenv(CERTIFICATE, str(files["cert"]))
    monkeypatch.setenv(KEY, str(files["key"]))
    save_image(picture, tmp_path / "swap.png", provenance=FACTS)
    assert not local_path().exists()
    assert not verify(tmp_path / "swap.png").credentials.is_trusted
    assert verify(tmp_path / "swap.png", trust_anchors=files["root"]).credentials.is_trusted
    assert cli.main(["verify", str(tmp_path / "swap.png"), "--trust", str(files["root"])]) == 0
    assert "Content Credentials: valid, by faceswap-diffusion, signed by 'local key of faceswap-diffusion, " in (
        told := capsys.readouterr().out
    )
    assert "', trusted\n" in told
    assert cli.main(["verify", str(tmp_path / "swap.png"), "--trust", str(tmp_path / "none.pem")]) == 2
    monkeypatch.delenv(KEY)
    with pytest.raises(ValueError, match="only one of FACESWAP_DIFFUSION_C2PA_CERT and"):
        save_image(picture, tmp_path / "swap.png", provenance=FACTS)


def test_a_missing_certificate_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Image.Image):
    monkeypatch.setenv(CERTIFICATE, str(tmp_path / "no.pem"))
    monkeypatch.setenv(KEY, str(tmp_path / "no.key"))
    with pytest.raises(ValueError, match=r"cannot read .*no\.pem: No such file or directory; check --c2pa-cert"):
        save_image(picture, tmp_path / "swap.png", provenance=FACTS)
    assert not (tmp_path / "swap.png").exists()


def test_credentials_alone_say_that_a_file_was_made_here(tmp_path: Path, picture: Image.Image, capsys):
    save_image(picture, tmp_path / "swap.jpg", provenance=FACTS)
    content = (tmp_path / "swap.jpg").read_bytes()
    (tmp_path / "swap.jpg").write_bytes(content.replace(b"fsd:facts", b"fsd:fakts"))  # metadata lost, seal broken
    assert cli.main(["verify", str(tmp_path / "swap.jpg"), "--json"]) == 0
    (report,) = json.loads(capsys.readouterr().out)
    assert report["metadata"] is None
    assert report["credentials"]["is_altered"]
    assert cli.main(["verify", str(tmp_path / "swap.jpg")]) == 0
    assert "Content Credentials: ALTERED since they were signed, by faceswap-diffusion" in capsys.readouterr().out


def test_videos_are_signed_with_their_source_as_ingredient(tmp_path: Path):
    clip = write_clip(tmp_path / "clip.mp4", noise(4))
    assert sign_video(clip, tmp_path / "swap.mp4", FACTS, COMPOSITE, clip)
    found = verify(tmp_path / "swap.mp4")
    assert found.is_marked
    assert found.credentials is not None
    assert found.credentials.is_valid
    assert found.credentials.ingredients == ["target"]
    assert found.lines()[-1] == "  mark: no face is found to look in, in 4 frames that were looked at"
    assert not sign_video(clip, tmp_path / "swap.mkv", FACTS, COMPOSITE, clip)
    assert not (tmp_path / "swap.mkv").exists()
