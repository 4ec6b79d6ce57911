"""Swaps with diffusers' `LCMScheduler`, which draws noise between its steps."""

import pytest
import torch
from diffusers.schedulers.scheduling_lcm import LCMScheduler

from tests.tiny import tiny_inputs, tiny_picture, tiny_pipeline


@pytest.mark.parametrize(("num_inference_steps", "timesteps"), [
    (1, [999]), (2, [999, 499]), (4, [999, 799, 499, 299]), (8, [999, 899, 799, 699, 499, 399, 299, 199]),
])  # fmt: skip
def test_a_face_comes_out_the_same_alone_and_in_a_batch(num_inference_steps, timesteps):
    """Between steps, too, each face's noise is of its own generator; from another one comes another face."""
    pipeline = tiny_pipeline()
    # The config of a scheduler with trailing timesteps: LCM has its own spacing, and the noisiest first as well.
    config = {**pipeline.scheduler.config, "timestep_spacing": "trailing", "prediction_type": "v_prediction"}
    pipeline.scheduler = LCMScheduler.from_config(config, original_inference_steps=10)
    settings = {**tiny_inputs(), "num_inference_steps": num_inference_steps, "guidance_scale": 1.0}
    images = [tiny_picture(1), tiny_picture(2)]

    def swap(image, *seeds: int) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        return pipeline(**{**settings, "image": image, "generator": generators}).images

    together = swap(images, 3, 4)
    assert pipeline.scheduler.timesteps.tolist() == timesteps
    for index, seed in enumerate((3, 4)):
        torch.testing.assert_close(swap(images[index], seed)[0], together[index], rtol=0, atol=1e-4)
    assert (swap(images[0], 5)[0] - together[0]).abs().max() > 1e-3
