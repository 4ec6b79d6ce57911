"""Between pictures and faces: what serves photos serves frames, alone and from several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion import SwapOptions, load_photo
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, MAN, SELFIE, GROUP = (
    IMAGES / name for name in ("p001_portrait.jpg", "p005_portrait.jpg", "p010_selfie.jpg", "group.jpg")
)


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference"), name="tiny")


def test_faces_of_a_picture_are_swapped_as_those_of_a_photo(swapper: FaceSwapper):
    rgb, options = load_photo(GROUP).rgb, SwapOptions(seed=3, num_inference_steps=1)
    faces = swapper.find_faces(rgb)
    woman, man = (swapper.encode_source([path]) for path in (WOMAN, MAN))
    made = swapper.swap_faces(rgb, [faces[0], faces[2]], [man, woman], options, others=[faces[1], faces[3]])
    photo = swapper.swap([WOMAN, MAN], GROUP, mapping={0: 1, 2: 0}, seed=3, num_inference_steps=1)
    np.testing.assert_array_equal(made.rgb, np.asarray(photo.image))
    np.testing.assert_array_equal(np.ceil(made.mask * 255), np.asarray(photo.mask))
    assert made.settings == {"num_inference_steps": 1, "guidance_scale": 3.5, "strength": 1.0}
    assert list(made.seconds) == ["reference", "diffuse", "paste"]


def test_faces_of_several_frames_are_repainted_in_one_batch(swapper: FaceSwapper):
    frames = [load_photo(path).rgb for path in (SELFIE, MAN)]
    aligned = [swapper.align(rgb, swapper.find_faces(rgb)[0]) for rgb in frames]
    identity, masks = swapper.encode_source([WOMAN]), [face.free() for face in aligned]
    parts = aligned, masks, [identity] * 2, [None] * 2
    together = swapper.repaint(*parts, 0, num_inference_steps=1)
    for index, crop in enumerate(together):
        (alone,) = swapper.repaint(*(part[index : index + 1] for part in parts), 0, num_inference_steps=1)
        assert np.abs(crop.astype(int) - alone).max() <= 1


def test_a_face_is_parsed_once_even_if_it_was_looked_for():
    swapper, parsed = FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference"), name="tiny"), []
    handle = swapper.parser.register_forward_pre_hook(lambda *_: parsed.append(1))
    swapper.swap(MAN, GROUP, target_face=0, num_inference_steps=1)
    assert len(parsed) == 1 + 4  # of the source, and in the target
    same_person = swapper.pipeline.conditioner.identity_encoder
    same_person.same_person = None  # crops of 64 px are too coarse for the recogniser's own threshold
    swapper.swap(MAN, GROUP, target_face=WOMAN, num_inference_steps=1)
    del same_person.same_person
    handle.remove()
    assert len(parsed) == 5 + 1  # the photo of who is meant; source and target are remembered


def test_unknown_settings_are_refused(swapper: FaceSwapper):
    with pytest.raises(TypeError, match="stepz"):
        swapper.swap(WOMAN, SELFIE, stepz=3)


def test_four_threads_get_what_they_would_get_alone(swapper: FaceSwapper):
    tasks = [
        (WOMAN, SELFIE, {"num_inference_steps": 1}),
        (MAN, SELFIE, {"num_inference_steps": 3, "seed": 5}),
        (WOMAN, GROUP, {"target_face": "all", "num_inference_steps": 2}),
        (SELFIE, MAN, {"region": "head", "guidance_scale": 1.0}),
    ] * 2

    def swapped(task) -> np.ndarray:
        source, target, settings = task
        return np.asarray(swapper.swap(source, target, **settings).image)

    alone = [swapped(task) for task in tasks[:4]] * 2
    with ThreadPoolExecutor(4) as threads:
        for found, wanted in zip(threads.map(swapped, tasks), alone, strict=True):
            np.testing.assert_array_equal(found, wanted)
