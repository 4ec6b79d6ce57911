"""Which picture is swapped with which."""

import tarfile
from pathlib import Path

import pytest
from PIL import Image

from faceswap_diffusion.evaluation import protocol
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


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three photos of B, two of A, two of C, one of D, and one of nobody in particular."""
    shown = {"b1": "B", "a1": "A", "b2": "B", "x": "", "c1": "C", "a2": "A", "c2": "C", "b3": "B", "d1": "D"}
    rows = [f"{file}.jpg,{identity}" for file, identity in shown.items()]
    return write_set(tmp_path / "photos", "file,identity", rows)


def names_of(pairs: protocol.PairSet) -> list[tuple[str, str]]:
    return [(pair.source.stem, pair.target.stem) for pair in pairs.pairs]


def test_self_pairs_are_all_ordered_pairs_of_each_persons_photos_a_round_at_a_time(photos: Path):
    pairs = protocol.self_pairs(photos)
    assert names_of(pairs) == [
        ("b1", "b2"), ("a2", "a1"), ("c1", "c2"),  # a pair of each person, who begin with different ones
        ("b1", "b3"), ("a1", "a2"), ("c2", "c1"),
        ("b2", "b1"), ("b2", "b3"), ("b3", "b1"), ("b3", "b2"),
    ]  # fmt: skip
    assert names_of(protocol.self_pairs(photos, count=4)) == names_of(pairs)[:4]
    assert [path.stem for path in pairs.gallery] == ["b1", "a1", "c1"]
    assert [(pair.source_person, pair.target_person) for pair in pairs.pairs[:3]] == [(0, 0), (1, 1), (2, 2)]
    assert pairs.one_person


def test_people_are_told_by_identity_or_by_seed_and_nothing_else(synthetic: Path, photos: Path):
    assert names_of(protocol.self_pairs(synthetic)) == [("7_0", "7_1"), ("9_1", "9_0"), ("7_1", "7_0"), ("9_0", "9_1")]
    assert not look_pairs(synthetic).one_person
    (photos / "manifest.csv").write_text("file\nb1.jpg\n")
    with pytest.raises(ValueError, match="expected a column 'identity' or 'seed'"):
        protocol.self_pairs(photos)
    (photos / "manifest.csv").write_text("file,identity\nb1.jpg,B\na1.jpg,A\n")
    with pytest.raises(ValueError, match="'self' has no pairs"):
        protocol.self_pairs(photos)


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
    with pytest.raises(ValueError, match="lists 1 pictures that do not exist"):
        london_pairs(london)
    alone = write_set(tmp_path / "alone", "file,seed,look,yaw", ["1_0.jpg,1,0,2", "1_1.jpg,1,1,3"])
    for pairs in (look_pairs, turned_pairs):
        with pytest.raises(ValueError, match="has no pairs"):
            pairs(alone)


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def test_pairs_of_a_csv_file_are_relative_to_it_and_their_sources_are_the_gallery(tmp_path: Path):
    touch(tmp_path, "a.png", "b.png", "deep/c.png")
    (tmp_path / "mine.csv").write_text("source,target\na.png,b.png\ndeep/c.png,a.png\na.png,deep/c.png\n")
    pairs = protocol.listed_pairs(tmp_path / "mine.csv")
    assert pairs.name == "mine"
    assert [path.name for path in pairs.gallery] == ["a.png", "c.png"]
    assert [(pair.source.name, pair.target.name, pair.source_person, pair.target_person) for pair in pairs.pairs] == [
        ("a.png", "b.png", 0, -1),
        ("c.png", "a.png", 1, 0),
        ("a.png", "c.png", 0, 1),
    ]
    assert [path.name for path in pairs.reference_pictures()] == ["b.png", "a.png", "c.png"]


def test_a_spreadsheets_csv_file_with_a_byte_order_mark_is_read(tmp_path: Path):
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "mine.csv").write_bytes(b"\xef\xbb\xbfsource,target\r\na.png,b.png\r\n")
    (pair,) = protocol.listed_pairs(tmp_path / "mine.csv").pairs
    assert (pair.source, pair.target) == (tmp_path / "a.png", tmp_path / "b.png")
    (tmp_path / "manifest.csv").write_bytes(b"\xef\xbb\xbffile,identity\r\na.png,ann\r\n")
    assert protocol.photos_of_people(tmp_path) == {"ann": [tmp_path / "a.png"]}


def test_everything_wrong_with_a_csv_file_is_listed_at_once(tmp_path: Path):
    touch(tmp_path, "a.png", "b.png")
    (tmp_path / "mine.csv").write_text("source,target\na.png,b.png\nx.png,y.png\na.png,b.png\n")
    with pytest.raises(ValueError, match="3 problems") as error:
        protocol.listed_pairs(tmp_path / "mine.csv")
    assert "line 3: x.png is missing; line 3: y.png is missing; line 4: the same pair as line 2" in str(error.value)
    (tmp_path / "other.csv").write_text("from,to\na.png,b.png\n")
    with pytest.raises(ValueError, match="expected the columns"):
        protocol.listed_pairs(tmp_path / "other.csv")


def test_reface_takes_pictures_by_number_and_all_of_them_as_real_ones(tmp_path: Path):
    touch(tmp_path, *(f"{number:05d}.png" for number in range(28000, 30000)), "7.jpg", "100.jpg", "notes.txt")
    pairs = protocol.celebahq_pairs(tmp_path)
    assert len(pairs.pairs) == len(pairs.gallery) == 1000
    assert (pairs.pairs[0].source.name, pairs.pairs[0].target.name) == ("29000.png", "28000.png")
    assert (pairs.pairs[999].source.name, pairs.pairs[999].target.name) == ("29999.png", "28999.png")
    assert pairs.pairs[999].source_person == 999
    assert [path.name for path in pairs.reference_pictures()[:3]] == ["7.jpg", "100.jpg", "28000.png"]
    assert len(pairs.reference_pictures()) == 2002
    assert pairs.settings == {"num_inference_steps": 50, "guidance_scale": 3.0}
    (tmp_path / "28003.png").unlink()
    (tmp_path / "29999.png").unlink()
    with pytest.raises(ValueError, match="2 of the pictures 28000 to 29999 are missing: 28003, 29999"):
        protocol.celebahq_pairs(tmp_path)


def test_ffhq_begins_at_68000(tmp_path: Path):
    with pytest.raises(ValueError, match="1998 of the pictures 68000 to 69999"):
        protocol.ffhq_pairs(touch(tmp_path, "68000.png", "69999.png"))


def test_casia_names_are_split_at_the_dash_that_fits(tmp_path: Path):
    touch(tmp_path, "real/a-1.jpg", "real/a.jpg", "real/b.jpg")
    (tmp_path / "pairs.txt").write_text("a-1-b.png\nb-a.png\na-a-1.png\n")
    pairs = protocol.casia_pairs(tmp_path)
    assert [(pair.source.stem, pair.target.stem) for pair in pairs.pairs] == [("a-1", "b"), ("b", "a"), ("a", "a-1")]
    (tmp_path / "pairs.txt").write_text("a-b.png\nx-b.png\na-b.png\nplain.png\n")
    with pytest.raises(ValueError, match="3 problems") as error:
        protocol.casia_pairs(tmp_path)
    for problem in (
        "x-b.png: there are no two such pictures",
        "plain.png: there are no two",
        "a-b.png is repeated 2 times",
    ):
        assert problem in str(error.value)


def test_casia_lists_of_their_size_are_read(tmp_path: Path):
    touch(tmp_path, *(f"{index}.jpg" for index in range(300)))
    names = [f"{source}-{target}.png" for source in range(150) for target in range(300)]
    (tmp_path / "pairs.txt").write_text("\n".join(names))
    pairs = protocol.casia_pairs(tmp_path)
    assert len(pairs.pairs) == 45_000
    assert len(pairs.gallery) == 150


def test_numbers_in_names_sort_as_numbers(tmp_path: Path):
    found = protocol.pictures_in(touch(tmp_path, "10.png", "9.png", "a2.jpg", "a10.jpg", "list.csv"))
    assert [path.name for path in found] == ["9.png", "10.png", "a2.jpg", "a10.jpg"]


def test_finished_swaps_are_found_by_name_or_by_order(tmp_path: Path):
    real = touch(tmp_path / "real", "s.png", "t.png", "u.png")
    pairs = protocol.pairs_of_files("mine", [(real / "s.png", real / "t.png"), (real / "u.png", real / "t.png")])
    named = touch(tmp_path / "named", "u-t.png", "s-t.jpg", "more.png")
    assert [path.name for path in protocol.match_outputs(named, pairs)] == ["s-t.jpg", "u-t.png"]
    ordered = touch(tmp_path / "ordered", "10.png", "9.png")
    assert [path.name for path in protocol.match_outputs(ordered, pairs)] == ["9.png", "10.png"]
    (named / "u-t.png").unlink()
    with pytest.raises(ValueError, match="lacks 1 of 2 swaps: u-t"):
        protocol.match_outputs(named, pairs)
    (ordered / "9.png").unlink()
    with pytest.raises(ValueError, match="has 1 pictures, but the set 'mine' has 2 pairs"):
        protocol.match_outputs(ordered, pairs)
