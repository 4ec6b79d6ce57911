"""The target with the reference in its face is encoded once, and the pipeline gets what it would make itself."""

from pathlib import Path

import numpy as np
import pytest
import torch

from faceswap_diffusion import load_photo
from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.swapping.masked_image import encode_masked_image, prepare_start
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, SELFIE = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    pipeline = tiny_pipeline(crop_size=64, hidden_fill="reference", masked_latents="sample")
    pipeline.set_progress_bar_config(disable=True)
    return FaceSwapper(pipeline, name="tiny", occlusion="off")


def test_a_swap_encodes_once_and_decodes_twice(swapper: FaceSwapper):
    calls, vae = [], swapper.pipeline.vae
    handles = [
        part.register_forward_pre_hook(lambda part, _: calls.append(part)) for part in (vae.encoder, vae.decoder)
    ]
    swapper.swap(WOMAN, SELFIE, num_inference_steps=1)
    for handle in handles:
        handle.remove()
    assert calls == [vae.encoder, vae.decoder, vae.decoder]


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_a_crop_is_what_the_pipeline_makes_of_the_pictures(swapper: FaceSwapper, strength: float):
    """With noise, posterior and holes drawn from the same generator in the same order."""
    rgb, person = load_photo(SELFIE).rgb, swapper.encode_source([WOMAN])
    face = swapper.align(rgb, swapper.find_faces(rgb)[0])
    mask, reference = repaint_mask(face.labels, face.landmarks), swapper.draw_reference(face, person)
    assert reference is not None
    assert (mask * (1 - reference.coverage)).max() == 1  # there are holes
    settings = {"num_inference_steps": 4, "strength": strength}
    (crop,) = swapper.repaint(
        [face], [mask], [person], swapper.masked_images([face], [mask], [reference]), 5, **settings
    )
    images, _ = swapper.pipeline(
        image=face.pixels,
        mask_image=mask,
        landmarks=swapper.exchange_shape(face, person),
        reference_image=reference.pixels / 255,
        reference_mask_image=reference.coverage,
        identity_embeds=person.identity_embeds,
        source_clip_embeds=person.source_clip_embeds,
        generator=[torch.Generator().manual_seed(5)],
        output_type="np",
        return_dict=False,
        **settings,
    )
    np.testing.assert_array_equal(crop, np.round(images[0] * 255).astype(np.uint8))


def test_what_a_pipeline_starts_from_is_noise_and_then_a_draw_from_the_posterior(swapper: FaceSwapper):
    rgb, person = load_photo(SELFIE).rgb, swapper.encode_source([WOMAN])
    face = swapper.align(rgb, swapper.find_faces(rgb)[0])
    reference = swapper.draw_reference(face, person)
    assert reference is not None
    with torch.no_grad():
        masked = encode_masked_image(swapper.pipeline, face, repaint_mask(face.labels, face.landmarks), reference)
        start = prepare_start(swapper.pipeline, [masked], [torch.Generator().manual_seed(5)])
    generator, shape = torch.Generator().manual_seed(5), masked.encoded.mean.shape
    noise, drawn = (torch.randn(shape, generator=generator) for _ in range(2))
    assert torch.equal(start["latents"], noise)
    expected = (masked.encoded.mean + masked.encoded.std * drawn) * swapper.pipeline.vae.config["scaling_factor"]
    assert torch.equal(start["masked_image_latents"], expected)
