"""What is made of photos, what is left out, and that stops leave no trace."""

import csv
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.landmarks import dlib68
from faceswap_diffusion.masks.parsing import load_face_parser
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from faceswap_diffusion.training.data.photo_sources import CELEBAMASK_PARTS, open_folders
from faceswap_diffusion.training.data.preparation import PreparationSettings, Rejection, count_reasons, prepare_faces


def prepare(photos: Path, output_dir: Path, num_workers: int = 1, **settings) -> tuple[int, list[Rejection]]:
    source = open_folders([photos])
    settings.setdefault("aligned", source.aligned)
    return prepare_faces(source, output_dir, PreparationSettings(**{"resolution": 128, **settings}), num_workers)


def named(folder: Path, name: str) -> FaceRecord:
    return next(record for record in PreparedFaces([folder], 128) if record.name == name)


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def photo(example_images) -> np.ndarray:
    return np.asarray(Image.open(example_images / "p001_park.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def face(photo):
    (face,) = MeshFaceAnalyzer().analyze(photo)
    return face


@pytest.fixture(scope="module")
def aligned(photo, face) -> np.ndarray:
    """The face of the photo as FFHQ would have it, at the size it has in the photo."""
    return crop(photo, ffhq_matrix(face.landmarks68, 192), 192)


@pytest.fixture(scope="module")
def prepared(example_images, tmp_path_factory) -> Path:
    """The nine example photos in shards of two, at 128 px."""
    folder = tmp_path_factory.mktemp("prepared")
    prepare(example_images, folder, shard_size=2)
    return folder


def test_a_row_is_what_a_swap_makes_of_the_photo(prepared, photo, face):
    record = named(prepared, "p001_park.jpg")
    matrix = ffhq_matrix(face.landmarks68, 128)
    pixels = crop(photo, matrix, 128)
    assert np.array_equal(record.pixels.permute(1, 2, 0).numpy(), pixels)
    assert np.array_equal(record.labels, load_face_parser().parse(pixels))
    wanted = transform_points(face.landmarks, matrix)
    assert np.linalg.norm(record.landmarks - wanted, axis=1).mean() < 0.5
    assert np.abs(record.depth - face.depth * np.sqrt(np.linalg.det(matrix[:, :2]))).mean() < 1
    assert np.abs(record.blendshapes - face.blendshapes).max() < 0.15
    assert record.head_pose[0] == pytest.approx(face.head_pose[0], abs=3)
    network = SFace().eval()
    views = torch.stack([record.pixels, record.pixels.flip(-1)]) / 127.5 - 1
    with torch.no_grad():
        torch.testing.assert_close(record.identity_embeds, network(network.prepare(views)))


def test_the_head_pose_is_that_of_the_crop(tmp_path, example_images, prepared):
    """A tilted photo gives an upright crop."""
    (tmp_path / "photos").mkdir()
    with Image.open(example_images / "p010_portrait.jpg") as picture:
        picture.rotate(-25, Image.Resampling.BICUBIC, fillcolor="grey").save(tmp_path / "photos" / "tilted.png")
    prepare(tmp_path / "photos", tmp_path / "faces")
    tilted = PreparedFaces([tmp_path / "faces"], 128)[0]
    upright = named(prepared, "p010_portrait.jpg")
    assert tilted.head_pose[2] == pytest.approx(upright.head_pose[2], abs=3)
    assert np.linalg.norm(tilted.landmarks - upright.landmarks, axis=1).mean() < 1.5


def test_aligned_crops_are_taken_as_they_are(tmp_path, aligned):
    (tmp_path / "photos").mkdir()
    Image.fromarray(aligned).save(tmp_path / "photos" / "a.png")
    prepare(tmp_path / "photos", tmp_path / "faces", aligned=True, resolution=192)
    record = PreparedFaces([tmp_path / "faces"], 192)[0]
    assert np.array_equal(record.pixels.permute(1, 2, 0).numpy(), aligned)
    smaller = prepare(tmp_path / "photos", tmp_path / "smaller", aligned=True, resolution=96)
    assert smaller == (1, [])
    small = PreparedFaces([tmp_path / "smaller"], 96)[0]
    np.testing.assert_allclose(small.landmarks, (record.landmarks + 0.5) / 2 - 0.5, atol=1e-3)  # centres at integers
    np.testing.assert_allclose(small.depth, record.depth / 2, atol=1e-3)


def test_the_orientation_of_a_photo_is_applied(tmp_path, photo, prepared):
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright: turn by 90 degrees clockwise
    Image.fromarray(np.rot90(photo)).save(tmp_path / "photos" / "p001_park.png", exif=exif)
    Image.fromarray(photo).save(tmp_path / "photos" / "upright.png")
    prepare(tmp_path / "photos", tmp_path / "faces")
    turned, upright = PreparedFaces([tmp_path / "faces"], 128)
    assert torch.equal(turned.pixels, upright.pixels)


def test_what_cannot_be_used_is_listed_with_the_reason(tmp_path, example_images, aligned):
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(example_images / "p001_portrait.jpg", photos / "good.jpg")
    (photos / "cut.jpg").write_bytes((example_images / "p001_portrait.jpg").read_bytes()[:3000])
    (photos / "empty.png").write_bytes(b"")
    Image.new("RGB", (300, 300), "grey").save(photos / "grey.png")
    shutil.copy(example_images / "p001_park.jpg", photos / "small.jpg")
    num_faces, rejections = prepare(photos, tmp_path / "faces", resolution=256)
    assert num_faces == 1
    reasons = {rejection.photo: rejection.reason for rejection in rejections}
    assert reasons == {
        "cut.jpg": "unreadable", "empty.png": "unreadable", "grey.png": "no face", "small.jpg": "too small",
    }  # fmt: skip
    with (tmp_path / "faces" / "rejected.csv").open(newline="") as file:
        assert [Rejection(**row) for row in csv.DictReader(file)] == rejections
    assert count_reasons(rejections) == "2 unreadable, 1 no face, 1 too small"
    assert next(r.detail for r in rejections if r.reason == "too small").endswith("pixels wide; 256 are needed")


def test_crops_that_are_none_are_left_out(tmp_path, aligned):
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(aligned).save(photos / "good.png")
    Image.fromarray(aligned[:100]).save(photos / "oblong.png")
    Image.fromarray(aligned).resize((100, 100)).save(photos / "small.png")
    num_faces, rejections = prepare(photos, tmp_path / "faces", aligned=True)
    assert num_faces == 1
    assert [(rejection.photo, rejection.reason) for rejection in rejections] == [
        ("oblong.png", "not square"),
        ("small.png", "too small"),
    ]


def test_all_faces_of_a_photo_are_different_people(tmp_path, example_images):
    photos = tmp_path / "photos" / "ann"
    photos.mkdir(parents=True)
    shutil.copy(example_images / "group.jpg", photos)
    source = open_folders([tmp_path / "photos"], identity="folder")
    assert prepare_faces(source, tmp_path / "faces", PreparationSettings(resolution=128, face="all")) == (4, [])
    faces = PreparedFaces([tmp_path / "faces"], 128)
    assert [faces[row].name for row in range(4)] == [f"ann/group.jpg#{number}" for number in range(4)]
    detected = MeshFaceAnalyzer().analyze(np.asarray(Image.open(photos / "group.jpg").convert("RGB")))
    areas = [np.prod(face.bbox[2:] - face.bbox[:2]) for face in detected]
    wanted = [f"ann/group.jpg#{number}" for number in range(4)]
    wanted[int(np.argmax(areas))] = "ann"  # a photo's identity is that of its largest face
    assert faces.identities == wanted
    prepare_faces(source, tmp_path / "largest", PreparationSettings(resolution=128))
    largest = PreparedFaces([tmp_path / "largest"], 128)
    assert largest.identities == ["ann"]
    assert torch.equal(largest[0].pixels, faces[int(np.argmax(areas))].pixels)


def test_celebamask_hq_keeps_its_own_label_maps(tmp_path, aligned):
    folder = tmp_path / "CelebAMask-HQ"
    (folder / "CelebA-HQ-img").mkdir(parents=True)
    (folder / "CelebAMask-HQ-mask-anno" / "0").mkdir(parents=True)
    for number in (0, 1):
        Image.fromarray(aligned).resize((256, 256)).save(folder / "CelebA-HQ-img" / f"{number}.jpg")
    mask = np.zeros((512, 512), np.uint8)
    mask[:256, 128:] = 255
    Image.fromarray(mask).save(folder / "CelebAMask-HQ-mask-anno" / "0" / "00001_hat.png")
    assert prepare(folder, tmp_path / "faces", resolution=64) == (
        1, [Rejection("0", "no label map", f"no part mask 00000_*.png in {folder}/CelebAMask-HQ-mask-anno/0")]
    )  # fmt: skip
    faces = PreparedFaces([tmp_path / "faces"], 64)
    hat = faces.label_names.index("hat")
    assert set(faces.label_names) == {"background", *CELEBAMASK_PARTS.values()}
    wanted = np.zeros((64, 64), np.uint8)
    wanted[:32, 16:] = hat
    assert np.array_equal(faces[0].labels, wanted)


def test_a_run_that_was_stopped_goes_on_to_the_same_files(tmp_path, prepared, example_images):
    wanted = written(prepared)
    assert [name for name in sorted(wanted) if name.endswith(".arrow")] == [f"shard-0000{k}.arrow" for k in range(5)]
    shutil.copytree(prepared, tmp_path / "faces")
    for name in ("shard-00001.arrow", "shard-00003.arrow", "rejected.csv"):
        (tmp_path / "faces" / name).unlink()
    (tmp_path / "faces" / ".unfinished-77").write_bytes(b"half of it")
    kept = (tmp_path / "faces" / "shard-00002.arrow").stat()
    assert prepare(example_images, tmp_path / "faces", shard_size=2) == (9, [])
    assert written(tmp_path / "faces") == wanted
    assert (tmp_path / "faces" / "shard-00002.arrow").stat().st_mtime_ns == kept.st_mtime_ns


def test_two_processes_write_what_one_does(tmp_path, prepared, example_images, forked_processes):
    prepare(example_images, tmp_path / "faces", num_workers=2, shard_size=2)
    assert written(tmp_path / "faces") == written(prepared)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"resolution": 64}, "was begun with resolution 128, now it is 64"),
        ({"aligned": True}, "was begun with aligned False, now it is True"),
        ({"shard_size": 3}, "was begun with shard_size 2, now it is 3"),
    ],
)
def test_other_settings_are_refused(prepared, example_images, settings, told):
    before = written(prepared)
    with pytest.raises(ValueError, match=told):
        prepare(example_images, prepared, **{"shard_size": 2, **settings})
    assert written(prepared) == before


def test_a_folder_of_an_older_version_is_not_gone_on_with(prepared, example_images, tmp_path):
    shutil.copytree(prepared, tmp_path / "faces")
    description = json.loads((tmp_path / "faces" / "preparation.json").read_text())
    del description["measurements"]  # there were none to choose of
    (tmp_path / "faces" / "preparation.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"was begun with measurements None, now it is \['landmarks', 'depth', "):
        prepare(example_images, tmp_path / "faces", shard_size=2)


def test_other_photos_are_refused(prepared, tmp_path, example_images):
    shutil.copy(example_images / "group.jpg", tmp_path / "other.jpg")
    with pytest.raises(
        ValueError, match=r"was begun with num_photos 9, now it is 1: .* --train_data_dir takes both folders"
    ):
        prepare(tmp_path, prepared, shard_size=2)


def test_nothing_left_is_an_error_that_tells_why(tmp_path):
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (300, 300), "grey").save(tmp_path / "photos" / "grey.png")
    with pytest.raises(ValueError, match=r"no face is left: 1 no face; .*rejected\.csv has a line for each"):
        prepare(tmp_path / "photos", tmp_path / "faces")
    assert "grey.png,no face," in (tmp_path / "faces" / "rejected.csv").read_text()
    with pytest.raises(ValueError, match="is not prepared to the end"):
        PreparedFaces([tmp_path / "faces"], 128)


def test_a_shard_holds_the_photos_of_its_turn(prepared):
    names = []
    for path in sorted(prepared.glob("shard-*.arrow")):
        with pa.memory_map(str(path)) as file:
            names.append(pa.ipc.open_stream(file).read_all()["name"].to_pylist())
    assert [len(part) for part in names] == [2, 2, 2, 2, 1]
    assert list(itertools.chain(*names)) == sorted(itertools.chain(*names))


def test_dlib_points_of_a_crop_lie_on_ffhqs_template(prepared):
    """Eyes and mouth of an aligned crop are where FFHQ's rule puts them: that is what the crop was made of."""
    for landmarks in PreparedFaces([prepared], 128).column("landmarks"):
        points = dlib68(landmarks)
        left, right = points[36:42].mean(0), points[42:48].mean(0)
        assert left[1] == pytest.approx(right[1], abs=3)  # level
        assert ((left + right) / 2)[0] == pytest.approx(63.5, abs=6)
        assert 30 < right[0] - left[0] < 42
