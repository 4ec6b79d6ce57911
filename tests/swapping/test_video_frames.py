"""Which faces of a video are swapped: decided along tracks, and known again after a stop."""

from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module
from PIL import Image

from faceswap_diffusion.faces.tracking import TrackedFace
from faceswap_diffusion.swapping.coherence import TemporalCoherence
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.swapping.video_frames import ChosenFaces, FaceChoice, FrameSwapper
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


def test_frames_painted_together_are_those_painted_one_after_another():
    """Prepared, painted and pasted with two memories of the track, or at once with one."""
    swapper = FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference"), occlusion="off", name="tiny")
    source, options = swapper.encode_source([SOURCE]), SwapOptions(num_inference_steps=2, watermark=False)
    rgb = np.asarray(Image.open(SOURCE).convert("RGB").resize((256, 256)))
    shown = [np.roll(rgb, 2 * index, axis=1) for index in range(5)]
    times = [index / 25 for index in range(5)]
    frames = FrameSwapper(swapper, [source], options)
    looked = [frames.look(rgb, time) for rgb, time in zip(shown, times, strict=True)]
    prepared = [frames.prepare(*parts) for parts in zip(shown, times, looked, strict=True)]
    assert None not in prepared
    frames.paint([frame for frame in prepared if frame is not None])
    memory = TemporalCoherence()
    for rgb, time, faces, frame in zip(shown, times, looked, prepared, strict=True):
        together = frames.paste(time, faces, frame)
        found = [face.face for face in faces.swapped]
        alone = swapper.swap_faces(rgb, found, [source], options, states=memory.advance(faces.swapped, time))
        assert together is not None
        assert np.abs(together.rgb.astype(int) - alone.rgb).max() <= 1
        np.testing.assert_allclose(together.mask, alone.mask, atol=1e-6)
        assert together.settings == alone.settings
        assert together.seconds.keys() == alone.seconds.keys()


def test_a_crop_is_decoded_while_the_pipeline_paints_unless_its_parts_are_offloaded(swapper: FaceSwapper):
    latents, decoded = [torch.zeros(1, 4, 32, 32)], []
    with swapper._pipeline_lock:
        thread = Thread(target=lambda: decoded.extend(swapper.decode_crops(latents)))
        thread.start()
        thread.join(60)
        assert [crop.shape for crop in decoded] == [(64, 64, 3)]
    add_hook_to_module(swapper.pipeline.vae, ModelHook())
    assert swapper._decoding is swapper._pipeline_lock
    remove_hook_from_module(swapper.pipeline.vae)
    assert swapper._decoding is not swapper._pipeline_lock
