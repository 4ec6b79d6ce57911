"""The masked image of a swap: the target with the reference in place of its face, encoded once for all who need it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from faceswap_diffusion.conditioning.reference import Reference
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.inputs import fill_hidden
from faceswap_diffusion.pipelines.latents import draw_latents, posterior
from faceswap_diffusion.swapping.aligned_face import AlignedFace


@dataclass(frozen=True, eq=False)
class MaskedImage:
    """A target with the reference in place of its face, and what the autoencoder makes of it.

    Args:
        reference ([`Reference`]): What is shown in place of the face.
        mask (`np.ndarray`): (S, S) float in [0, 1], 1 = hidden.
        pixel_values (`torch.Tensor` of shape `(1, 3, S, S)`): RGB in [-1, 1].
        encoded (`DiagonalGaussianDistribution`): Its unscaled latents.
    """

    reference: Reference
    mask: np.ndarray
    pixel_values: torch.Tensor
    encoded: DiagonalGaussianDistribution

    @property
    def pixels(self) -> np.ndarray:
        """(S, S, 3) float32 RGB in [0, 255]."""
        return (self.pixel_values[0].permute(1, 2, 0).numpy() + 1) * 127.5


def encode_masked_image(
    pipeline: FaceSwapInpaintPipeline, face: AlignedFace, mask: np.ndarray, reference: Reference
) -> MaskedImage:
    """Puts a reference in place of a target's face, and encodes the picture.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): With the autoencoder.
        face ([`AlignedFace`]): Of the target.
        mask (`np.ndarray`): (S, S) float in [0, 1], 1 = hidden.
        reference ([`Reference`]): Of the crop's size.
    """
    size = len(face.pixels)
    pixel_values = pipeline.preprocess(face.pixels, size, size)
    drawn = pipeline.preprocess(reference.pixels / 255, size, size)
    hidden, coverage = (torch.from_numpy(plane)[None, None].float() for plane in (mask, reference.coverage))
    filled = fill_hidden(pixel_values, hidden, drawn, coverage)
    encoded = posterior(pipeline.vae, filled.to(pipeline._execution_device, pipeline.vae.dtype))
    return MaskedImage(reference, mask, filled, encoded)


def prepare_start(
    pipeline: FaceSwapInpaintPipeline, masked: Sequence[MaskedImage], generator: list[torch.Generator]
) -> dict[str, torch.Tensor]:
    """Draws what a pipeline starts from, in the order in which it would draw it from the pictures themselves.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): To be called.
        masked (`Sequence[MaskedImage]`): One of each face.
        generator (`list[torch.Generator]`): Likewise.

    Returns:
        `dict[str, torch.Tensor]`: The arguments `latents` and `masked_image_latents` of its call.
    """
    height, width = masked[0].pixel_values.shape[-2:]
    device, dtype = pipeline._execution_device, pipeline.unet.dtype
    noise = pipeline.prepare_noise(len(masked), height, width, dtype, device, generator)
    is_sampled = pipeline.config["masked_latents"] == "sample"
    drawn = [
        draw_latents(pipeline.vae, image.encoded, is_sampled, own)
        for image, own in zip(masked, generator, strict=True)
    ]
    return {"latents": noise, "masked_image_latents": torch.cat(drawn)}
