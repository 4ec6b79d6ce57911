import numpy as np
import pytest
import torch

from faceswap_diffusion.masks.bisenet import REFACE_LABELS
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import REGIONS, repaint_mask
from faceswap_diffusion.training.data.mask_shuffling import (
    MASK_SETS,
    MaskSet,
    check_mask_sets,
    draw_mask_set,
    parse_mask_sets,
    region_or_face,
)

LANDMARKS = np.stack([32 + 20 * np.cos(np.arange(478.0)), 32 + 20 * np.sin(np.arange(478.0))], -1).astype(np.float32)
"""478 points around a circle of radius 20 in a crop of 64 pixels."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_sets_name_regions_and_the_face_is_refaces():
    assert {region for each in MASK_SETS.values() for region in (each.hidden, each.shown)} <= set(REGIONS)
    assert MASK_SETS["face"] == MaskSet("face", "face")
    assert MASK_SETS["head"] == MaskSet("head", "head")


def test_what_is_hidden_is_shown():
    assert all(REGIONS[each.hidden] <= REGIONS[each.shown] for each in MASK_SETS.values())


def test_shares_sum_to_one():
    assert parse_mask_sets(["face=0.6", "head=0.3", "hair=0.3"]) == pytest.approx(
        {"face": 0.5, "head": 0.25, "hair": 0.25}
    )
    assert parse_mask_sets(["face"]) == {"face": 1.0}
    assert parse_mask_sets(["face", "head=3"]) == {"face": 0.25, "head": 0.75}


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([], "got no mask set; choose at least one of face, head"),
        (["nose=1"], "got mask set 'nose'; choose among face, head, hair, features, accessories"),
        (["face=0"], "got mask set 'face=0'; its weight must be a positive number, as in face=0.5"),
        (["face=-1"], "got mask set 'face=-1'"),
        (["face=much"], "got mask set 'face=much'"),
        (["face=nan"], "got mask set 'face=nan'"),
        (["face=inf"], "got mask set 'face=inf'"),
    ],
)
def test_other_choices_are_refused(choices, message):
    with pytest.raises(ValueError, match=message):
        parse_mask_sets(choices)


def test_sets_are_drawn_as_often_as_asked():
    weights = parse_mask_sets(["face=0.5", "head=0.3", "hair=0.2"])
    drawn = [draw_mask_set(weights, generator(seed)).hidden for seed in range(1000)]
    for name, share in weights.items():
        assert drawn.count(name) / 1000 == pytest.approx(share, abs=0.05)
    assert draw_mask_set(weights, generator(7)) == draw_mask_set(weights, generator(7))


def test_another_persons_source_repaints_the_face():
    weights = parse_mask_sets(["face=0.1", "head=0.1", "hair", "features", "accessories"])
    drawn = [draw_mask_set(weights, generator(seed), repaints_face=True).hidden for seed in range(100)]
    assert set(drawn) == {"face", "head"}
    assert 30 < drawn.count("face") < 70
    with pytest.raises(ValueError, match="got mask sets hair, features; another person's face needs face or head"):
        draw_mask_set(parse_mask_sets(["hair", "features"]), generator(), repaints_face=True)


def test_a_region_that_is_there_is_its_mask_and_one_that_is_not_the_face():
    labels = np.full((64, 64), LABELS.index("skin"), np.uint8)
    face = repaint_mask(labels, LANDMARKS, "face")
    assert face.mean() > 0.2
    assert np.array_equal(region_or_face(labels, LANDMARKS, "hair"), face)
    labels[0, :15] = LABELS.index("hair")  # 15 pixels of 4096: a strand
    face = repaint_mask(labels, LANDMARKS, "face")
    assert np.array_equal(region_or_face(labels, LANDMARKS, "hair"), face)
    labels[0, :16] = LABELS.index("hair")
    assert region_or_face(labels, LANDMARKS, "hair").sum() == 16


def test_labels_of_another_parser_have_accessories():
    labels = np.full((64, 64), REFACE_LABELS.index("skin"), np.uint8)
    labels[20:30, 10:50] = REFACE_LABELS.index("glasses")
    labels[40:44, 8:10] = REFACE_LABELS.index("earrings")
    mask = region_or_face(labels, LANDMARKS, "accessories", REFACE_LABELS)
    assert mask.sum() == 10 * 40 + 4 * 2
    check_mask_sets(MASK_SETS, REFACE_LABELS)


def test_sets_without_labels_are_refused():
    check_mask_sets(["face", "head", "hair", "features"], LABELS)
    with pytest.raises(ValueError, match="got mask set 'accessories', but the masks have no earrings or glasses"):
        check_mask_sets(["face", "accessories"], LABELS)
