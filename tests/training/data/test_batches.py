"""Samples of a run: their roles, their sources, and that each depends on its number alone."""

from collections import Counter

import pytest
import torch

from faceswap_diffusion.training.config import SampleConfig
from faceswap_diffusion.training.data.batches import SampleRoles, StepBatches, SwapSamples, derange
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.engine.randomness import generator_for


def samples_of(faces: PreparedFaces, roles=SampleRoles.from_shares(0.5, 0.25), seed=0, **changes) -> SwapSamples:  # noqa: B008
    return SwapSamples(faces, SampleConfig(mask_sets=("face", "head"), **changes), roles, 4, seed)


def test_shares_make_the_shortest_period_of_whole_samples():
    assert SampleRoles.from_shares(0.25, 0.25) == SampleRoles(
        period=4, num_cross_identity=1, num_self_reconstruction=1
    )
    assert SampleRoles.from_shares(0.5, 0.125) == SampleRoles(
        period=8, num_cross_identity=4, num_self_reconstruction=1
    )
    assert SampleRoles.from_shares(0, 0) == SampleRoles(period=1, num_cross_identity=0, num_self_reconstruction=0)
    roles = SampleRoles.from_shares(1 / 3, 1 / 3)
    assert [roles.of(index) for index in range(4)] == [
        "cross_identity", "self_reconstruction", "denoising", "cross_identity",
    ]  # fmt: skip


@pytest.mark.parametrize("shares", [(0.7, 0.5), (-0.1, 0.5)])
def test_shares_that_cannot_be_are_refused(shares):
    with pytest.raises(ValueError, match="both together 1 at most"):
        SampleRoles.from_shares(*shares)


def test_roles_refuse_batches_in_which_they_do_not_come_out_even():
    roles = SampleRoles.from_shares(0.25, 0.25)
    roles.check(batch_size=8, global_batch_size=8)
    with pytest.raises(ValueError, match="use a multiple of 4"):
        roles.check(batch_size=6, global_batch_size=12)


def test_a_global_batch_of_one_is_an_error_where_others_sources_are_wanted():
    with pytest.raises(ValueError, match="global batch of 1"):
        SampleRoles.from_shares(1, 0).check(batch_size=1, global_batch_size=1)
    SampleRoles.from_shares(1, 0).check(batch_size=1, global_batch_size=2)
    SampleRoles.from_shares(0, 0).check(batch_size=1, global_batch_size=1)


@pytest.mark.parametrize("identities", ["abcdef", "aabb", "aabbcc", "ab", "aaabbb", "abbcdeeffa"])
def test_a_derangement_gives_everybody_another_persons_picture_and_each_picture_once(identities):
    for seed in range(20):
        partners = derange(identities, torch.Generator().manual_seed(seed))
        assert sorted(partners) == list(range(len(identities)))
        assert all(identities[partner] != identity for partner, identity in zip(partners, identities, strict=True))


def test_a_derangement_leaves_out_only_whom_nobody_is_left_for():
    partners = derange("aaab", torch.Generator().manual_seed(0))
    assert partners[3] in (0, 1, 2)
    assert sorted(partner for partner in partners[:3] if partner is not None) == [3]
    assert derange("aa", torch.Generator().manual_seed(0)) == [None, None]


def test_a_step_is_made_of_the_same_samples_however_it_is_divided():
    alone = list(StepBatches(8, first_step=3, last_step=5))
    assert alone == [list(range(24, 32)), list(range(32, 40))]
    accumulated = list(StepBatches(4, first_step=3, last_step=5, num_accumulated=2))
    assert [first + second for first, second in zip(accumulated[::2], accumulated[1::2], strict=True)] == alone
    processes = [list(StepBatches(2, 3, 5, 2, index, 2)) for index in range(2)]
    for step in range(2):
        together = [number for process in processes for batch in process[2 * step : 2 * step + 2] for number in batch]
        assert sorted(together) == alone[step]
    assert len(StepBatches(2, 3, 5, 2, 0, 2)) == 4


def test_every_epoch_sees_every_face_once_in_another_order(prepared_faces):
    samples = samples_of(PreparedFaces([prepared_faces], 64))
    count = len(samples.faces)
    epochs = [[samples.row(epoch * count + position) for position in range(count)] for epoch in range(3)]
    assert all(sorted(epoch) == list(range(count)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_cross_samples_have_another_person_of_their_step_and_each_target_lends_its_face_once(prepared_faces):
    samples = samples_of(PreparedFaces([prepared_faces], 64), roles=SampleRoles.from_shares(1, 0))
    for step in range(6):
        indices = range(step * 4, step * 4 + 4)
        targets = [samples.row(index) for index in indices]
        sources = [samples.source_row(index, torch.Generator()) for index in indices]
        assert Counter(sources) == Counter(targets)
        people = samples.faces.identities
        assert all(people[source] != people[target] for source, target in zip(sources, targets, strict=True))


def test_two_pictures_of_one_person_become_source_and_target(prepared_faces):
    chosen = {"roles": SampleRoles.from_shares(0, 0)}
    faces = PreparedFaces([prepared_faces], 64)
    always = samples_of(faces, pair_probability=1.0, **chosen)
    never = samples_of(faces, pair_probability=0.0, **chosen)
    paired = Counter(faces.identities)
    assert max(paired.values()) > 1
    for index in range(12):
        row = always.row(index)
        source = always.source_row(index, generator_for(0, "sample", index))
        assert faces.identities[source] == faces.identities[row]
        assert (source != row) == (paired[faces.identities[row]] > 1)
        assert never.source_row(index, generator_for(0, "sample", index)) == row


def test_a_sample_is_the_same_whoever_asks_and_differs_from_the_same_face_in_the_next_epoch(prepared_faces):
    faces = PreparedFaces([prepared_faces], 64)
    first, second = samples_of(faces), samples_of(PreparedFaces([prepared_faces], 64))
    for index in (5, 0, 3):
        for name, tensor in first[index].items():
            assert torch.equal(tensor, second[index][name]), name
    other_seed = samples_of(faces, seed=1)
    assert not torch.equal(first[0]["mask"], other_seed[0]["mask"])
    row = first.row(0)
    later = next(index for index in range(len(faces), 2 * len(faces)) if first.row(index) == row)
    assert not torch.equal(first[0]["landmarks"], first[later]["landmarks"])


def test_a_batch_is_sorted_by_roles_and_shaped_for_the_networks(prepared_faces):
    samples = samples_of(PreparedFaces([prepared_faces], 64))
    batch = samples.collate([samples[index] for index in range(4)])
    assert (batch.num_cross_identity, batch.num_self_reconstruction) == (2, 1)
    assert batch.indices.tolist() == [0, 1, 2, 3]
    assert batch.pixels.shape == batch.source_pixels.shape == (4, 3, 64, 64)
    assert batch.mask.shape == batch.source_mask.shape == (4, 1, 64, 64)
    assert batch.landmarks.shape == (4, 68, 2)
    torch.testing.assert_close(batch.identity_embeds.norm(dim=1), torch.ones(4))
    assert batch.pixels.min() >= -1
    assert batch.pixels.max() <= 1
    assert 0.02 < batch.mask.mean() < 0.9
    shuffled = samples.collate([samples[index] for index in (3, 1, 2, 0)])
    assert shuffled.indices.tolist() == [1, 0, 2, 3]


def test_landmarks_follow_the_mirrored_picture(prepared_faces):
    faces = PreparedFaces([prepared_faces], 64)
    samples = samples_of(faces, landmark_noise=0.0, roles=SampleRoles.from_shares(0, 0))
    seen = set()
    for index in range(20):
        sample, face = samples[index], faces[samples.row(index)]
        mirrored = not torch.equal(sample["pixels"], face.pixels.float() / 127.5 - 1)
        left_eye, right_eye = sample["landmarks"][36:42, 0].mean(), sample["landmarks"][42:48, 0].mean()
        assert left_eye < right_eye  # dlib's first eye is the one at the viewer's left
        nose = torch.from_numpy(face.landmarks[1])
        wanted = 63 - nose[0] if mirrored else nose[0]
        assert abs(sample["landmarks"][30, 0] - wanted) < 4
        seen.add(mirrored)
    assert seen == {True, False}


def test_faces_of_one_person_are_refused_where_others_sources_are_wanted(one_person):
    faces = PreparedFaces([one_person], 64)
    with pytest.raises(ValueError, match="are of one person"):
        samples_of(faces)
    assert len(samples_of(faces, roles=SampleRoles.from_shares(0, 0.5)).faces) == len(faces)
