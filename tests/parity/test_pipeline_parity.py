"""A whole swap through the pipeline's `__call__` against golden tensors of the original REFace implementation."""

from typing import Any

import pytest
import torch

from tests.parity.test_conditioner_parity import relative_error


@pytest.fixture(scope="module")
def arguments(pipe, golden) -> dict[str, Any]:
    """What a call takes for the golden inputs; the source was stored as the view of its encoder."""
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1)
        for values in (pipe.feature_extractor.image_mean, pipe.feature_extractor.image_std)
    )
    with torch.no_grad():
        view = golden["source_clip_pixels"]
        return {
            "image": golden["target_pixels"] / 2 + 0.5,
            "mask_image": 1 - golden["keep_mask"],
            "identity_embeds": pipe.conditioner.encode_identity(2 * (view * std + mean) - 1),
            "source_clip_embeds": pipe.image_encoder(view).image_embeds,
            "landmarks": golden["landmarks"].view(2, 68, 2),
        }


def test_context(pipe, arguments, golden):
    conditions = {name: value for name, value in arguments.items() if name != "mask_image"}
    with torch.no_grad():
        context = pipe.encode_condition(**conditions)
    assert relative_error(context, golden["conditioning"]) <= 1e-5


def test_masked_latents_and_latent_mask(pipe, golden):
    image = golden["target_pixels"] / 2 + 0.5
    pixels = pipe.preprocess(image, 256, 256)
    mask = pipe.preprocess_mask(1 - golden["keep_mask"], image, 256, 256)
    with torch.no_grad():
        mask_latents, masked = pipe.prepare_mask_latents(
            pixels, mask, None, torch.float32, torch.device("cpu"), generator=None
        )
    assert torch.allclose(1 - mask_latents, golden["latent_keep_mask"], atol=1e-6)
    assert relative_error(masked, golden["masked_latents_mode"]) <= 1e-5


def test_one_prediction(pipe, golden):
    pipe._guidance_scale = 1.0
    for index, timestep in enumerate(golden["timestep"]):
        one = slice(index, index + 1)
        with torch.no_grad():
            noise_pred = pipe.predict_noise(
                golden["initial_noise"][one],
                timestep,
                golden["conditioning"][one],
                1 - golden["latent_keep_mask"][one],
                golden["masked_latents_mode"][one],
            )
        assert relative_error(noise_pred, golden["unet_eps"][one]) <= 1e-5


@pytest.mark.parametrize(
    ("steps", "rows"), [(4, slice(2)), (10, slice(1)), pytest.param(50, slice(1, 2), marks=pytest.mark.slow)]
)
def test_swap(pipe, arguments, golden, steps, rows):
    """Both golden faces with few steps, one of them with more."""
    inputs = {name: value[rows] for name, value in arguments.items()}
    settings = {"latents": golden["initial_noise"][rows], "num_inference_steps": steps, "guidance_scale": 3.5}
    latents = pipe(**inputs, **settings, output_type="latent").images
    assert torch.equal(pipe.scheduler.timesteps.flip(0), golden[f"timesteps_ddim{steps}"].sort().values)
    assert relative_error(latents, golden[f"latents_ddim{steps}"][rows]) <= 1e-5
    with torch.no_grad():
        decoded = pipe.vae.decode(latents / 0.18215).sample
    golden_image = golden[f"image_ddim{steps}"][rows]
    assert relative_error(decoded, golden_image) <= 1e-5
    images = pipe.image_processor.postprocess(decoded, output_type="pt")
    assert torch.allclose(images, (golden_image / 2 + 0.5).clamp(0, 1), atol=1e-4)
