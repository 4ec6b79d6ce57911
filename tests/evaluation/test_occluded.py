"""The protocol `occluded`: the same drawings in every run, and figures by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.evaluation.methods import Swap
from faceswap_diffusion.evaluation.occluded import (
    cover,
    figures_by_kind,
    kinds_in_turn,
    occluded_pairs,
    occlusion_figures,
    opened_set,
    sides_covered,
)
from faceswap_diffusion.occluders.kinds import KINDS, UNSEEN_KINDS
from faceswap_diffusion.photos.loading import load_photo

IMAGES = Path(__file__).parents[2] / "examples" / "images"
NAMES = ("p001_portrait", "p006_portrait", "p010_portrait")


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("people")
    for name in NAMES:
        Image.open(IMAGES / f"{name}.jpg").convert("RGB").resize((192, 192)).save(folder / f"{name}.png")
    (folder / "manifest.csv").write_text("".join(["file,identity\n", *(f"{name}.png,{name}\n" for name in NAMES)]))
    return folder


def test_kinds_take_turns_and_every_fifth_face_is_bare():
    kinds = kinds_in_turn(18)
    assert kinds[:6] == ["eyeglasses", "sunglasses", "hand", "hair", "nothing", "microphone"]
    assert [index for index, kind in enumerate(kinds) if kind == "nothing"] == [4, 9, 14]
    assert set(kinds) == {*KINDS, *UNSEEN_KINDS, "nothing"}
    assert kinds_in_turn(4) == kinds[:4]


def test_pairs_are_drawn_the_same_each_time_and_nothing_else_changes(people: Path, tmp_path: Path):
    with opened_set("occluded", people, 2) as first:
        second = occluded_pairs(people, tmp_path, 2)
        assert [pair.target.name for pair in first.pairs] == [
            "eyeglasses-p006_portrait.png", "sunglasses-p010_portrait.png"
        ]  # fmt: skip
        for pair, again, bare in zip(first.pairs, second.pairs, NAMES[1:], strict=True):
            assert pair.source.stem != bare
            assert pair.occlusion is not None
            assert again.occlusion is not None
            assert pair.target.read_bytes() == again.target.read_bytes()
            drawn, before = load_photo(pair.target).rgb, load_photo(people / f"{bare}.png").rgb
            covered, face = (load_photo(path).rgb[..., 0] for path in (pair.occlusion.covered, pair.occlusion.face))
            assert (drawn != before)[covered > 200].any(axis=1).mean() > 0.95
            assert np.array_equal(drawn[:10], before[:10])  # above the head
            assert 0.01 <= (covered[face > 127] > 127).mean() <= 0.6
            assert 0.1 < (face > 127).mean() < 0.6
    assert not first.pairs[0].target.exists()


def test_photos_have_to_be_square():
    picture = np.zeros((40, 50, 3), np.uint8)
    with pytest.raises(ValueError, match="got a photo of 50 x 40 pixels; occluded needs square"):
        cover(picture, picture, np.zeros((478, 2)), picture[..., 0] > 0, "hand", np.random.default_rng(0))


def test_figures_of_a_swap_by_hand():
    target = np.full((200, 200, 3), 100, np.uint8)
    inside = np.zeros((200, 200), bool)
    inside[50:150, 50:150] = True
    covered = np.zeros((200, 200), np.float32)
    covered[50:150, 50:100] = 1
    rgb, mask, found = target.copy(), np.zeros((200, 200), np.float32), np.zeros((200, 200), np.float32)
    rgb[50:150, 90:150] = 150  # a fifth of what is hidden is painted over
    rgb[50:60, 50:60] = 104  # this is within the tolerance
    mask[50:150, 110:150] = 1
    found[50:150, 50:100] = 1
    figures = occlusion_figures(Swap(rgb, mask, occlusion=found), target, covered, inside)
    assert figures["occluder_unchanged"] == pytest.approx(0.8)
    # The face without its edge of 3 pixels has 47 free columns, 10 of them not painted.
    assert figures["free_left_alone"] == pytest.approx(10 / 47)
    assert figures["occlusion_iou"] == pytest.approx(1, abs=0.03)  # what was drawn is compared with a margin
    assert "bare_covered" not in figures


def test_figures_of_bare_faces_and_of_methods_that_do_not_tell():
    target, inside = np.zeros((100, 100, 3), np.uint8), np.ones((100, 100), bool)
    bare, found = np.zeros((100, 100), np.float32), np.zeros((100, 100), np.float32)
    found[:2] = 1
    assert occlusion_figures(Swap(target, occlusion=found), target, bare, inside) == {"bare_covered": 0.02}
    assert occlusion_figures(Swap(target), target, bare + 1, inside) == {"occluder_unchanged": 1.0}


def test_means_by_kind_leave_out_what_was_not_measured():
    values = {"occluder_unchanged": np.array([[0.5, np.nan, 9.0, 1.0], [0.7, np.nan, 9.0, 1.0]])}
    kinds = ["hand", "nothing", None, "hand"]
    assert figures_by_kind(kinds, values, ["occluder_unchanged", "bare_covered"]) == {
        "hand": {"pairs": 2, "occluder_unchanged": pytest.approx(0.8)},
        "nothing": {"pairs": 1},
    }
    assert figures_by_kind([None], {}, ["detected"]) == {}


def test_pairs_are_told_apart_by_the_faces_that_are_covered():
    shares = np.array([[0.0, 0.02], [0.03, 0.0], [0.0, 0.03], [0.5, 0.5], [np.nan, 0.0]])
    assert sides_covered(shares) == ["nothing", "of the source", "of the target", "of both", None]
