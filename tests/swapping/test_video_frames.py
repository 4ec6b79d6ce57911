"""Which faces of a video are swapped: decided along tracks, and known again after a stop."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.tracking import TrackedFace
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.swapping.video_frames import ChosenFaces, FaceChoice
from tests.clips import IMAGES, SOURCE
from tests.tiny import tiny_pipeline


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64), occlusion="off")


@pytest.fixture(scope="module")
def group() -> np.ndarray:
    return np.asarray(Image.open(IMAGES / "group.jpg").convert("RGB"))


@pytest.fixture(scope="module")
def tracked(swapper: FaceSwapper, group: np.ndarray) -> list[TrackedFace]:
    """The faces of the group, as tracks 10, 11, ... from left to right."""
    found = swapper.find_faces(group)
    return [TrackedFace(10 + index, face, 1.0, age=0, seen=True) for index, face in enumerate(found)]


def tracks(chosen: ChosenFaces) -> list[int]:
    return [face.track for face in chosen.swapped]


def larger(tracked: TrackedFace, scale: float) -> TrackedFace:
    return replace(tracked, face=replace(tracked.face, landmarks=tracked.face.landmarks * scale))


def test_all_a_number_and_a_mapping(swapper: FaceSwapper, group: np.ndarray, tracked: list[TrackedFace]):
    everyone = [face.track for face in tracked]
    chosen = FaceChoice(swapper, "all", None).choose(group, tracked)
    assert (tracks(chosen), chosen.people, chosen.others) == (everyone, [0] * len(everyone), [])
    chosen = FaceChoice(swapper, 11, None).choose(group, tracked)
    assert (tracks(chosen), len(chosen.others)) == ([11], len(everyone) - 1)
    chosen = FaceChoice(swapper, "largest", {12: 1, 10: 0, 99: 0}).choose(group, tracked)
    assert (tracks(chosen), chosen.people) == ([10, 12], [0, 1])


def test_the_largest_is_held_until_it_is_gone(swapper: FaceSwapper, group: np.ndarray, tracked: list[TrackedFace]):
    first, second = larger(tracked[0], 1.0), larger(tracked[1], 2.0)
    choice = FaceChoice(swapper, "largest", None)
    assert tracks(choice.choose(group, [first, second])) == [11]
    assert tracks(choice.choose(group, [larger(first, 3.0), second])) == [11]  # larger now, but another one is held
    again = FaceChoice(swapper, "largest", None)
    again.load_state_dict(choice.state_dict())
    assert tracks(again.choose(group, [larger(first, 3.0), second])) == [11]
    assert tracks(again.choose(group, [first])) == [10]
    assert tracks(again.choose(group, [])) == []


def test_a_person_is_found_by_a_photo_and_then_known(
    swapper: FaceSwapper, group: np.ndarray, tracked: list[TrackedFace]
):
    choice = FaceChoice(swapper, str(SOURCE), None)
    found = tracks(choice.choose(group, tracked))
    assert len(found) == 1
    hers = swapper.embed(*portrait(swapper))
    cosines = {face.track: float(swapper.embed(group, face.face) @ hers) for face in tracked}
    assert found == [max(cosines, key=cosines.__getitem__)]
    assert cosines[found[0]] > swapper.same_person
    # A track is a person: nobody looks again, though the picture shows nothing now.
    later = [replace(face, age=5) for face in tracked]
    again = FaceChoice(swapper, str(SOURCE), None)
    again.load_state_dict(choice.state_dict())
    assert tracks(again.choose(np.zeros_like(group), later)) == found


def portrait(swapper: FaceSwapper):
    rgb = np.asarray(Image.open(SOURCE).convert("RGB"))
    return rgb, swapper.find_faces(rgb)[0]
