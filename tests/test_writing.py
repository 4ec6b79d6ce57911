"""Files and folders are there whole or not at all, whatever happens on the way."""

import os
import stat
from pathlib import Path

import pytest

from faceswap_diffusion.writing import UNFINISHED, remove, remove_left_overs, whole_file, whole_folder, write_text


def names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_a_file_is_there_at_the_end_of_the_block_and_not_before(tmp_path):
    with whole_file(tmp_path / "a.txt") as unfinished:
        unfinished.write_text("half")
        assert names(tmp_path) == [unfinished.name]
        assert unfinished.name.startswith(UNFINISHED)
        unfinished.write_text("whole")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "whole"


def fail_in_file(path: Path) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text("half")
        raise RuntimeError


def fail_in_folder(path: Path) -> None:
    with whole_folder(path) as unfinished:
        (unfinished / "b.txt").touch()
        raise RuntimeError


def test_a_block_that_fails_leaves_the_former_file_and_nothing_else(tmp_path):
    write_text(tmp_path / "a.txt", "Größe")
    with pytest.raises(RuntimeError):
        fail_in_file(tmp_path / "a.txt")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_bytes() == "Größe".encode()


def test_a_link_is_followed_and_a_mode_kept(tmp_path):
    (tmp_path / "there").mkdir()
    original = tmp_path / "there" / "back.txt"
    original.write_text("older")
    original.chmod(0o600)
    (tmp_path / "link.txt").symlink_to(original)
    write_text(tmp_path / "link.txt", "newer")
    assert (tmp_path / "link.txt").is_symlink()
    assert original.read_text() == "newer"
    assert stat.S_IMODE(original.stat().st_mode) == 0o600
    assert names(tmp_path / "there") == ["back.txt"]


def test_a_read_only_file_is_refused_before_anything_is_written(tmp_path):
    write_text(tmp_path / "a.txt", "older")
    (tmp_path / "a.txt").chmod(0o444)
    with pytest.raises(ValueError, match=r"cannot write .*a\.txt: it is read-only; choose another name"):
        write_text(tmp_path / "a.txt", "newer")
    assert (tmp_path / "a.txt").read_text() == "older"
    assert names(tmp_path) == ["a.txt"]


def test_the_longest_name_can_be_written(tmp_path):
    name = "n" * os.pathconf(tmp_path, "PC_NAME_MAX")
    for text in ("first", "second"):
        write_text(tmp_path / name, text)
        assert (tmp_path / name).read_text() == text
    with whole_folder(tmp_path / ("f" + name[1:])) as unfinished:
        (unfinished / "a.txt").touch()
    assert names(tmp_path) == ["f" + name[1:], name]


@pytest.mark.parametrize("sync", [False, True])
def test_a_folder_takes_the_place_of_a_former_one(tmp_path, sync):
    for text in ("first", "second"):
        with whole_folder(tmp_path / "deep" / "folder", sync) as unfinished:
            (unfinished / "part").mkdir()
            (unfinished / "part" / f"{text}.txt").write_text(text)
            assert not (tmp_path / "deep" / "folder" / "part" / f"{text}.txt").exists()
        assert names(tmp_path / "deep") == ["folder"]
        assert names(tmp_path / "deep" / "folder" / "part") == [f"{text}.txt"]


def test_a_folder_that_was_not_finished_leaves_the_former_one(tmp_path):
    with whole_folder(tmp_path / "folder") as unfinished:
        (unfinished / "a.txt").touch()
    with pytest.raises(RuntimeError):
        fail_in_folder(tmp_path / "folder")
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["a.txt"]


def test_a_former_folder_is_put_back_if_the_new_one_cannot_take_its_place(tmp_path):
    with whole_folder(tmp_path / "folder") as unfinished:
        (unfinished / "a.txt").touch()
    with pytest.raises(FileNotFoundError), whole_folder(tmp_path / "folder") as unfinished:
        unfinished.rmdir()  # as somebody might who cleans up
    assert names(tmp_path) == ["folder"]
    assert names(tmp_path / "folder") == ["a.txt"]


def test_a_folder_takes_the_place_of_a_file(tmp_path):
    write_text(tmp_path / "result", "a file")
    with whole_folder(tmp_path / "result") as unfinished:
        (unfinished / "a.txt").touch()
    assert names(tmp_path) == ["result"]
    assert names(tmp_path / "result") == ["a.txt"]


def test_left_overs_are_removed_and_nothing_else(tmp_path):
    (tmp_path / f"{UNFINISHED}1").mkdir()
    (tmp_path / f"{UNFINISHED}1" / "half.txt").touch()
    for name in (f"{UNFINISHED}2", "a.txt", "unfinished.txt"):
        (tmp_path / name).touch()
    remove_left_overs(tmp_path)
    assert names(tmp_path) == ["a.txt", "unfinished.txt"]
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    remove(tmp_path / "folder")
    assert names(tmp_path) == ["a.txt", "unfinished.txt"]
