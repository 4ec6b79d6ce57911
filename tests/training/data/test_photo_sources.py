"""Where photos come from, and who is in them."""

import io
import json
import pickle
import shutil
import tarfile
from pathlib import Path

import cv2
import datasets
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.masks.regions import region_mask
from faceswap_diffusion.training.data.photo_sources import (
    CELEBAMASK_LABELS,
    HubPhotos,
    TarPhotos,
    merge_part_masks,
    open_folders,
)


def picture(path: Path, color: tuple[int, int, int] = (200, 150, 120), size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), color).save(path)
    return path


def part(folder: Path, number: int, name: str, *rows: slice) -> None:
    """A part mask as CelebAMask-HQ has them: white where the part is, in three equal channels."""
    mask = np.zeros((512, 512, 3), np.uint8)
    for covered in rows:
        mask[covered] = 255
    path = folder / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05}_{name}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), mask)


@pytest.fixture
def celebamask(tmp_path) -> Path:
    folder = tmp_path / "CelebAMask-HQ"
    for number in (2, 10, 2001):
        picture(folder / "CelebA-HQ-img" / f"{number}.jpg", size=32)
    part(folder, 2, "skin", slice(0, 400))
    part(folder, 2, "l_eye", slice(100, 120))
    part(folder, 2, "hair", slice(0, 50))
    part(folder, 2, "ear_r", slice(200, 210))
    part(folder, 2, "cloth", slice(390, 512))
    part(folder, 2001, "skin", slice(0, 512))
    return folder


def test_names_are_paths_in_the_folder_and_begin_with_it_where_there_are_several(tmp_path):
    picture(tmp_path / "one" / "b.png")
    picture(tmp_path / "one" / "sub" / "a.JPG")
    picture(tmp_path / "two" / "b.png")
    (tmp_path / "one" / "notes.txt").write_text("no picture")
    assert open_folders([tmp_path / "one"]).names == ["b.png", "sub/a.JPG"]
    assert open_folders([tmp_path / "one", tmp_path / "two"]).names == ["one/b.png", "one/sub/a.JPG", "two/b.png"]


def test_two_folders_of_one_name_are_refused(tmp_path):
    folders = [picture(tmp_path / side / "faces" / "a.png").parent for side in ("left", "right")]
    with pytest.raises(ValueError, match=r"two photos are called faces/a\.png: rename one"):
        open_folders(folders)


def test_an_empty_folder_and_a_missing_one_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"no picture found in .*: expected files ending in"):
        open_folders([tmp_path])
    with pytest.raises(ValueError, match=r"there is no folder .*gone"):
        open_folders([tmp_path / "gone"])


def test_the_folder_of_a_photo_tells_who_it_is_if_asked(tmp_path):
    for name in ("ann/1.png", "ann/2.png", "bob/1.png", "stray.png"):
        picture(tmp_path / name)
    assert open_folders([tmp_path]).identities == [None] * 4
    assert open_folders([tmp_path], identity="folder").identities == ["ann", "ann", "bob", None]


def test_the_manifest_of_synthetic_faces_tells_who_is_who(tmp_path):
    for name in ("5.jpg", "5_1.jpg", "7.jpg", "8.jpg"):
        picture(tmp_path / name)
    (tmp_path / "manifest.csv").write_text("file,seed,look\n5.jpg,5,0\n5_1.jpg,5,1\n7.jpg,7,0\n")
    assert open_folders([tmp_path]).identities == ["5", "5", "7", None]


def test_people_of_two_manifests_are_never_the_same(tmp_path):
    for folder in ("one", "two"):
        picture(tmp_path / folder / "5.jpg")
        (tmp_path / folder / "manifest.csv").write_text("file,identity\n5.jpg,ann\n")
    identities = open_folders([tmp_path / "one", tmp_path / "two"]).identities
    assert len(set(identities)) == 2
    assert open_folders([tmp_path]).identities == identities


def test_a_table_tells_who_is_who(tmp_path):
    for name in ("photos/a.png", "photos/b.png"):
        picture(tmp_path / name)
    table = tmp_path / "people.csv"
    table.write_text("file,identity\nphotos/a.png,ann\n")
    assert open_folders([tmp_path / "photos"], identity_csv=table).identities == ["ann", None]
    table.write_text("file,identity\na.png,ann\n")
    with pytest.raises(ValueError, match=r"people\.csv names none of the photos"):
        open_folders([tmp_path / "photos"], identity_csv=table)
    table.write_text("photo,person\n")
    with pytest.raises(ValueError, match="file and identity are needed"):
        open_folders([tmp_path / "photos"], identity_csv=table)


def test_celebamask_hq_is_known_by_its_folders_and_sorted_by_number(celebamask):
    photos = open_folders([celebamask])
    assert photos.names == ["2", "10", "2001"]
    assert photos.aligned
    assert photos.read(0).shape == (32, 32, 3)
    assert photos.identities == [None] * 3


def test_part_masks_are_merged_in_their_order(celebamask):
    labels = open_folders([celebamask]).read_labels(0)
    names = [CELEBAMASK_LABELS[label] for label in labels[:, 0]]
    assert names[0] == names[49] == "hair"  # over skin
    assert names[50] == names[99] == "skin"
    assert names[100] == names[119] == "eyes"
    assert names[200] == "earrings"
    assert names[389] == "skin"
    assert names[390] == names[511] == "cloth"  # over skin


def test_regions_pick_their_parts_of_merged_masks():
    parts = {"skin": 0, "l_ear": 1, "r_ear": 2, "eye_g": 3, "ear_r": 4, "hair": 5, "hat": 6, "neck": 7, "mouth": 8}
    masks = {name: np.arange(9)[None] == column for name, column in parts.items()}
    labels = merge_part_masks(masks)
    face, head = (region_mask(labels, region, CELEBAMASK_LABELS)[0].tolist() for region in ("face", "head"))
    assert face == [1, 1, 1, 0, 0, 0, 0, 0, 1]
    assert head == [1, 1, 1, 1, 1, 1, 0, 0, 1]


def test_a_picture_without_part_masks_is_told(celebamask):
    with pytest.raises(ValueError, match=r"no part mask 00010_\*\.png in .*0"):
        open_folders([celebamask]).read_labels(1)


def test_celebas_two_lists_together_tell_who_is_who(celebamask):
    (celebamask / "CelebA-HQ-to-CelebA-mapping.txt").write_text(
        "idx     orig_idx    orig_file\n2   119612  119613.jpg\n10   99093   099094.jpg\n2001   3   000004.jpg\n"
    )
    assert open_folders([celebamask]).identities == [None] * 3
    (celebamask / "identity_CelebA.txt").write_text("000004.jpg 2880\n099094.jpg 12\n119613.jpg 2880\n")
    assert open_folders([celebamask]).identities == ["2880", "12", "2880"]


def test_ffhq_is_known_by_its_folders_and_taken_at_full_size(tmp_path):
    picture(tmp_path / "thumbnails128x128" / "00000" / "00003.png", size=8)
    assert open_folders([tmp_path]).read(0).shape == (8, 8, 3)
    for number in (3, 1004):
        picture(tmp_path / "images1024x1024" / f"{number // 1000 * 1000:05}" / f"{number:05}.png", size=64)
    photos = open_folders([tmp_path])
    assert photos.names == ["00003", "01004"]
    assert photos.aligned
    assert photos.read(0).shape == (64, 64, 3)


def test_a_layout_that_is_not_there_is_told(tmp_path):
    picture(tmp_path / "a.png")
    with pytest.raises(ValueError, match="that is not FFHQ's layout"):
        open_folders([tmp_path], "ffhq")
    with pytest.raises(ValueError, match="that is not CelebAMask-HQ's layout"):
        open_folders([tmp_path], "celebamask-hq")


class Exploding:
    """Unpickling it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def webdataset(tmp_path) -> list[Path]:
    """Two shards: four samples with who they are as JSON and as text, one without, and pickles."""
    paths = []
    for number in range(2):
        paths.append(tmp_path / f"{number:05}.tar")
        with tarfile.open(paths[-1], "w") as tar:
            for sample in ("a/000", "a/001"):
                encoded = picture(tmp_path / "picture.png", (number * 100, 20, 30)).read_bytes()
                add_member(tar, f"{sample}.png", encoded)
                add_member(tar, f"{sample}.json", json.dumps({"person": f"p{sample}"}).encode())
                add_member(tar, f"{sample}.cls", b"7\n")
                bomb = pickle.dumps(Exploding(tmp_path / "exploded"))
                for suffix in ("pyd", "pickle", "pkl", "pth", "seg.npy"):
                    add_member(tar, f"{sample}.{suffix}", bomb)
            add_member(tar, "a/002.png", b"no picture")
    return paths


def test_tar_files_give_their_pictures_and_nothing_is_unpickled(webdataset, tmp_path):
    photos = TarPhotos(webdataset, "person")
    assert photos.names == [f"{tar}.tar/a/00{sample}.png" for tar in ("00000", "00001") for sample in range(3)]
    assert photos.identities == ["pa/000", "pa/001", None] * 2
    assert photos.read(1)[0, 0].tolist() == [0, 20, 30]
    assert photos.read(3)[0, 0].tolist() == [100, 20, 30]
    with pytest.raises(ValueError, match=r"cannot read 00000\.tar/a/002\.png"):
        photos.read(2)
    assert TarPhotos(webdataset[:1], "cls").identities == ["7", "7", None]
    assert TarPhotos(webdataset[:1]).identities == [None] * 3
    assert not (tmp_path / "exploded").exists()


def test_a_tar_file_that_is_none_is_named(tmp_path):
    (tmp_path / "a.tar").write_bytes(b"something else" * 100)
    with pytest.raises(ValueError, match=r"cannot read .*a\.tar as a tar file without compression"):
        TarPhotos([tmp_path / "a.tar"])
    with tarfile.open(tmp_path / "b.tar", "w"):
        pass
    with pytest.raises(ValueError, match="there is no photo to prepare"):
        TarPhotos([tmp_path / "b.tar"])


@pytest.fixture
def hub_dataset(tmp_path, monkeypatch) -> Path:
    """A data set of three pictures in a Parquet file, read without leaving anything outside of the test's folder."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "who": datasets.ClassLabel(names=["ann", "bob"]),
            "number": datasets.Value("int64"),
        }
    )
    pictures = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (10, 20)] + [None]
    rows = {"image": pictures, "who": [1, 0, 1], "number": [5, 5, None]}
    folder = tmp_path / "set"
    folder.mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(folder / "train.parquet")
    return folder


def test_a_data_set_gives_its_pictures_and_people(hub_dataset):
    photos = HubPhotos(str(hub_dataset), identity_column="who")
    assert photos.names == ["00000000", "00000001", "00000002"]
    assert photos.identities == ["bob", "ann", "bob"]
    assert photos.read(1)[0, 0].tolist() == [20, 0, 0]
    assert pickle.loads(pickle.dumps(photos)).read(0)[0, 0].tolist() == [10, 0, 0]
    with pytest.raises(ValueError, match="row 2 has no picture"):
        photos.read(2)
    assert HubPhotos(str(hub_dataset), identity_column="number").identities == ["5", "5", None]


def test_a_column_that_is_not_there_or_holds_no_pictures_is_told(hub_dataset):
    with pytest.raises(ValueError, match="has no column 'photo': choose one of image, who, number"):
        HubPhotos(str(hub_dataset), image_column="photo")
    with pytest.raises(ValueError, match=r"column 'number' of .* holds no pictures"):
        HubPhotos(str(hub_dataset), image_column="number")


def test_a_data_set_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="cannot load the data set nobody/nothing"):
        HubPhotos("nobody/nothing")


def test_the_digest_tells_other_photos_and_other_people(tmp_path):
    picture(tmp_path / "ann" / "a.png")
    before = open_folders([tmp_path])
    assert before.digest() == open_folders([tmp_path]).digest()
    assert before.digest() != open_folders([tmp_path], identity="folder").digest()
    shutil.copy(tmp_path / "ann" / "a.png", tmp_path / "ann" / "b.png")
    assert before.digest() != open_folders([tmp_path]).digest()
