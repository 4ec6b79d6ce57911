"""Training's references: drawn from a number alone, true without faults, and wrong in one way for each fault."""

from dataclasses import fields

import cv2
import numpy as np
import pytest
import torch

from faceswap_diffusion.conditioning.reference import Reference
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478
from faceswap_diffusion.faces.texture import FaceTexture
from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.training.config import ReferenceConfig, SampleConfig
from faceswap_diffusion.training.data.batches import SampleRoles, SwapSamples
from faceswap_diffusion.training.data.dataset import FaceRecord, PreparedFaces
from faceswap_diffusion.training.data.references import TrainingReferences, misalign, to_rgb

NO_FAULTS = dict.fromkeys((field.name for field in fields(ReferenceConfig)), 0.0)


@pytest.fixture(scope="module")
def faces(prepared_faces) -> PreparedFaces:
    return PreparedFaces([prepared_faces], 64)


def references(faces: PreparedFaces, **faults: float) -> TrainingReferences:
    """References with these faults alone."""
    return TrainingReferences(faces, ReferenceConfig(**{**NO_FAULTS, **faults}))


def draw(
    made: TrainingReferences, target: FaceRecord, source: FaceRecord, seed: int = 0, region: str = "face"
) -> torch.Tensor:
    return made.draw(target, source, region, torch.Generator().manual_seed(seed))


def error(reference: torch.Tensor, pixels: torch.Tensor, bare: torch.Tensor) -> float:
    """Mean difference, of 255, where a reference (4, S, S) covers pixels (3, S, S) in [-1, 1] of the bare face."""
    difference = 127.5 * (reference[:3] - pixels).abs().mean(0)
    weights = reference[3] * bare
    return float((difference * weights).sum() / weights.sum())


def bare_face(face: FaceRecord) -> torch.Tensor:
    """Where a photo shows the face, (S, S), without the border that textures leave out."""
    return torch.from_numpy(cv2.erode(repaint_mask(face.labels, face.landmarks), np.ones((5, 5))))


def in_range(face: FaceRecord) -> torch.Tensor:
    return face.pixels.float() / 127.5 - 1


def test_a_generator_decides(faces):
    made = TrainingReferences(faces, ReferenceConfig())
    first, again, other = (draw(made, faces[0], faces[0], seed) for seed in (3, 3, 4))
    assert first.shape == (4, 64, 64)
    assert first.dtype == torch.float32
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first[:3].abs().max() <= 1
    assert 0 <= first[3].min() < first[3].max() <= 1


def test_it_takes_one_number_of_the_samples_generator(faces):
    """What a sample draws afterwards does not depend on the faults."""
    left = []
    for made in (references(faces), references(faces, cycled=1, blurred=1, holed=1)):
        generator = torch.Generator().manual_seed(0)
        made.draw(faces[0], faces[0], "face", generator)
        left.append(torch.rand((), generator=generator))
    assert left[0] == left[1]


@pytest.mark.parametrize("row", [0, 2, 4, 6])
def test_without_faults_the_same_photo_is_the_photo(faces, row: int):
    face = faces[row]
    reference = draw(references(faces), face, face)
    visible = repaint_mask(face.labels, face.landmarks)
    assert (reference[3].numpy() * visible).sum() > 0.8 * visible.sum()
    assert error(reference, in_range(face), bare_face(face)) < 6


def test_the_source_is_shown_and_not_the_target(faces):
    """Faces of two people on one mesh differ."""
    made = references(faces, bare=1)
    target, source, other = faces[0], faces[4], faces[6]
    shown, others = draw(made, target, source), draw(made, target, other)
    both = shown[3] * others[3]
    assert float(((shown - others)[:3].abs().mean(0) * both).sum() / both.sum()) * 127.5 > 5


def test_cycled_textures_have_holes(faces):
    """Seen on other meshes, a face lacks what those hide and what closed mouths and eyes do not show."""
    plain, cycled = (references(faces, bare=1, toothless=1, cycled=share) for share in (0, 1))
    missing = []
    for face in map(faces.__getitem__, range(len(faces))):
        for seed in range(3):
            whole, rest = (draw(made, face, face, seed)[3] for made in (plain, cycled))
            missing.append(float((whole - rest).clamp(min=0).sum() / whole.sum()))
            assert rest.sum() > 0.5 * whole.sum()
    assert max(missing) > 0.02
    assert np.mean(missing) > 0.003


def test_another_photo_of_the_person_is_not_cycled(faces):
    plain, cycled = references(faces), references(faces, cycled=1)
    assert torch.equal(draw(plain, faces[0], faces[1]), draw(cycled, faces[0], faces[1]))


def test_bare_references_show_nothing_around_the_mesh(faces):
    face = faces[0]
    bare, dressed = (draw(references(faces, bare=share), face, face, region="head")[3].numpy() for share in (1, 0))
    mesh = np.zeros((64, 64), np.uint8)
    cv2.fillPoly(mesh, [np.round(face.landmarks[list(FACE_OVAL_478)]).astype(np.int32)], 1)
    around = cv2.dilate(mesh, np.ones((5, 5))) == 0
    assert (bare[around] == 0).all()
    assert (dressed[around] > 0.5).sum() > 200


def test_tone_and_shade_are_those_of_the_texture(faces):
    grey, everywhere = np.full((32, 32, 3), 128, np.float32), np.ones((32, 32), np.float32)
    flat = FaceTexture(grey, everywhere, 1.0, np.zeros(2), 0.0)
    toned, rng = references(faces, toned=3.0), np.random.default_rng(0)
    views = [cv2.cvtColor(toned._shade(flat, rng).pixels / 255, cv2.COLOR_RGB2Lab) for _ in range(200)]
    lab = np.stack(views).reshape(200, -1, 3)
    assert lab.std(axis=1).max() < 0.5  # the same everywhere
    np.testing.assert_allclose(lab.mean(axis=1).std(axis=0), 3, rtol=0.2)
    shaded = references(faces, shaded=0.1)._shade(flat, rng)
    assert shaded.pixels.std() > 3
    np.testing.assert_allclose(references(faces)._shade(flat, rng).pixels, grey, atol=0.1)


def test_blur_and_holes(faces):
    noise = np.random.default_rng(0).uniform(0, 255, (256, 256, 3)).astype(np.float32)
    reference = Reference(noise, np.ones((256, 256), np.float32))
    rng = np.random.default_rng(0)
    assert references(faces).spoil(reference, rng) is reference
    blurred = [references(faces, blurred=1).spoil(reference, rng) for _ in range(10)]
    assert np.mean([view.pixels.std() for view in blurred]) < 0.8 * noise.std()
    assert all((view.coverage == 1).all() for view in blurred)
    shares = [1 - references(faces, holed=1).spoil(reference, rng).coverage.mean() for _ in range(20)]
    assert 0.02 < np.mean(shares) < 0.3


@pytest.mark.parametrize("sigma", [0.0, 2.0])
def test_meshes_are_moved_by_what_was_said(faces, sigma: float):
    landmarks, rng = faces[0].landmarks, np.random.default_rng(0)
    moves = np.stack([misalign(landmarks, sigma, rng) - landmarks for _ in range(400)])
    assert np.sqrt((moves**2).mean()) == pytest.approx(sigma, rel=0.15)  # in x and in y
    if sigma:
        assert 0.6 * sigma < moves.mean(axis=1).std() < sigma  # together
        near, far = (np.abs(moves[:, 33] - moves[:, point]).mean() for point in (246, 291))
        assert near < 0.5 * far  # smoothly


class TestSamples:
    @staticmethod
    def samples(faces: PreparedFaces, made: TrainingReferences | None, **changes: float) -> SwapSamples:
        config = SampleConfig(mask_sets=("face",), pair_probability=0.0, occluded_targets=0.0, **changes)
        return SwapSamples(faces, config, SampleRoles.from_shares(0, 0), 4, references=made)

    def test_a_reference_is_mirrored_like_its_target(self, faces):
        samples, seen = self.samples(faces, references(faces)), set()
        for index in range(10):
            sample, face = samples[index], faces[samples.row(index)]
            assert sample["reference"].shape == (3, 64, 64)
            assert sample["reference_mask"].shape == (1, 64, 64)
            both = torch.cat([sample["reference"], sample["reference_mask"]])
            straight = torch.equal(sample["pixels"], in_range(face))
            bare = bare_face(face).flip([] if straight else [-1])
            assert error(both, sample["pixels"], bare) < 6
            flipped = error(both, sample["pixels"].flip(-1), bare)
            assert flipped > error(both, sample["pixels"], bare) + 1
            seen.add(straight)
        assert seen == {True, False}

    def test_a_batch_has_them_and_the_rest_is_as_without(self, faces):
        with_references, without = self.samples(faces, references(faces)), self.samples(faces, None)
        batch = with_references.collate([with_references[index] for index in range(2)])
        assert batch.reference is not None
        assert batch.reference.shape == (2, 3, 64, 64)
        assert batch.reference_mask is not None
        assert batch.reference_mask.shape == (2, 1, 64, 64)
        plain = without.collate([without[index] for index in range(2)])
        assert plain.reference is plain.reference_mask is None
        for name in ("pixels", "mask", "landmarks", "source_pixels", "source_mask", "identity_embeds"):
            assert torch.equal(getattr(plain, name), getattr(batch, name)), name

    def test_masks_are_enlarged_as_often_as_settings_say(self, faces):
        def areas(share: float) -> np.ndarray:
            samples = self.samples(faces, None, warped_masks=share)
            own = [faces[samples.row(index)] for index in range(8)]
            sizes = [repaint_mask(face.labels, face.landmarks).sum() for face in own]
            return np.array([float(samples[index]["mask"].sum()) for index in range(8)]) / sizes

        assert areas(1.0).mean() > areas(0.0).mean() + 0.03
        assert np.abs(areas(0.0) - 1).max() < 0.12  # they are softened


def test_pixels_of_a_record(faces):
    np.testing.assert_array_equal(to_rgb(faces[0])[10, 20], faces[0].pixels[:, 10, 20])
