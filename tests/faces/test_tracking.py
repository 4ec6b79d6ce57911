"""Faces of example photos, moved by known steps through frames: who is who, and where."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.tracking import (
    FaceTracker,
    TrackedFace,
    color_histogram,
    hellinger,
)
from faceswap_diffusion.metrics.recognizers import SFaceRecognizer

FRAME = 1 / 25
SAME_PERSON = 0.363  # of SFace
WIDTH, HEIGHT = 400, 240


class CountingAnalyzer(MeshFaceAnalyzer):
    """Counts how often the detector runs."""

    searches = 0

    def find_others(self, image: np.ndarray, known: list[Face]) -> list[Face]:
        self.searches += 1
        return super().find_others(image, known)


@pytest.fixture(scope="module")
def analyzer() -> CountingAnalyzer:
    return CountingAnalyzer()


@pytest.fixture(scope="module")
def recognizer() -> SFaceRecognizer:
    return SFaceRecognizer()


@pytest.fixture(scope="module")
def heads(example_images) -> dict[str, np.ndarray]:
    """Square pictures of 150 px of two people, and a second one of the first."""
    return {name: head(example_images / f"{name}.jpg") for name in ("p001_portrait", "p010_portrait", "p001_park")}


def head(path: Path) -> np.ndarray:
    photo = np.asarray(Image.open(path))
    (face, *_) = MeshFaceAnalyzer().analyze(photo)
    left, top = face.landmarks.min(axis=0)
    side = 1.5 * np.ptp(face.landmarks[:, 1])
    x, y = left + np.ptp(face.landmarks[:, 0]) / 2 - side / 2, top - 0.3 * side
    matrix = np.array([[150 / side, 0, -x * 150 / side], [0, 150 / side, -y * 150 / side]])
    return cv2.warpAffine(photo, matrix, (150, 150), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REFLECT)


def frame_of(*placed: tuple[np.ndarray, int, int], wall: tuple[int, int, int] = (120, 130, 140)) -> np.ndarray:
    """A wall with pictures at places x, y."""
    frame = np.full((HEIGHT, WIDTH, 3), wall, np.uint8)
    for picture, x, y in placed:
        frame[y : y + 150, x : x + 150] = picture
    return frame


def track(tracker: FaceTracker, frames: list[np.ndarray], start: int = 0) -> list[list[TrackedFace]]:
    return [tracker.update(frame, (start + index) * FRAME) for index, frame in enumerate(frames)]


def numbers(found: list[list[TrackedFace]]) -> list[list[int]]:
    return [[face.track for face in faces if face.seen] for faces in found]


def test_moving_face_is_one_track_with_few_detections(analyzer, recognizer, heads):
    frames = [frame_of((heads["p001_portrait"], 20 + 6 * index, 30 + 2 * index)) for index in range(16)]
    analyzer.searches = 0
    found = track(FaceTracker(analyzer, recognizer, SAME_PERSON), frames)
    assert numbers(found) == [[0]] * 16
    assert [faces[0].age for faces in found] == [*range(16)]
    assert analyzer.searches == 2  # at first, and ten frames later
    first, last = found[0][0].face, found[-1][0].face
    (anew,) = analyzer.analyze(frames[-1])
    assert np.abs(last.landmarks - anew.landmarks).mean() < 0.01 * np.ptp(anew.landmarks[:, 1])
    assert last.landmarks.mean(axis=0) - first.landmarks.mean(axis=0) == pytest.approx([90, 30], abs=1.5)
    assert last.bbox - first.bbox == pytest.approx([90, 30, 90, 30], abs=4)


def test_face_behind_something_keeps_its_track(analyzer, recognizer, heads):
    seen, gone = (
        frame_of((heads["p001_portrait"], 100, 40)),
        frame_of((np.full((150, 150, 3), 128, np.uint8), 100, 40)),
    )
    tracker = FaceTracker(analyzer, recognizer, SAME_PERSON, fade=0.1)
    found = track(tracker, [seen] * 4 + [gone] * 4 + [seen] * 3)
    assert numbers(found) == [[0]] * 4 + [[]] * 4 + [[0]] * 3
    strengths = [[face.strength for face in faces] for faces in found]
    assert strengths[:4] == [*strengths[8:], [1.0]] == [[1.0]] * 4  # there is a face: no frame shows it weakly
    assert [face for face, *_ in strengths[4:6]] == pytest.approx([0.6, 0.2])
    assert strengths[6:8] == [[], []]
    assert not found[4][0].seen


def test_newcomer_fades_in_and_leaver_does_not_pull_others(analyzer, recognizer, heads):
    alone = frame_of((heads["p001_portrait"], 10, 40))
    both = frame_of((heads["p001_portrait"], 10, 40), (heads["p010_portrait"], 220, 40))
    tracker = FaceTracker(analyzer, recognizer, SAME_PERSON, detect_every=2, fade=0.1)
    found = track(tracker, [alone] * 3 + [both] * 5 + [alone] * 4)
    assert numbers(found)[-1] == [0]
    strengths = [face.strength for faces in found for face in faces if face.track == 1]
    assert strengths[:3] == pytest.approx([0.4, 0.8, 1.0])
    assert strengths[-2:] == pytest.approx([0.6, 0.2])
    assert all(face.strength == 1 for faces in found for face in faces if face.track == 0)


def test_cut_to_somebody_else_and_back(analyzer, recognizer, heads):
    first = frame_of((heads["p001_portrait"], 100, 40), wall=(40, 60, 30))
    other = frame_of((heads["p010_portrait"], 100, 40), wall=(200, 180, 190))
    again = frame_of((heads["p001_park"], 200, 60), wall=(90, 20, 60))
    found = track(FaceTracker(analyzer, recognizer, SAME_PERSON), [first] * 3 + [other] * 3 + [again] * 2)
    assert numbers(found) == [[0]] * 3 + [[1]] * 3 + [[0]] * 2
    assert all(face.strength == 1 for faces in found for face in faces)
    assert [faces[0].age for faces in found] == [0, 1, 2, 0, 1, 2, 0, 1]  # nothing is carried over a cut


def test_track_does_not_jump_to_who_takes_the_place(analyzer, recognizer, heads):
    """One person stands where another one stood, in the same light: no cut, and the mesh fits."""
    first, second = (frame_of((heads[name], 100, 40)) for name in ("p001_portrait", "p010_portrait"))
    assert hellinger(color_histogram(first), color_histogram(second)) < 0.45
    tracker = FaceTracker(analyzer, recognizer, SAME_PERSON, verify_every=2)
    found = numbers(track(tracker, [first] * 4 + [second] * 7 + [first] * 4))
    assert found[:4] == [[0]] * 4
    assert found[8:11] == [[1]] * 3  # a look every second frame, and two more before it is sure
    assert found[-2:] == [[0]] * 2


def test_without_a_recogniser_place_decides(analyzer, heads):
    seen, gone = frame_of((heads["p001_portrait"], 100, 40)), frame_of()
    far = frame_of((heads["p001_portrait"], 240, 80))
    found = track(FaceTracker(analyzer), [seen] * 2 + [gone] * 2 + [seen] * 2 + [gone] + [far])
    assert numbers(found) == [[0], [0], [], [], [0], [0], [], [1]]


def test_what_is_no_face_gets_no_track(analyzer, heads):
    tracker = FaceTracker(analyzer, accept=lambda rgb, face: False)
    assert track(tracker, [frame_of((heads["p001_portrait"], 100, 40))]) == [[]]


def test_resumed_tracking_goes_on_bit_by_bit(analyzer, recognizer, heads):
    frames = [
        frame_of((heads["p001_portrait"], 5 + 3 * index, 40), (heads["p010_portrait"], 230, 40 + index))
        for index in range(8)
    ]
    whole = track(FaceTracker(analyzer, recognizer, SAME_PERSON, detect_every=3, verify_every=2), frames)
    first, second = (FaceTracker(analyzer, recognizer, SAME_PERSON, detect_every=3, verify_every=2) for _ in range(2))
    track(first, frames[:4])
    second.load_state_dict(first.state_dict())
    for ours, undisturbed in zip(track(second, frames[4:], start=4), whole[4:], strict=True):
        assert [(a.track, a.age, a.strength) for a in ours] == [(b.track, b.age, b.strength) for b in undisturbed]
        for a, b in zip(ours, undisturbed, strict=True):
            assert np.array_equal(a.face.landmarks, b.face.landmarks)
            assert np.array_equal(a.face.bbox, b.face.bbox)
            assert a.face.score == b.face.score


def test_histogram_distance():
    """Half of the pixels in a shared bin: sqrt(1 - sqrt(1 / 2)) = 0.5412."""
    black, half = np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4, 3), np.uint8)
    half[:2] = 255
    assert hellinger(color_histogram(black), color_histogram(half)) == pytest.approx(0.5412, abs=1e-4)
    assert hellinger(color_histogram(half), color_histogram(half)) == pytest.approx(0, abs=1e-6)
