"""Made clips, whose truth is known, and what is measured on them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.evaluation.clips import Clip, ClipOptions, make_clip
from faceswap_diffusion.evaluation.video import SwappedClip, contact_sheet, flicker, video_pairs, video_table
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import select_face


@pytest.fixture(scope="module")
def analyzer() -> MeshFaceAnalyzer:
    return MeshFaceAnalyzer()


@pytest.fixture(scope="module")
def photo(example_images) -> np.ndarray:
    return np.asarray(Image.open(example_images / "p010_portrait.jpg").resize((192, 192)))


@pytest.fixture(scope="module")
def face(analyzer, photo) -> Face:
    return select_face(analyzer.analyze(photo))


@pytest.fixture(scope="module")
def clip(photo, face) -> Clip:
    return make_clip(photo, face, 3, ClipOptions(num_frames=8, rate=8, noise=0.0))


def test_true_mesh_is_where_the_face_is(analyzer, clip):
    moved = np.abs(clip.meshes[0] - clip.meshes).mean(axis=(1, 2))
    still = int(np.argmax(moved))
    found = select_face(analyzer.analyze(clip.frames[still]))
    assert moved[still] > 2
    assert np.abs(found.landmarks - clip.meshes[still]).mean() < 0.02 * np.ptp(found.landmarks[:, 1])


def test_first_frame_is_the_photo(clip, photo, face):
    assert np.abs(clip.frames[0].astype(int) - photo)[20:-20, 20:-20].mean() < 1
    assert clip.meshes[0] == pytest.approx(face.landmarks, abs=1e-6)


def test_clips_are_reproducible_and_differ_by_seed(photo, face, clip):
    options = ClipOptions(num_frames=2, rate=8)
    same, again, other = (make_clip(photo, face, seed, options) for seed in (3, 3, 4))
    assert all(np.array_equal(a, b) for a, b in zip(same.frames, again.frames, strict=True))
    assert not np.array_equal(same.frames[1], other.frames[1])


def test_still_background_stays_and_a_camera_moves_it(photo, face, clip):
    corner = np.s_[:12, :12]
    moving = make_clip(photo, face, 3, replace(ClipOptions(num_frames=8, rate=8, noise=0.0), camera=True))
    exposure = [frame[corner].mean() / clip.frames[0][corner].mean() for frame in clip.frames]
    still = [
        np.abs(f[corner] / gain - clip.frames[0][corner]).mean() for f, gain in zip(clip.frames, exposure, strict=True)
    ]
    moved = [np.abs(f[corner].astype(float) - moving.frames[0][corner]).mean() for f in moving.frames]
    assert max(still) < 1.5 < max(moved)


def test_clip_itself_flickers_as_much_as_itself(clip):
    masks = [np.ones(frame.shape[:2], np.float32) for frame in clip.frames]
    assert flicker(clip, SwappedClip(frames=clip.frames, masks=masks)) == 1
    rng = np.random.default_rng(0)
    restless = [np.clip(f + rng.normal(0, 6, f.shape), 0, 255).astype(np.uint8) for f in clip.frames]
    pulsing = [np.clip(f + 6.0 * (i % 2), 0, 255).astype(np.uint8) for i, f in enumerate(clip.frames)]
    grain, tone = (SwappedClip(frames=frames, masks=masks) for frames in (restless, pulsing))
    assert flicker(clip, grain) > 2
    assert flicker(clip, grain, 4.0) < 0.5 * flicker(clip, tone, 4.0)  # what is fine counts for little when blurred


def test_hidden_frames_do_not_count(photo, face):
    clip = make_clip(photo, face, 3, ClipOptions(num_frames=6, rate=8, hidden=(2, 3)))
    assert clip.hidden == [False, False, True, True, False, False]
    frames = [np.zeros_like(f) if hidden else f for f, hidden in zip(clip.frames, clip.hidden, strict=True)]
    masks = [np.ones(f.shape[:2], np.float32) for f in frames]
    assert flicker(clip, SwappedClip(frames=frames, masks=masks)) == 1


def test_table_and_sheet(clip):
    figures = {"flicker": 1.0, "tone_flicker": 1.5, "identity_sface": 0.5, "worst_sface": 0.25, "worst_frame_sface": 7,
               "lost_frames": 1, "tracks": 1, "frames_per_second": 2.0, "peak_megabytes": 900.0,
               "source": "a.jpg", "target": "b.jpg"}  # fmt: skip
    other = {**figures, "flicker": 2.0, "lost_frames": 2}
    table = video_table({"coherent": [figures, other]})
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    assert cells[2] == ["b", "coherent", "1.00", "1.50", "0.50", "7 (sface 0.25)", "1", "2.00", "900"]
    assert cells[-1] == ["mean", "coherent", "1.50", "1.50", "0.50", "", "3", "", ""]
    sheet = contact_sheet([("target", clip.frames), ("coherent", clip.frames)], side=32)
    assert sheet.size == (6 * 32, 64)


def test_pairs_are_of_different_photos(example_images):
    pairs = video_pairs(example_images, 2)
    assert len(pairs) == 2
    assert all(pair.source != pair.target for pair in pairs)
