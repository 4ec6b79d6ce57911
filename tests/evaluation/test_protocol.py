"""Which picture is swapped with which."""

import tarfile
from pathlib import Path

import pytest
from PIL import Image

from faceswap_diffusion.evaluation.protocol import london_pairs, look_pairs, opened_folder, turned_pairs


def write_set(folder: Path, columns: str, rows: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "manifest.csv").write_text("\n".join([columns, *rows]) + "\n")
    for row in rows:
        path = folder / row.split(",")[0]
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4)).save(path)
    return folder


@pytest.fixture
def london(tmp_path: Path) -> Path:
    rows = [
        f"london/{name}{person}.jpg,inst/{name}_front/{person}_0{number}.jpg,{person}"
        for name, number, people in (("neutral", 3, ("172", "001", "010")), ("smiling", 8, ("001", "010", "172")))
        for person in people
    ]
    return write_set(tmp_path / "set", "file,path,identity", rows)


def test_london_puts_each_neutral_person_into_the_next_smiling_one(london: Path):
    pairs = london_pairs(london)
    assert [path.name for path in pairs.gallery] == ["neutral001.jpg", "neutral010.jpg", "neutral172.jpg"]
    names = [(pair.source.name, pair.target.name, pair.source_person, pair.target_person) for pair in pairs.pairs]
    assert names == [
        ("neutral001.jpg", "smiling010.jpg", 0, 1),
        ("neutral010.jpg", "smiling172.jpg", 1, 2),
        ("neutral172.jpg", "smiling001.jpg", 2, 0),
    ]


def test_a_limit_shortens_the_pairs_and_not_the_gallery(london: Path):
    pairs = london_pairs(london).limited(2)
    assert (len(pairs.pairs), len(pairs.gallery)) == (2, 3)
    assert len(london_pairs(london).limited(None).pairs) == 3


def test_a_tar_file_is_as_good_as_a_folder(london: Path, tmp_path: Path):
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(london, arcname=".")
    with opened_folder(tmp_path / "set.tar") as folder:
        assert len(london_pairs(folder).pairs) == 3
    assert not folder.exists()
    with opened_folder(london) as folder:
        assert folder == london
    assert london.exists()


@pytest.fixture
def synthetic(tmp_path: Path) -> Path:
    faces = [(7, 0, 3.0), (7, 1, 40.0), (5, 0, -15.0), (9, 0, 14.9), (9, 1, 0.0), (12, 0, 30.0), (3, 0, 1.0)]
    rows = [f"{seed}_{look}.jpg,{seed},{look},{yaw}" for seed, look, yaw in faces]
    return write_set(tmp_path / "faces", "file,seed,look,yaw", rows)


def test_turned_targets_have_15_degrees_and_the_next_seed_as_source(synthetic: Path):
    pairs = turned_pairs(synthetic)
    assert [(pair.source.name, pair.target.name) for pair in pairs.pairs] == [
        ("7_0.jpg", "5_0.jpg"),
        ("3_0.jpg", "12_0.jpg"),  # after the last seed comes the first
    ]
    assert [path.name for path in pairs.gallery] == ["3_0.jpg", "5_0.jpg", "7_0.jpg", "12_0.jpg"]
    for pair in pairs.pairs:
        assert pairs.gallery[pair.source_person] == pair.source
        assert pairs.gallery[pair.target_person] == pair.target
    assert len(turned_pairs(synthetic, count=1).pairs) == 1


def test_look_pairs_take_people_with_two_looks(synthetic: Path):
    pairs = look_pairs(synthetic)
    assert [(pair.source.name, pair.target.name) for pair in pairs.pairs] == [
        ("7_0.jpg", "9_1.jpg"),
        ("9_0.jpg", "7_1.jpg"),
    ]
    assert [path.name for path in pairs.gallery] == ["7_0.jpg", "9_0.jpg"]


def test_bad_sets_are_refused_in_one_line(tmp_path: Path, london: Path):
    empty = write_set(tmp_path / "empty", "file,path,identity", [])
    text = tmp_path / "text.tar"
    text.write_text("no tar")
    for call, message in (
        (lambda: london_pairs(tmp_path), "manifest.csv is missing"),
        (lambda: london_pairs(empty), "expected the columns"),
        (lambda: turned_pairs(london), "expected the columns"),
        (lambda: opened_folder(text).__enter__(), "expected a folder"),
        (lambda: opened_folder(tmp_path / "nowhere").__enter__(), "expected a folder"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)


def test_a_picture_that_is_missing_and_a_lonely_person_are_refused(london: Path, tmp_path: Path):
    (london / "london/smiling010.jpg").unlink()
    with pytest.raises(ValueError, match="names 1 pictures that are not there"):
        london_pairs(london)
    alone = write_set(tmp_path / "alone", "file,seed,look,yaw", ["1_0.jpg,1,0,2", "1_1.jpg,1,1,3"])
    for pairs in (look_pairs, turned_pairs):
        with pytest.raises(ValueError, match="has no pair"):
            pairs(alone)
