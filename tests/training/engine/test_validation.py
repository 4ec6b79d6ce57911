"""Validation swaps: what users get, by any of our pipelines, without a trace in the networks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from faceswap_diffusion.faces.alignment import crop, ffhq_matrix
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from faceswap_diffusion.training.engine.validation import (
    MAX_SIDE,
    choose_rows,
    grid,
    next_person,
    pose_values,
    validate,
)
from tests.tiny import CROP_SIZE, tiny_conditioner, tiny_pipeline


@pytest.fixture(scope="module")
def records(prepared_faces) -> list[FaceRecord]:
    faces = PreparedFaces([prepared_faces], CROP_SIZE)
    return [faces[row] for row in range(len(faces))]


def record_of(swapper: FaceSwapper, path: Path) -> FaceRecord:
    """A photo's face as it is prepared for training."""
    rgb = load_photo(path).rgb
    (face,) = swapper.analyzer.analyze(rgb)
    aligned = swapper.align(rgb, face)
    pixels = torch.from_numpy(aligned.pixels).permute(2, 0, 1)
    person = path.name.split("_")[0]
    assert face.head_pose is not None
    assert face.blendshapes is not None
    assert aligned.depth is not None
    return FaceRecord(
        path.stem,
        person,
        pixels,
        aligned.labels,
        aligned.landmarks,
        aligned.depth,
        face.head_pose,
        face.blendshapes,
        torch.empty(2, 0),
    )


def test_everyone_becomes_the_next_person():
    assert next_person(["a", "a", "b", "c"]) == [2, 2, 3, 0]
    assert next_person(["a", "b", "a"]) == [1, 2, 1]
    with pytest.raises(ValueError, match=r"2 face.* of one person"):
        next_person(["a", "a"])


def test_validation_shows_many_people_rather_than_many_faces_of_one():
    assert choose_rows(["a", "a", "b", "b", "c"], 3) == [0, 2, 4]
    assert choose_rows(["a", "a", "b", "b", "c"], 4) == [0, 1, 2, 4]
    assert choose_rows(["a", "b"], 24) == [0, 1]
    with pytest.raises(ValueError, match="of one person"):
        choose_rows(["a", "a"], 1)


def test_swaps_are_those_of_the_swapper(embedded_swapper, example_images):
    swapper = embedded_swapper
    photos = [example_images / f"{name}.jpg" for name in ("p001_portrait", "p010_portrait", "p006_portrait")]
    result = validate(swapper.pipeline, [record_of(swapper, photo) for photo in photos], seed=3)
    assert set(result.values) == {"cosine_to_source", "cosine_to_target", "closer_to_source", "detected", "pose_error"}
    assert result.values["detected"] == 1
    assert result.values["closer_to_source"] > 0.5
    assert result.values["cosine_to_source"] > result.values["cosine_to_target"]
    assert 0 < result.values["pose_error"] < 12
    size = swapper.pipeline.config["crop_size"]
    assert result.picture.size == (3 * size, 3 * size)
    rows = np.asarray(result.picture).reshape(3, size, 3, size, 3).swapaxes(1, 2)
    for column, (target, source) in enumerate(zip(photos, photos[1:] + photos[:1], strict=True)):
        rgb = load_photo(target).rgb
        (face,) = swapper.analyzer.analyze(rgb)
        swapped = np.asarray(swapper.swap(source, target, seed=3).image.convert("RGB"))
        wanted, before = (
            crop(picture, ffhq_matrix(face.landmarks68, size), size).astype(float) for picture in (swapped, rgb)
        )
        # They differ by the way into the photo and back only.
        changed = np.abs(rows[2, column] - before).mean()
        assert np.abs(rows[2, column] - wanted).mean() < 0.3 * changed
        assert changed > 3
        assert np.array_equal(rows[1, column], rows[0, column - 1])


def test_a_random_model_is_validated_and_left_in_its_mode(records):
    pipeline = tiny_pipeline()
    pipeline.unet.train()
    pipeline.conditioner.train()
    pipeline.conditioner.identity_encoder.eval()
    before = {name: value.clone() for name, value in pipeline.unet.state_dict().items()}
    result = validate(pipeline, records[:4], seed=1)
    assert pipeline.unet.training
    assert pipeline.conditioner.training
    assert not pipeline.conditioner.identity_encoder.training
    assert not pipeline.vae.training
    assert all(torch.equal(value, before[name]) for name, value in pipeline.unet.state_dict().items())
    assert {"cosine_to_source", "cosine_to_target", "closer_to_source", "detected"} <= set(result.values)
    assert result.picture.size == (4 * CROP_SIZE, 3 * CROP_SIZE)
    again = validate(pipeline, records[:4], seed=1)
    assert again.values == result.values
    other = validate(pipeline, records[:4], seed=2)
    assert np.any(np.asarray(other.picture)[2 * CROP_SIZE :] != np.asarray(result.picture)[2 * CROP_SIZE :])


def test_fewer_steps_are_taken_where_they_are_asked_for(records):
    pipeline = tiny_pipeline()
    taken = []
    step = pipeline.scheduler.step
    pipeline.scheduler.step = lambda *args, **kwargs: (taken.append(1), step(*args, **kwargs))[1]
    validate(pipeline, records[1:3], num_inference_steps=3)
    assert len(taken) == 3
    validate(pipeline, records[1:3])
    assert len(taken) == 3 + pipeline.config["default_num_inference_steps"]


def test_a_pipeline_of_the_other_recogniser_is_judged_by_it(records):
    pipeline = tiny_pipeline(mask_identity=True, identity_size=64)
    pipeline.register_modules(conditioner=tiny_conditioner(identity_network="ir_se50"))
    values = validate(pipeline, records[1:3]).values
    assert -1 <= values["cosine_to_source"] <= 1


def test_a_pipeline_with_references_is_shown_those_of_the_sources(records, caplog):
    """The next person's face is drawn on each one's mesh; another source gives another picture."""
    pipeline = tiny_pipeline(hidden_fill="reference", default_strength=0.5, default_num_inference_steps=2)
    first, other = (validate(pipeline, [records[1], records[source]]) for source in (2, 6))
    swaps = [np.asarray(result.picture)[2 * CROP_SIZE :, :CROP_SIZE] for result in (first, other)]
    assert (swaps[0] != swaps[1]).any()
    assert caplog.messages == []  # the pipeline would tell of references that it lacks


def test_the_pose_is_compared_with_the_targets(example_images):
    rgb = load_photo(example_images / "p001_portrait.jpg").rgb
    (face,) = MeshFaceAnalyzer().analyze(rgb)
    values = pose_values([rgb, np.zeros_like(rgb)], [face.head_pose + np.array([3, 0, 4]), np.zeros(3)])
    assert values["detected"] == 0.5
    assert values["pose_error"] == pytest.approx(5, abs=1e-3)
    assert pose_values([np.zeros_like(rgb)], [np.zeros(3)]) == {"detected": 0}


def test_large_crops_are_reduced_in_the_picture():
    pixels = np.zeros((2 * MAX_SIDE, 2 * MAX_SIDE, 3), np.uint8)
    assert grid([[pixels, pixels], [pixels, pixels], [pixels, pixels]]).size == (2 * MAX_SIDE, 3 * MAX_SIDE)
