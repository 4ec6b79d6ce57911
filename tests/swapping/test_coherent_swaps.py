"""Swaps of neighbouring frames, with tiny networks and a real face."""

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.faces.tracking import TrackedFace, moved_face
from faceswap_diffusion.swapping.coherence import CoherenceOptions, FaceState, TemporalCoherence, independent
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

STEP = (6, -4)  # x and y in pixels, from a frame to the next


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64), name="tiny")


@pytest.fixture(scope="module")
def frame(example_images) -> np.ndarray:
    return np.asarray(Image.open(example_images / "p010_portrait.jpg").resize((240, 240)))


@pytest.fixture(scope="module")
def face(swapper, frame) -> Face:
    return swapper.find_faces(frame)[0]


@pytest.fixture(scope="module")
def source(swapper, example_images) -> SourceIdentity:
    return swapper.encode_source([example_images / "p001_portrait.jpg"])


def swap(swapper: FaceSwapper, frame: np.ndarray, face: Face, source: SourceIdentity, state: FaceState, seed: int = 0):
    return swapper.swap_faces(frame, [face], [source], SwapOptions(seed=seed, watermark=False), states=[state])


def test_noise_moves_with_the_face(swapper, frame, face, source):
    """The frame moves by whole pixels, and so does the swap; other noise would be seen."""
    frame = np.pad(frame, ((80, 80), (80, 80), (0, 0)), mode="reflect")  # the crop does not reach its edge
    face = moved_face(face, np.full((478, 2), 80.0))
    moved = np.roll(frame, STEP[::-1], axis=(0, 1))
    step = np.tile(STEP, (478, 1)).astype(float)
    first = swap(swapper, frame, face, source, independent())
    same, other = (
        swap(swapper, moved, moved_face(face, step), source, independent(), seed).rgb.astype(int) for seed in (0, 1)
    )
    inside = first.mask > 0.5
    same, other = (
        np.abs(np.roll(rgb, (-STEP[1], -STEP[0]), (0, 1)) - first.rgb)[inside].mean() for rgb in (same, other)
    )
    assert inside.sum() > 2000
    assert same < 0.1
    assert same < 0.05 * other


def test_fading_face_is_between_the_two(swapper, frame, face, source):
    whole = swap(swapper, frame, face, source, independent())
    (weak,) = TemporalCoherence().advance([TrackedFace(0, face, 0.25, 0, True)], 0.0)
    faint = swap(swapper, frame, face, source, weak)
    assert faint.mask == pytest.approx(0.25 * whole.mask, abs=0.01)
    expected = frame + 0.25 * (whole.rgb.astype(float) - frame)
    assert np.abs(faint.rgb - expected).max() <= 2.5


def test_first_frame_of_a_track_is_swapped_as_a_photo(swapper, frame, face, source):
    (state,) = TemporalCoherence().advance([TrackedFace(0, face, 1.0, 0, True)], 0.0)
    assert np.array_equal(
        swap(swapper, frame, face, source, state).rgb, swap(swapper, frame, face, source, independent()).rgb
    )


def test_flashing_frames_are_calmed_and_states_resume(swapper, frame, face, source):
    """Every other frame has another grain: with coherence the swap changes less, and goes on from a saved state."""
    rng = np.random.default_rng(0)
    frames = [np.clip(frame + rng.normal(0, 8, frame.shape), 0, 255).astype(np.uint8) for _ in range(4)]

    def run(coherence: TemporalCoherence, numbers: range) -> list[np.ndarray]:
        swapped = []
        for number in numbers:
            (state,) = coherence.advance([TrackedFace(0, face, 1.0, number, True)], number / 25)
            swapped.append(swap(swapper, frames[number], face, source, state).rgb)
        return swapped

    off = CoherenceOptions(mesh=False, tone=False, masks=False, pixels=False)
    restless, calm = (run(TemporalCoherence(options), range(4)) for options in (off, None))
    inside = swap(swapper, frame, face, source, independent()).mask > 0.9
    changes = [np.abs(np.diff(np.stack(r).astype(float), axis=0))[:, inside].mean() for r in (restless, calm)]
    assert changes[1] < 0.8 * changes[0]
    first, second = TemporalCoherence(), TemporalCoherence()
    run(first, range(2))
    second.load_state_dict(first.state_dict())
    assert all(np.array_equal(a, b) for a, b in zip(run(second, range(2, 4)), calm[2:], strict=True))
