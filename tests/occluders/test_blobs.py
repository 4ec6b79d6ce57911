"""Things pasted before faces: drawn from a number, on the face, with soft edges, and left out of the mask."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from faceswap_diffusion.occluders.blobs import Occluder, draw_occluder
from faceswap_diffusion.training.config import ReferenceConfig, SampleConfig
from faceswap_diffusion.training.data.batches import SampleRoles, SwapSamples
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.data.references import TrainingReferences


@pytest.fixture(scope="module")
def faces(prepared_faces) -> PreparedFaces:
    return PreparedFaces([prepared_faces], 64)


def samples(faces: PreparedFaces, share: float) -> SwapSamples:
    config = SampleConfig(mask_sets=("face",), warped_masks=0, occluded_targets=share)
    return SwapSamples(faces, config, SampleRoles(1, 0, 0), 4)


def test_an_occluder_is_laid_over_a_picture():
    alpha, shadow = np.array([[0, 1], [0.5, 0]], np.float32), np.array([[0, 0], [0, 0.25]], np.float32)
    occluder = Occluder(np.full((2, 2, 3), 200, np.float32), alpha, covered=alpha, shadow=shadow)
    over = occluder.over(np.full((2, 2, 3), 100, np.uint8))
    assert over.dtype == np.uint8
    np.testing.assert_array_equal(over[..., 0], [[100, 200], [150, 75]])


def test_shapes_lie_on_the_face_and_differ():
    landmarks = np.random.default_rng(0).uniform(100, 150, (478, 2))
    picture = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    drawn = [draw_occluder(landmarks, picture, np.random.default_rng(seed)) for seed in range(30)]
    again = draw_occluder(landmarks, picture, np.random.default_rng(7))
    np.testing.assert_array_equal(again.alpha, drawn[7].alpha)
    np.testing.assert_array_equal(again.pixels, drawn[7].pixels)
    for occluder in drawn:
        y, x = np.nonzero(occluder.alpha > 0.5)
        assert 60 < x.mean() < 190
        assert 60 < y.mean() < 190
    shares = [occluder.alpha.mean() for occluder in drawn]
    assert 0.003 < min(shares) < 0.02  # from a finger
    assert 0.08 < max(shares) < 0.4  # to a hand


def test_targets_are_occluded_where_their_masks_are_not(faces):
    plain, occluded = samples(faces, 0.0), samples(faces, 1.0)
    for index in range(8):
        without, sample = plain[index], occluded[index]
        changed = (sample["pixels"] - without["pixels"]).abs().amax(0) > 0.1
        assert changed.any()
        assert (sample["mask"][0][changed] < 0.6).all()


def test_references_show_what_no_parser_noticed(faces):
    face, free = faces[0], ReferenceConfig(**dict.fromkeys(ReferenceConfig.__dataclass_fields__, 0.0))
    views = [
        TrainingReferences(faces, replace(free, occluded=share)).draw(
            face, face, "face", torch.Generator().manual_seed(3)
        )
        for share in (0.0, 1.0)
    ]
    both = torch.minimum(views[0][3], views[1][3])
    assert float(((views[0] - views[1])[:3].abs().mean(0) * both).max()) > 0.1
