"""Identity guidance: how far it changes a face, where, and in which swaps."""

from pathlib import Path

import numpy as np
import pytest
import torch

from faceswap_diffusion import FaceSwapper, SwapOptions, load_photo
from faceswap_diffusion.conditioning.identity import SFace
from faceswap_diffusion.conditioning.identity_guidance import AWAY, LIMIT, NUM_STEPS, STEP, guide_identity
from faceswap_diffusion.swapping.coherence import independent
from tests.tiny import tiny_pipeline

NOBODY = torch.zeros(1, 1)
IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper.from_pretrained()


def brightness(view: torch.Tensor) -> torch.Tensor:
    return view.mean((1, 2, 3))[None]


def test_a_gradient_without_structure_is_a_change_of_brightness_in_all_steps():
    """Each step adds its root mean square, and the sum bends towards the limit. Edges weigh less when halved."""
    pixels = np.full((128, 128, 3), 100, np.float32)
    for sign in (1, -1):
        for scale in (1.0, 0.5):
            guided = guide_identity(pixels, np.ones((128, 128)), brightness, torch.tensor([[sign]]), NOBODY, scale)
            expected = 100 + sign * scale * LIMIT * np.tanh(NUM_STEPS * STEP / LIMIT)
            np.testing.assert_allclose(guided[8:-8, 8:-8], expected, atol=0.02)


def test_a_change_of_colour_is_a_fifth_of_one_of_brightness():
    """Red and green rise, blue falls, and all steps together are as long as those of brightness."""

    def redness(view: torch.Tensor) -> torch.Tensor:
        return (view[:, 0] + view[:, 1] - 2 * view[:, 2]).mean((1, 2))[None] + brightness(view)

    pixels = np.full((128, 128, 3), 100, np.float32)
    guided = guide_identity(pixels, np.ones((128, 128)), redness, torch.tensor([[1]]), NOBODY)
    # The gradient is (1, 1, -2) + 1/3, of which the first part counts a fifth.
    direction = np.array([0.2, 0.2, -0.4]) + 1 / 3
    steps = NUM_STEPS * STEP * direction / np.sqrt((direction**2).mean())
    np.testing.assert_allclose(guided[64, 64], 100 + LIMIT * np.tanh(steps / LIMIT), atol=0.02)


def test_nothing_changes_outside_of_the_mask_and_nothing_at_all_at_scale_0():
    rng = np.random.default_rng(0)
    pixels, mask = rng.uniform(0, 255, (64, 64, 3)).astype(np.float32), np.zeros((64, 64), np.float32)
    mask[16:48, 16:48] = 1
    guided = guide_identity(pixels, mask, brightness, torch.tensor([[1.0]]), NOBODY)
    assert np.array_equal(guided[mask == 0], pixels[mask == 0])
    assert (guided[mask == 1] != pixels[mask == 1]).all()
    assert guide_identity(pixels, mask, brightness, torch.tensor([[1.0]]), NOBODY, 0.0) is pixels
    assert guide_identity(pixels, 0 * mask, brightness, torch.tensor([[1.0]]), NOBODY) is pixels


def test_photos_of_one_person_are_left_alone():
    pixels, mask = np.full((128, 128, 3), 100, np.float32), np.ones((128, 128))
    assert guide_identity(pixels, mask, brightness, torch.tensor([[0.8]]), torch.tensor([[0.75]])) is pixels
    unsure = guide_identity(pixels, mask, brightness, torch.tensor([[0.9]]), torch.tensor([[0.5]]))
    half = 0.5 * LIMIT * np.tanh(NUM_STEPS * STEP / LIMIT)
    np.testing.assert_allclose(unsure[8:-8, 8:-8], 100 + half, atol=0.02)


def test_likeness_to_the_target_counts_against_that_to_the_source():
    pixels, mask = np.full((128, 128, 3), 100, np.float32), np.ones((128, 128))
    for target, expected in ((AWAY / 2, 1), (AWAY, 0), (2 * AWAY, -1)):
        source, own = torch.tensor([[AWAY**2]]), torch.tensor([[target]])
        guided = guide_identity(pixels, mask, brightness, source, own)
        assert np.sign(np.round(guided[64, 64, 0] - 100, 3)) == expected


def test_a_recogniser_sees_the_other_person(swapper: FaceSwapper):
    rgb, other = load_photo(IMAGES / "p005_portrait.jpg").rgb, IMAGES / "p001_portrait.jpg"
    (face,), network = swapper.survey(rgb).aligned, SFace()
    wanted = swapper.encode_source([other]).identity_embeds
    own = swapper.pipeline.encode_identity(face.pixels)
    mask = np.ones(face.labels.shape, np.float32)

    def cosine(pixels: np.ndarray, wanted: torch.Tensor) -> float:
        view = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
        return float((network(network.prepare(view)) * wanted).sum())

    with torch.inference_mode():  # as in a caller's
        guided = guide_identity(
            face.pixels.astype(np.float32), mask, lambda v: network(network.prepare(v)), wanted, own
        )
    assert np.abs(guided - face.pixels).max() <= LIMIT
    assert cosine(guided, wanted) > cosine(face.pixels, wanted) + 0.15
    assert cosine(guided, own) < 0.9


def test_a_swap_is_guided_where_a_reference_is_shown_and_frames_are_not(swapper: FaceSwapper):
    photos = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"
    usual, guided, plain = (
        swapper.swap(*photos, identity_guidance_scale=scale, watermark=False) for scale in (None, 1.0, 0.0)
    )
    pictures = [np.asarray(result.image).astype(int) for result in (usual, guided, plain)]
    assert np.array_equal(pictures[0], pictures[1])
    assert [r.provenance.get("identity_guidance_scale") for r in (usual, guided, plain)] == [None, 1.0, 0.0]
    outside = np.asarray(usual.mask) == 0
    difference = np.abs(pictures[0] - pictures[2])
    assert not difference[outside].any()
    assert 0 < difference.max() <= LIMIT + 1  # both are rounded
    rgb = load_photo(photos[1]).rgb
    faces, people = swapper.find_faces(rgb), [swapper.encode_source([photos[0]])]
    for scale, expected in ((None, 2), (1.0, 1)):
        options = SwapOptions(watermark=False, identity_guidance_scale=scale)
        frame = swapper.swap_faces(rgb, faces, people, options, states=[independent()])
        assert np.array_equal(frame.rgb, pictures[expected])


def test_a_swap_without_a_reference_is_not_guided():
    photos, grey = (IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"), FaceSwapper(tiny_pipeline(crop_size=64))
    first, second = (grey.swap(*photos, identity_guidance_scale=scale) for scale in (1.0, 0.0))
    assert np.array_equal(np.asarray(first.image), np.asarray(second.image))


@pytest.mark.parametrize("scale", [-0.1, 1.1, float("nan")])
def test_a_scale_out_of_range_is_refused(scale: float):
    with pytest.raises(ValueError, match=f"got identity_guidance_scale {scale}; a swap takes a number from 0 to 1"):
        SwapOptions(identity_guidance_scale=scale)
