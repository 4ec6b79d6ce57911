"""Region masks: what is covered, what is spared, and what happens when parser and landmarks disagree."""

import numpy as np
import pytest

from faceswap_diffusion.masks.bisenet import REFACE_LABELS
from faceswap_diffusion.masks.outlines import above_brows, region_mask_from_landmarks, upper_half
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import (
    REGIONS,
    face_mask,
    feather,
    head_mask,
    region_labels,
    region_mask,
    region_names,
    repaint_mask,
)

SIZE = 128


def outline(centre: tuple[float, float], radii: tuple[float, float], angles: np.ndarray) -> np.ndarray:
    radians = np.deg2rad(angles)
    return np.stack([centre[0] + radii[0] * np.cos(radians), centre[1] + radii[1] * np.sin(radians)], -1)


@pytest.fixture
def landmarks() -> np.ndarray:
    """dlib's 68 points of a schematic face in a 128 px crop: chin at (64, 112), brows at y = 50."""
    points = np.empty((68, 2))
    points[:17] = outline((64, 64), (34, 48), np.linspace(190, -10, 17))
    points[17:27] = [
        (38, 52),
        (43, 49),
        (48, 48),
        (53, 49),
        (57, 51),
        (71, 51),
        (75, 49),
        (80, 48),
        (85, 49),
        (90, 52),
    ]
    points[27:36] = [(64, 58), (64, 64), (64, 70), (64, 76), (57, 80), (60, 82), (64, 83), (68, 82), (71, 80)]
    points[36:42] = outline((48, 60), (6, 3), np.array([180, 240, 300, 0, 60, 120]))
    points[42:48] = outline((80, 60), (6, 3), np.array([180, 240, 300, 0, 60, 120]))
    points[48:60] = outline((64, 94), (13, 5), np.arange(180, 540, 30))
    points[60:] = outline((64, 94), (9, 1), np.arange(180, 540, 45))
    return points


@pytest.fixture
def labels(landmarks) -> np.ndarray:
    """Parsing labels of the same face: skin and its parts, hair above, neck below, background around."""
    labels = np.zeros((SIZE, SIZE), np.uint8)
    labels[:60, 24:104] = LABELS.index("hair")
    labels[100:, 44:84] = LABELS.index("other")
    labels[region_mask_from_landmarks(landmarks, SIZE) > 0] = LABELS.index("skin")
    for part, label in {"brows": "brows", "eyes": "eyes", "nose": "nose", "mouth": "lips"}.items():
        labels[region_mask_from_landmarks(landmarks, SIZE, part) > 0] = LABELS.index(label)
    return labels


def test_regions_name_labels_that_exist():
    assert set().union(*REGIONS.values()) <= set(LABELS) | set(REFACE_LABELS)
    assert REGIONS["head"] == REGIONS["face"] | REGIONS["hair"] | REGIONS["accessories"]
    assert REGIONS["features"] == REGIONS["brows"] | REGIONS["eyes"] | REGIONS["nose"] | REGIONS["mouth"]


def test_region_mask_picks_its_labels():
    labels = np.array([[LABELS.index(name) for name in LABELS]], np.uint8)
    assert region_mask(labels, "hair").tolist() == [[0, 0, 1, 0, 0, 0, 0, 0, 0]]
    assert region_mask(labels, "face").tolist() == [[0, 1, 0, 1, 1, 1, 1, 1, 0]]
    assert region_mask(labels, "face").dtype == np.float32
    with pytest.raises(ValueError, match=r"'ears'.*face, head"):
        region_mask(labels, "ears")


def test_the_face_of_dlibs_points_reaches_from_forehead_to_chin(landmarks):
    mask = region_mask_from_landmarks(landmarks, SIZE)
    rows = np.nonzero(mask[:, 64])[0]
    assert rows.max() == 112
    brows, chin = landmarks[17:27].mean(0)[1], 112
    assert rows.min() == pytest.approx(brows - 0.35 * (chin - brows), abs=3)
    assert mask[70, 20] == mask[70, 108] == 0
    assert mask[70, 35] == mask[70, 93] == 1


def test_landmark_parts_are_where_they_should_be(landmarks):
    eyes = region_mask_from_landmarks(landmarks, SIZE, "eyes")
    assert eyes[60, 48] == eyes[60, 80] == 1
    assert eyes[60, 64] == 0
    mouth = region_mask_from_landmarks(landmarks, SIZE, "mouth")
    assert mouth[94, 64] == 1
    assert np.nonzero(mouth)[1].min() == 51
    assert region_mask_from_landmarks(landmarks, SIZE, "brows")[49, 48] == 1


def test_landmarks_off_the_crop_are_cut_and_odd_ones_refused(landmarks):
    assert region_mask_from_landmarks(landmarks + 500, SIZE).max() == 0
    assert region_mask_from_landmarks(landmarks + np.array([60, 0]), SIZE)[:, -1].max() == 1
    with pytest.raises(ValueError, match="hair"):
        region_mask_from_landmarks(landmarks, SIZE, "hair")
    with pytest.raises(ValueError, match="got 5 landmarks"):
        region_mask_from_landmarks(landmarks[:5], SIZE)


def test_face_mask_is_the_parsers_face_when_both_agree(labels, landmarks):
    assert np.array_equal(face_mask(labels, landmarks), region_mask(labels, "face"))


def test_face_mask_spares_a_hand_and_hair_over_the_face(labels, landmarks):
    labels[84:112, 60:90] = LABELS.index("other")  # a hand before mouth and chin
    labels[40:80, 34:44] = LABELS.index("hair")  # a strand over a temple
    mask = face_mask(labels, landmarks)
    assert mask[84:112, 60:90].max() == 0
    assert mask[40:80, 34:44].max() == 0
    assert mask[70, 64] == 1


def test_face_mask_keeps_the_chin_below_a_bar_and_drops_islands_of_a_few_pixels(labels, landmarks):
    labels[96:102] = LABELS.index("other")
    labels[12:16, 62:66] = LABELS.index("skin")
    mask = face_mask(labels, landmarks)
    assert mask[96:102].max() == 0
    assert mask[108, 64] == 1
    assert mask[12:16, 62:66].max() == 0


def test_face_mask_takes_a_beard_in(labels, landmarks):
    beard = np.s_[98:110, 52:76]
    labels[beard] = LABELS.index("hair")
    assert face_mask(labels, landmarks)[beard].mean() > 0.95


def test_face_mask_closes_specks_and_what_is_called_background_inside_the_face(labels, landmarks):
    clean = face_mask(labels, landmarks)
    labels[70:74, 50:54] = LABELS.index("hair")
    labels[60:80, 60:68] = LABELS.index("background")
    assert np.array_equal(face_mask(labels, landmarks), clean)


def test_face_mask_leaves_out_a_second_face(labels, landmarks):
    labels[5:45, 2:22] = LABELS.index("skin")
    mask = face_mask(labels, landmarks)
    assert mask[:, :22].max() == 0
    assert mask[70, 64] == 1


def test_face_mask_falls_back_on_the_landmarks_when_the_parser_sees_no_face(landmarks):
    for label in ("background", "hair", "other"):
        labels = np.full((SIZE, SIZE), LABELS.index(label), np.uint8)
        assert np.array_equal(face_mask(labels, landmarks), region_mask_from_landmarks(landmarks, SIZE))


def test_head_mask_adds_hair_and_the_forehead_between(labels, landmarks):
    labels[30:36, 44:84] = LABELS.index("other")  # forehead above the mesh, which the parser calls "other"
    mask = head_mask(labels, landmarks)
    assert mask[10, 64] == 1
    assert mask[30:36, 46:82].min() == 1
    assert mask[120, 64] == 0
    assert (mask >= face_mask(labels, landmarks)).all()


def test_head_mask_spares_a_hand(labels, landmarks):
    labels[84:112, 60:90] = LABELS.index("other")
    assert head_mask(labels, landmarks)[88:108, 64:80].max() == 0


def test_repaint_mask_dispatches(labels, landmarks):
    assert np.array_equal(repaint_mask(labels, landmarks, "head"), head_mask(labels, landmarks))
    assert np.array_equal(repaint_mask(labels, landmarks, "head", list(LABELS)), head_mask(labels, landmarks))
    assert np.array_equal(repaint_mask(labels, landmarks), face_mask(labels, landmarks))
    assert np.array_equal(repaint_mask(labels, landmarks, "hair"), region_mask(labels, "hair"))
    with pytest.raises(ValueError, match="choose one of"):
        repaint_mask(labels, landmarks, "knee")


@pytest.mark.parametrize("written", ["lower-face", "lower_face", "lower face", " Lower  Face "])
def test_names_of_two_words_are_written_with_hyphen_underscore_or_blank(written: str):
    assert region_names(written) == ("lower-face",)


def test_regions_are_joined_by_plus_in_one_order_and_each_once():
    assert region_names("eyes+brows") == region_names("brows + eyes+eyes") == ("brows", "eyes")
    assert region_labels("mouth+hair") == {"lips", "mouth", "hair"}
    assert region_labels("lower-face") == REGIONS["face"]
    for wrong, named in (("eyes+nostril", "nostril"), ("", ""), ("eyes+", ""), ("lowerface", "lowerface")):
        with pytest.raises(ValueError, match=f"got region '{named}'; choose one of face, head, .* join several by"):
            region_names(wrong)


def test_joined_regions_are_what_any_of_them_is(labels, landmarks):
    mouth, hair = (repaint_mask(labels, landmarks, region) for region in ("mouth", "hair"))
    assert np.array_equal(repaint_mask(labels, landmarks, "hair+mouth"), np.maximum(mouth, hair))


def test_the_face_is_halved_at_the_middle_of_the_nose(labels, landmarks):
    whole, upper, lower = (repaint_mask(labels, landmarks, name) for name in ("face", "upper-face", "lower-face"))
    middle = (58 + 83) / 2  # of the root and the base of the nose
    assert np.nonzero(upper)[0].max() == int(middle)
    assert np.nonzero(lower)[0].min() == int(middle) + 1
    assert np.array_equal(upper + lower, whole)


def test_the_halves_turn_with_the_head(landmarks):
    lying = np.stack([127 - landmarks[:, 1], landmarks[:, 0]], axis=1)  # the forehead on the right
    half = upper_half(lying, SIZE)
    assert half[:, 57:].min() == 1  # 127 - 70.5 = 56.5
    assert half[:, :57].max() == 0


def test_the_forehead_is_above_the_highest_brow(landmarks):
    assert np.nonzero(above_brows(landmarks, SIZE))[0].max() == 47  # brows reach up to 48
    lying = np.stack([127 - landmarks[:, 1], landmarks[:, 0]], axis=1)
    assert np.nonzero(above_brows(lying, SIZE))[1].min() == 80  # 127 - 47


def test_eyes_have_their_lids_and_no_brows(labels, landmarks):
    eyes = repaint_mask(labels, landmarks, "eyes")
    unit = np.sqrt(region_mask_from_landmarks(landmarks, SIZE).sum())
    rows = np.nonzero(eyes[:, 48])[0]
    assert 60 - 3 - rows.min() == pytest.approx(0.085 * unit, abs=1.5)  # the opening ends at y = 57
    assert eyes[48, 48] == eyes[60, 64] == 0


def test_parts_are_seen_by_landmarks_or_by_the_parser_if_it_is_near(labels, landmarks):
    plain = repaint_mask(labels, landmarks, "nose")
    labels[78:81, 60:68] = LABELS.index("background")  # nostrils
    assert repaint_mask(labels, landmarks, "nose")[78:81, 60:68].min() == 1
    labels[59:83, 30:34] = LABELS.index("nose")  # on the cheek: a mistake
    labels[85:87, 62:66] = LABELS.index("nose")  # below the outline, which ends at y = 83
    nose = repaint_mask(labels, landmarks, "nose")
    assert nose[:, :40].max() == 0
    assert nose[85:87, 62:66].min() == 1
    assert nose.sum() >= plain.sum()


def test_parts_leave_out_what_the_face_leaves_out(labels, landmarks):
    labels[84:112, 60:90] = LABELS.index("other")  # a hand before mouth and chin
    mouth = repaint_mask(labels, landmarks, "mouth")
    assert mouth[84:112, 60:90].max() == 0
    assert mouth[94, 54] == 1


def test_skin_has_neither_parts_nor_beard_but_a_nose(labels, landmarks):
    labels[102:110, 52:76] = LABELS.index("hair")
    skin = repaint_mask(labels, landmarks, "skin")
    assert skin[102:110, 52:76].max() == 0
    assert skin[60, 48] == skin[49, 48] == skin[94, 64] == 0
    assert skin[76, 64] == skin[88, 40] == 1
    assert repaint_mask(labels, landmarks, "hair")[102:110, 56:72].max() == 0  # a beard is no hair


@pytest.mark.parametrize("region", sorted(REGIONS))
def test_no_region_of_the_face_reaches_beyond_it(labels, landmarks, region: str):
    mask = repaint_mask(labels, landmarks, region)
    assert mask.shape == (SIZE, SIZE)
    assert set(np.unique(mask)) <= {0, 1}
    if REGIONS[region] <= REGIONS["face"]:
        assert (mask <= repaint_mask(labels, landmarks, "face")).all()


def test_other_parsers_labels_are_halved_as_well(landmarks):
    labels = np.full((SIZE, SIZE), REFACE_LABELS.index("skin"), np.uint8)
    upper = repaint_mask(labels, landmarks, "upper-face", REFACE_LABELS)
    assert np.array_equal(upper, upper_half(landmarks, SIZE))


def test_feather_ramps_inwards_only():
    mask = np.zeros((64, 64), np.float32)
    mask[:, 32:] = 1
    soft = feather(mask, 4)
    assert soft[:, :32].max() == 0
    row = soft[32]
    assert (np.diff(row[32:48]) >= -1e-6).all()
    assert row[32] < 0.15
    assert row[36] == pytest.approx(0.74, abs=0.05)  # 2 * Phi((4 + 0.5) / 4) - 1
    assert row[44] > 0.99
    assert soft[:, -1].max() < 0.15  # a mask that runs off the crop fades out too: no edge in the photo


def test_feather_of_zero_changes_nothing_and_returns_a_copy():
    mask = np.linspace(0, 1, 16, dtype=np.float32).reshape(4, 4)
    same = feather(mask, 0)
    assert np.array_equal(same, mask)
    same[0, 0] = 1
    assert mask[0, 0] == 0
