"""The order of the UNet's channels and the polarity of its mask."""

import pytest
import torch

from faceswap_diffusion.pipelines.faceswap_inpaint import assemble_unet_input
from tests.tiny import tiny_pipeline


def assemble(channel_order: str) -> torch.Tensor:
    """Latents of 1, masked latents of 2 and a mask of 0.25, put together."""
    parts = (torch.full((2, channels, 3, 3), value) for channels, value in ((4, 1.0), (4, 2.0), (1, 0.25)))
    return assemble_unet_input(next(parts), next(parts), next(parts), channel_order)


def test_reface_order_ends_with_the_keep_mask():
    joined = assemble("latents,masked_image_latents,keep_mask")
    assert joined[0, :, 0, 0].tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 0.75]


def test_diffusers_order_has_the_repaint_mask_after_the_latents():
    joined = assemble("latents,mask,masked_image_latents")
    assert joined[1, :, 2, 2].tolist() == [1, 1, 1, 1, 0.25, 2, 2, 2, 2]


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="channel_order is 'mask,latents'"):
        assemble("mask,latents")
    with pytest.raises(ValueError, match="channel_order is 'mask,latents'"):
        tiny_pipeline(channel_order="mask,latents")


@pytest.mark.parametrize("order", ["latents,masked_image_latents,keep_mask", "latents,mask,masked_image_latents"])
def test_the_unet_is_fed_in_the_order_of_the_config(order):
    pipe = tiny_pipeline(channel_order=order)
    seen = []
    pipe.unet.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    latents = torch.zeros(1, 4, 16, 16)
    pipe(
        image=torch.full((3, 32, 32), 0.9),
        mask_image=torch.full((32, 32), 0.25),
        masked_image_latents=torch.full((1, 4, 16, 16), 5.0),
        condition_embeds=torch.zeros(1, 1, 16),
        num_inference_steps=1,
        latents=latents,
        output_type="latent",
    )
    expected = assemble_unet_input(
        latents, torch.full((1, 4, 16, 16), 5.0), torch.full((1, 1, 16, 16), 0.25), order
    ).repeat(2, 1, 1, 1)
    assert torch.equal(seen[0], expected)
