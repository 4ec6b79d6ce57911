"""What holds from frame to frame: the One-Euro filter by hand, and a real face that trembles, moves and jumps."""

from dataclasses import fields, replace

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.cli.video import SMOOTHED
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.tracking import TrackedFace, moved_face
from faceswap_diffusion.swapping.coherence import (
    CoherenceOptions,
    FaceState,
    OneEuro,
    Smoothing,
    TemporalCoherence,
    independent,
)

FRAME = 1 / 25


@pytest.fixture(scope="module")
def face(example_images) -> Face:
    photo = Image.open(example_images / "p001_portrait.jpg").resize((320, 320))
    return MeshFaceAnalyzer().analyze(np.asarray(photo))[0]


def test_step_of_the_one_euro_filter():
    """With beta = 0: tau = 1 / (2 pi) s, T = 0.1 s, alpha = 1 / (1 + 1.5915) = 0.38587 (equations 1, 3, 5)."""
    smooth = OneEuro(Smoothing(min_cutoff=1.0, beta=0.0))
    values = [smooth(np.array([raw]), 0.1)[0] for raw in (0.0, 1.0, 1.0)]
    assert values == pytest.approx([0, 0.38587, 0.38587 + 0.61413 * 0.38587], abs=1e-5)


def test_speed_raises_the_cutoff():
    """The derivative 10 / s after 0 / s becomes 3.8587 / s at 1 Hz: f = 1 + 2 * 3.8587 Hz, and alpha = 0.84561."""
    smooth = OneEuro(Smoothing(min_cutoff=1.0, beta=2.0))
    values = [smooth(np.array([raw]), 0.1)[0] for raw in (0.0, 0.0, 1.0)]
    assert values == pytest.approx([0, 0, 0.84561], abs=1e-5)


def test_what_moves_already_is_not_lagged_behind_at_first():
    """The second value is the first that tells a speed, 10 / s: f = 1 + 2 * 10 Hz, and alpha = 0.92955."""
    smooth = OneEuro(Smoothing(min_cutoff=1.0, beta=2.0))
    values = [smooth(np.array([raw]), 0.1)[0] for raw in (0.0, 1.0)]
    assert values == pytest.approx([0, 0.92955], abs=1e-5)


@pytest.mark.parametrize(("speed", "beta"), [(0.2, 0.0), (0.2, 40.0), (3.0, 40.0)])
def test_lag_behind_a_ramp(speed: float, beta: float):
    """A filter of the first order is v tau = v / (2 pi f) behind; with beta, f = f_min + beta v bounds it."""
    smooth = OneEuro(Smoothing(min_cutoff=1.0, beta=beta))
    times = np.arange(400) * FRAME
    behind = [speed * time - smooth(np.array([speed * time]), FRAME)[0] for time in times]
    assert behind[-1] == pytest.approx(speed / (2 * np.pi * (1 + beta * speed)), rel=1e-6)
    if beta:
        assert max(behind[100:]) < 1 / (2 * np.pi * beta)


def test_components_of_a_vector_share_its_speed():
    smooth = OneEuro(Smoothing(min_cutoff=1.0, beta=5.0))
    smooth(np.array([[0.0, 0.0], [0.0, 0.0]]), 0.1)
    moved = smooth(np.array([[1.0, 0.01], [0.0, 0.01]]), 0.1)
    assert moved[0, 1] / 0.01 == pytest.approx(moved[0, 0])  # beside what is quick, the same share
    assert moved[1, 1] < 0.6 * moved[0, 1]  # a point by itself


def frames_of(face: Face, offsets: np.ndarray, seed: int = 0, noise: float = 0.0) -> list[TrackedFace]:
    """A face moved by offsets (F, 2), with landmarks that tremble by `noise` pixels."""
    rng = np.random.default_rng(seed)
    tracked = []
    for age, offset in enumerate(offsets):
        tremble = rng.normal(0, noise, face.landmarks68.shape)
        moved = moved_face(face, np.tile(offset, (478, 1)))
        shaken = replace(moved, landmarks68=moved.landmarks68 + tremble)
        tracked.append(TrackedFace(0, shaken, 1.0, age, True))
    return tracked


def steadied(tracked: list[TrackedFace], coherence: TemporalCoherence) -> np.ndarray:
    """Smoothed landmarks68 of every frame, (F, 68, 2)."""
    states = [coherence.advance([face], face.age * FRAME)[0].steady(face.face) for face in tracked]
    return np.stack([face.landmarks68 for face in states])


def test_trembling_face_is_steadied(face):
    tracked = frames_of(face, np.zeros((60, 2)), noise=0.6)
    shaken = np.stack([frame.face.landmarks68 for frame in tracked])
    smooth = steadied(tracked, TemporalCoherence())
    before, after = (np.abs(np.diff(points[20:], axis=0)).mean() for points in (shaken, smooth))
    assert after < 0.35 * before
    assert np.abs(smooth[-30:].mean(axis=0) - face.landmarks68).max() < 0.5


def test_fast_face_is_not_left_behind(face):
    """200 pixels per second, most of a face's width: at most 0.4 % of the square's side behind."""
    tracked = frames_of(face, np.arange(30)[:, None] * FRAME * np.array([200.0, 0.0]))
    smooth = steadied(tracked, TemporalCoherence())
    side = 2.5 * np.ptp(face.landmarks68[:, 0])
    behind = [np.abs(frame.face.landmarks68 - points).max() for frame, points in zip(tracked, smooth, strict=True)]
    assert max(behind[15:]) < 0.005 * side


@pytest.mark.parametrize("again", ["jump", "age", "gap"])
def test_what_has_nothing_to_do_with_the_frame_before_is_not_smoothed(face, again: str):
    coherence = TemporalCoherence()
    steadied(frames_of(face, np.zeros((10, 2)), noise=0.6), coherence)
    moved = moved_face(face, np.full((478, 2), 400.0 if again == "jump" else 3.0))
    time = 10 * FRAME if again != "gap" else 1.0
    (state,) = coherence.advance([TrackedFace(0, moved, 1.0, 0 if again == "age" else 10, True)], time)
    assert np.allclose(state.steady(moved).landmarks68, moved.landmarks68)


def test_head_that_turns_through_half_a_turn(face):
    """An angle that goes from pi to -pi is no jump."""

    def turned(angle: float) -> Face:
        middle = face.landmarks.mean(axis=0)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        points = {
            name: (getattr(face, name) - middle) @ turn.T + middle
            for name in ("landmarks", "landmarks68", "keypoints")
        }
        return replace(face, **points)

    tracked = [TrackedFace(0, turned(np.pi - 0.3 + 0.02 * age), 1.0, age, True) for age in range(30)]
    smooth = steadied(tracked, TemporalCoherence())
    wrong = [np.abs(frame.face.landmarks68 - points).max() for frame, points in zip(tracked, smooth, strict=True)]
    assert max(wrong) < 0.02 * np.ptp(face.landmarks68[:, 1])


def test_tones_and_masks_are_smoothed_alone():
    tracked = [TrackedFace(0, blank_face(), 0.5, age, True) for age in range(2)]
    for switch in ("tone", "masks"):
        coherence = TemporalCoherence(CoherenceOptions(mesh=False, tone=switch == "tone", masks=switch == "masks"))
        for frame, value in zip(tracked, (0.0, 1.0), strict=True):
            (state,) = coherence.advance([frame], frame.age * FRAME)
            tone = state.tone("light", np.array([value]), 1.0)
            mask = state.mask("region", np.full((2, 2), value))
        assert (tone[0] < 1) == (switch == "tone")
        assert (mask.max() < 1) == (switch == "masks")
        assert state.strength == 0.5


def blank_face() -> Face:
    """Five features in their places, and nothing else."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[48], points[54] = (40, 40), (80, 40), (45, 80), (75, 80)
    return Face(np.array([20.0, 20, 100, 100]), 1.0, points[:5], points, points)


def test_unknown_light_is_passed_on():
    state = FaceState(CoherenceOptions())
    assert np.isnan(state.tone("light", np.full(9, np.nan), 1.0)).all()


def test_single_pictures_are_left_alone(face):
    state = independent()
    for value in (np.array([0.0]), np.array([1.0])):
        assert state.tone("exposure", value, 1.0) is value
        assert state.mask("region", value) is value
    assert state.steady(face) is face
    assert state.strength == 1


def test_command_line_has_every_switch():
    assert {field.name for field in fields(CoherenceOptions)} == {*SMOOTHED}


def test_fade_can_be_switched_off():
    (state,) = TemporalCoherence(CoherenceOptions(fade=False)).advance([TrackedFace(0, blank_face(), 0.2, 0, True)], 0)
    assert state.strength == 1


def test_resumed_coherence_goes_on_bit_by_bit(face):
    tracked = frames_of(face, np.arange(12)[:, None] * np.array([1.5, 0.5]), noise=0.5)
    whole = steadied(tracked, TemporalCoherence())
    first = TemporalCoherence()
    steadied(tracked[:6], first)
    second = TemporalCoherence()
    second.load_state_dict(first.state_dict())
    assert np.array_equal(steadied(tracked[6:], second), whole[6:])


def test_tracks_that_ended_are_forgotten():
    coherence = TemporalCoherence()
    coherence.advance([TrackedFace(0, blank_face(), 1.0, 0, True)], 0.0)
    coherence.advance([TrackedFace(1, blank_face(), 1.0, 0, True)], 3.0)
    assert {key.split("/")[0] for key in coherence.state_dict()} == {"1"}
