"""The script that prepares photos: as somebody types it, and killed while it works."""

import shutil
import signal
from pathlib import Path

import psutil
import pytest
import yaml
from PIL import Image

from faceswap_diffusion.training.data.dataset import PreparedFaces
from tests.processes import finish, forked, wait_until
from tests.tiny import odd_exif
from tests.train.scripts import load_script, start

script = load_script("prepare_faces")


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def fails(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as stopped:
        script.main([*map(str, arguments)])
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_photos_become_faces_and_a_second_run_changes_nothing(example_images, tmp_path, capsys):
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "grey.png")
    shutil.copy(example_images / "p001_portrait.jpg", tmp_path)
    arguments = [str(tmp_path), "--output_dir", str(tmp_path / "faces"), "--resolution", "64", "--num_workers", "1"]
    script.main(arguments)
    told = f"1 faces of 2 photos in {tmp_path / 'faces'}; left out: 1 no face (see rejected.csv)"
    assert capsys.readouterr().out.strip() == told
    before = written(tmp_path / "faces")
    script.main(arguments)
    assert capsys.readouterr().out.strip() == told
    assert written(tmp_path / "faces") == before
    assert [record.name for record in PreparedFaces([tmp_path / "faces"], 64)] == ["p001_portrait.jpg"]


def copy_photos(example_images: Path, folder: Path, **people: list[str]) -> Path:
    for person, names in people.items():
        (folder / person).mkdir(parents=True)
        for name in names:
            shutil.copy(example_images / name, folder / person)
    return folder


def test_a_folder_per_person_is_seen_and_what_was_assumed_is_said(example_images, tmp_path, capsys):
    people = {"ann": ["p001_portrait.jpg", "p001_park.jpg"], "bob": ["p005_portrait.jpg", "p005_selfie.jpg"]}
    photos = copy_photos(example_images, tmp_path / "photos", **people)
    options = ["--resolution", "64", "--num_workers", "1"]
    script.main([str(photos), *options, "--output_dir", str(tmp_path / "faces")])
    (told,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("prepare_faces.py"))
    assert "the 2 folders of the photos are taken for people: in 2 of 2 that were looked into" in told
    assert "0 of 1 pairs of folders show the same one (--identity none" in told
    assert PreparedFaces([tmp_path / "faces"], 64).identities == ["ann", "ann", "bob", "bob"]
    script.main([str(photos), *options, "--identity", "none", "--output_dir", str(tmp_path / "nobody")])
    assert "prepare_faces.py" not in capsys.readouterr().err
    assert len({*PreparedFaces([tmp_path / "nobody"], 64).identities}) == 4


@pytest.mark.parametrize(
    "days",
    [
        {"monday": ["p001_portrait.jpg", "p005_portrait.jpg"], "sunday": ["p006_portrait.jpg", "p010_selfie.jpg"]},
        {"monday": ["p001_portrait.jpg", "p001_park.jpg"], "sunday": ["p001_portrait.jpg", "p001_park.jpg"]},
    ],
    ids=["several people in a folder", "one person in several folders"],
)
def test_folders_of_days_are_not_taken_for_people(example_images, tmp_path, days):
    photos = script.open_folders([copy_photos(example_images, tmp_path / "photos", **days)])
    script.recognise_people(photos)
    assert not any(photos.identities)


def test_photos_without_folders_are_not_looked_into(example_images, tmp_path, capsys):
    photos = copy_photos(example_images, tmp_path / "photos", ann=["p001_portrait.jpg", "p001_park.jpg"])
    shutil.copy(example_images / "p005_portrait.jpg", photos)
    script.recognise_people(script.open_folders([photos]))
    assert capsys.readouterr().err == ""


def test_a_photo_with_odd_exif_is_prepared_like_any_other(example_images, tmp_path, capsys, caplog):
    with Image.open(example_images / "p001_portrait.jpg") as photo:
        photo.save(tmp_path / "odd.jpg", exif=odd_exif())
    script.main([str(tmp_path), "--resolution", "64", "--num_workers", "1", "--output_dir", str(tmp_path / "faces")])
    assert capsys.readouterr().out.strip() == f"1 faces of 1 photos in {tmp_path / 'faces'}"
    assert caplog.messages == [f"{tmp_path / 'odd.jpg'}: damaged parts of its EXIF are left out"]


def test_ctrl_c_is_one_line_and_130(example_images, tmp_path):
    options = ["--resolution", "64", "--shard_size", "1", "--num_workers", "1", "--output_dir", tmp_path / "faces"]
    program = start("prepare_faces", [*map(str, [example_images, *options])])
    wait_until(lambda: list(tmp_path.glob("faces/*.arrow")), program)
    program.send_signal(signal.SIGINT)
    out, told = program.communicate(timeout=120)
    assert program.returncode == 130
    assert out == ""
    assert "Traceback" not in told
    assert told.splitlines()[-1] == "prepare_faces.py: interrupted; the same command goes on from here"


def test_settings_come_from_a_file_and_flags_win(example_images, tmp_path):
    (tmp_path / "photos" / "ann").mkdir(parents=True)
    shutil.copy(example_images / "p001_portrait.jpg", tmp_path / "photos" / "ann")
    settings = {
        "photos": [str(tmp_path / "photos")], "output_dir": str(tmp_path / "faces"), "resolution": 64,
        "identity": "folder", "num_workers": 1,
    }  # fmt: skip
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    script.main(["--config", str(tmp_path / "settings.yaml"), "--resolution", "96"])
    assert PreparedFaces([tmp_path / "faces"], 96).identities == ["ann"]


def test_mistakes_end_with_one_line_and_code_2(example_images, tmp_path, capsys):
    output = ("--output_dir", tmp_path / "faces")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert fails(capsys, empty, *output).startswith(f"prepare_faces.py: no picture found in {empty}: expected")
    assert fails(capsys, *output).endswith("name folders or tar files of photos, or a --dataset_name: one of the two")
    assert "there is no folder" in fails(capsys, tmp_path / "gone", *output)
    assert "cannot read" in fails(capsys, tmp_path / "gone.tar", *output)
    assert "does not conform to restriction v>0" in fails(capsys, example_images, *output, "--resolution", "0")
    assert not (tmp_path / "faces").exists()
    Image.new("RGB", (300, 300), "grey").save(empty / "grey.png")
    left_over = fails(capsys, empty, *output, "--num_workers", "1")
    assert left_over.startswith("prepare_faces.py: no face is left: 1 no face; ")


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_undisturbed(example_images, tmp_path):
    """Every run is killed as soon as there is a shard more; its processes end with it."""
    common = [str(example_images), "--resolution", "64", "--shard_size", "1"]
    script.main([*common, "--num_workers", "1", "--output_dir", str(tmp_path / "undisturbed")])
    wanted = written(tmp_path / "undisturbed")
    output = tmp_path / "killed"
    for num_workers in (2, 1):
        num_shards = len(list(output.glob("*.arrow")))
        program = start("prepare_faces", [*common, "--num_workers", str(num_workers), "--output_dir", str(output)])
        wait_until(lambda before=num_shards: len(list(output.glob("*.arrow"))) > before, program)
        running = forked()
        assert len(running) == 1 + (num_workers if num_workers > 1 else 0)
        program.kill()
        program.communicate()
        _, alive = psutil.wait_procs(running, timeout=30)
        assert alive == []
        assert not (output / "rejected.csv").exists()
        for name, content in written(output).items():
            assert content == wanted.get(name) or name == "preparation.json" or "unfinished" in name
    finish(start("prepare_faces", [*common, "--num_workers", "1", "--output_dir", str(output)]))
    assert written(output) == wanted
