"""Region masks: what is covered, what is spared, and what happens when parser and landmarks disagree."""

import numpy as np
import pytest

from faceswap_diffusion.masks.bisenet import REFACE_LABELS
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import (
    REGIONS,
    face_mask,
    feather,
    head_mask,
    region_mask,
    region_mask_from_landmarks,
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
