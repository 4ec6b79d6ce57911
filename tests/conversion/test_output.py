"""Where conversions write: links, modes and names of any length, as pictures are saved."""

import os
import stat

import pytest

from faceswap_diffusion.conversion.output import check_output, written


def test_names_may_be_as_long_as_the_file_system_allows_and_longer_ones_are_told_before(tmp_path):
    longest = os.pathconf(tmp_path, "PC_NAME_MAX")
    name = "\u9854" * (longest // 3)
    for content in (b"first", b"second"):
        with written(tmp_path / name, overwrite=True, as_file=True) as target:
            target.write_bytes(content)
        assert (tmp_path / name).read_bytes() == content
    assert os.listdir(tmp_path) == [name]
    with pytest.raises(ValueError, match=r"cannot write .*[Nn]ame too long"):
        check_output(tmp_path / ("\u9854" + name), overwrite=False)


def test_a_link_is_followed_and_a_mode_kept(tmp_path):
    original = tmp_path / "back.ckpt"
    original.write_bytes(b"older")
    original.chmod(0o600)
    (tmp_path / "link.ckpt").symlink_to(original)
    with written(tmp_path / "link.ckpt", overwrite=True, as_file=True) as target:
        target.write_bytes(b"newer")
    assert (tmp_path / "link.ckpt").is_symlink()
    assert original.read_bytes() == b"newer"
    assert stat.S_IMODE(original.stat().st_mode) == 0o600


def test_a_read_only_file_is_refused(tmp_path):
    (tmp_path / "back.ckpt").write_bytes(b"older")
    (tmp_path / "back.ckpt").chmod(0o444)
    with pytest.raises(ValueError, match="is read-only"):
        check_output(tmp_path / "back.ckpt", overwrite=True)
