from dataclasses import dataclass

import numpy as np
import pytest

from faceswap_diffusion.faces.selection import NoFaceFoundError, nearest_face, select_face


@dataclass(frozen=True, eq=False)
class Box:
    bbox: np.ndarray


FACES = [Box(np.array([0, 0, 10, 10])), Box(np.array([20, 0, 50, 40])), Box(np.array([60, 0, 90, 40]))]


def test_largest_is_the_default_and_the_leftmost_of_equals():
    assert select_face(FACES) is FACES[1]
    assert select_face(FACES, "largest") is FACES[1]


@pytest.mark.parametrize("index", [0, 1, 2])
def test_index_counts_from_the_left(index):
    assert select_face(FACES, index) is FACES[index]


def test_index_out_of_range_names_the_valid_ones():
    with pytest.raises(
        NoFaceFoundError, match=r"^face 3 was asked for, but a\.jpg has 3 face\(s\): .* 0 to 2 from the left$"
    ):
        select_face(FACES, 3, where="a.jpg")
    with pytest.raises(NoFaceFoundError, match="face -1"):
        select_face(FACES, -1)
    with pytest.raises(NoFaceFoundError, match="the only one is 0"):
        select_face(FACES[:1], 1)


def test_no_face_names_the_photo():
    with pytest.raises(NoFaceFoundError, match=r"^no face found in target\.png"):
        select_face([], where="target.png")
    with pytest.raises(NoFaceFoundError, match="no face found"):
        select_face([], 0)


@pytest.mark.parametrize("which", ["smallest", 1.0, True, None])
def test_other_choices_are_refused(which):
    with pytest.raises(ValueError, match="'largest' or an index"):
        select_face(FACES, which)


def test_nearest_face_is_by_cosine():
    embeddings = np.array([[1.0, 0.0], [3.0, 4.0], [0.0, 0.1]])
    assert nearest_face(embeddings, np.array([0.0, 5.0]), 0.9) == 2  # cosines 0, 0.8, 1
    assert nearest_face(embeddings[:2], np.array([0.0, 5.0]), 0.8) == 1
    with pytest.raises(NoFaceFoundError, match=r"face 1, has a similarity of 0\.80, and at least 0\.81"):
        nearest_face(embeddings[:2], np.array([0.0, 5.0]), 0.81)
    with pytest.raises(NoFaceFoundError, match="no face to compare"):
        nearest_face(np.zeros((0, 2)), np.array([0.0, 5.0]), 0.5)
