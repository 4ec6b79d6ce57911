"""Prepared faces as a data set."""

import json
import pickle
import shutil

import cv2
import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from faceswap_diffusion.training.data.dataset import (
    FaceRecord,
    PreparedFaces,
    read_description,
    resize_labels,
    resize_landmarks,
)
from tests.processes import server_context

NAMES = [f"{name}.jpg" for name in (
    "p001/p001_park", "p001/p001_portrait", "p005/p005_portrait", "p005/p005_selfie", "p006/p006_portrait",
    "p008/p008_selfie", "p010/p010_portrait", "p010/p010_selfie",
)]  # fmt: skip


@pytest.fixture(scope="module")
def faces(prepared_faces) -> PreparedFaces:
    return PreparedFaces([prepared_faces], 64)


def test_a_face_is_decoded_when_it_is_asked_for(faces):
    assert len(faces) == 8
    record = faces[3]
    assert [faces[row].name for row in range(8)] == NAMES
    assert faces.identities == ["p001", "p001", "p005", "p005", "p006", "p008", "p010", "p010"]
    assert record.identity == "p005"
    assert (record.pixels.shape, record.pixels.dtype) == ((3, 64, 64), torch.uint8)
    assert (record.labels.shape, record.labels.dtype) == ((64, 64), np.uint8)
    assert (record.landmarks.shape, record.landmarks.dtype) == ((478, 2), np.float32)
    assert (record.depth.shape, record.depth.dtype) == ((478,), np.float32)
    assert record.depth[4] < record.depth[[127, 234, 356, 454]].min() - 10  # the nose is nearer than the ears
    assert (record.head_pose.shape, record.blendshapes.shape) == ((3,), (52,))
    torch.testing.assert_close(record.identity_embeds.norm(dim=1), torch.ones(2))
    assert faces.label_names[record.labels[32, 32]] in ("skin", "nose")
    assert faces.identity_network == "sface"


def test_people_are_alike_and_red_is_red(faces):
    embeds = torch.from_numpy(faces.column("identity_embeds")[:, 0])
    cosines = embeds @ embeds.T
    assert cosines[6, 7] > cosines[6, 0]
    red, _, blue = faces[4].pixels[:, 30:50, 24:40].float().mean((1, 2)).tolist()  # skin
    assert red > 1.2 * blue


@pytest.mark.parametrize("name", ["landmarks", "depth", "head_pose", "blendshapes", "identity_embeds"])
@pytest.mark.parametrize("resolution", [64, 32])
def test_a_column_is_what_the_rows_have(prepared_faces, name, resolution):
    faces = PreparedFaces([prepared_faces], resolution)
    rows = np.stack([np.asarray(getattr(faces[row], name)) for row in range(len(faces))])
    assert np.array_equal(faces.column(name), rows)


def test_a_smaller_resolution_shrinks_crops_label_maps_and_landmarks(prepared_faces, faces):
    large, small = faces[0], PreparedFaces([prepared_faces], 32)[0]
    means = torch.nn.functional.avg_pool2d(large.pixels.float(), 2)
    assert (small.pixels.float() - means).abs().max() <= 0.5
    assert np.array_equal(small.labels, large.labels[1::2, 1::2])
    np.testing.assert_allclose(small.landmarks, (large.landmarks + 0.5) / 2 - 0.5, atol=1e-5)
    np.testing.assert_allclose(small.depth, large.depth / 2, rtol=1e-5)


def test_a_larger_resolution_is_refused(prepared_faces):
    with pytest.raises(ValueError, match=r"holds crops of 64 pixels, 128 are wanted: .* --resolution 128"):
        PreparedFaces([prepared_faces], 128)


def test_people_of_two_folders_are_never_the_same(prepared_faces, one_person):
    faces = PreparedFaces([prepared_faces, one_person], 64)
    assert len(faces) == 10
    assert len(set(faces.identities)) == 6
    assert faces[8].name == NAMES[0]
    assert faces[8].identity == faces.identities[8] == "1/p001"
    assert torch.equal(faces[8].pixels, faces[0].pixels)


def test_folders_of_different_sizes_meet_at_the_resolution(prepared_faces, one_person, tmp_path):
    """One folder is told to hold crops half as large as they are: its landmarks then count double."""
    shutil.copytree(one_person, tmp_path / "half")
    description = read_description(tmp_path / "half")
    (tmp_path / "half" / "preparation.json").write_text(json.dumps({**description, "resolution": 32}))
    mixed = PreparedFaces([prepared_faces, tmp_path / "half"], 32)
    alone = PreparedFaces([prepared_faces], 64)
    np.testing.assert_allclose(mixed[8].landmarks, alone[0].landmarks, atol=1e-5)
    np.testing.assert_allclose(mixed.column("landmarks")[8], alone[0].landmarks, atol=1e-5)
    np.testing.assert_allclose(mixed[8].depth, alone[0].depth, rtol=1e-5)
    np.testing.assert_allclose(mixed.column("depth")[[0, 8]], [mixed[0].depth, mixed[8].depth], rtol=1e-5)
    np.testing.assert_allclose(mixed.column("landmarks")[0], (alone[0].landmarks + 0.5) / 2 - 0.5, atol=1e-5)


def test_the_fingerprint_tells_other_data(prepared_faces, one_person, faces):
    assert PreparedFaces([prepared_faces], 64).fingerprint == faces.fingerprint
    others = [([one_person], 64), ([prepared_faces], 32), ([prepared_faces, one_person], 64)]
    fingerprints = {faces.fingerprint, *(PreparedFaces(*arguments).fingerprint for arguments in others)}
    assert len(fingerprints) == 4


def first_pixels(records: list[FaceRecord]) -> torch.Tensor:
    return records[0].pixels


def test_processes_of_a_loader_see_the_same(faces):
    assert len(pickle.dumps(faces)) < 100_000  # the crops stay in their files
    # Not forked from this process, which has threads: that may hang.
    context = server_context()
    loader = DataLoader(faces, num_workers=1, multiprocessing_context=context, collate_fn=first_pixels)
    for row, pixels in enumerate(loader):
        assert torch.equal(pixels, faces[row].pixels)


def test_a_folder_that_was_not_prepared_or_not_to_the_end_is_told(tmp_path, one_person):
    with pytest.raises(ValueError, match=r"holds no prepared faces: make them .* train/prepare_faces\.py"):
        PreparedFaces([tmp_path], 64)
    description = read_description(one_person)
    del description["num_faces"]
    (tmp_path / "preparation.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="is not prepared to the end"):
        PreparedFaces([tmp_path], 64)


def test_a_lost_shard_is_told(tmp_path, prepared_faces):
    shutil.copytree(prepared_faces, tmp_path / "faces")
    description = read_description(tmp_path / "faces")
    (tmp_path / "faces" / "preparation.json").write_text(json.dumps({**description, "num_faces": 9}))
    with pytest.raises(ValueError, match="9 faces were prepared, 8 are there"):
        PreparedFaces([tmp_path / "faces"], 64)


def test_a_folder_of_an_older_version_is_told(tmp_path, one_person):
    """Shards that were written before meshes had a depth, among newer ones."""
    folder = tmp_path / "faces"
    shutil.copytree(one_person, folder)
    (shard,) = folder.glob("shard-*.arrow")
    with pa.memory_map(str(shard)) as file:
        table = pa.ipc.open_stream(file).read_all().drop_columns("depth")
    older = folder / "shard-00001.arrow"
    with pa.OSFile(str(older), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    with pytest.raises(ValueError, match=f"^prepare the photos again: {older}, of an older version, lacks depth$"):
        PreparedFaces([folder], 64)


def test_folders_with_other_labels_do_not_go_together(tmp_path, prepared_faces, one_person):
    shutil.copytree(one_person, tmp_path / "other")
    description = read_description(one_person)
    (tmp_path / "other" / "preparation.json").write_text(json.dumps({**description, "label_names": ["a", "b"]}))
    with pytest.raises(ValueError, match="have different label_names"):
        PreparedFaces([prepared_faces, tmp_path / "other"], 64)


def test_labels_are_taken_at_pixel_centres_and_landmarks_follow():
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert resize_labels(labels, 2).tolist() == [[5, 7], [13, 15]]
    assert resize_labels(labels, 4).tolist() == labels.tolist()
    corners = np.array([[-0.5, -0.5], [3.5, 3.5]], np.float32)  # of a picture of 4 x 4
    assert resize_landmarks(corners, 4, 2).tolist() == [[-0.5, -0.5], [1.5, 1.5]]
    assert cv2.resize(labels, (2, 2), interpolation=cv2.INTER_NEAREST).tolist() != [[5, 7], [13, 15]]
