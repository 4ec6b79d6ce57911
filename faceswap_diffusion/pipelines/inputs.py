"""Converts pictures to tensors, and prepares the inputs of the encoders."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from faceswap_diffusion.masks.inpaint import read_mask

ImageInput: TypeAlias = (
    PIL.Image.Image | np.ndarray | torch.Tensor | list[PIL.Image.Image] | list[np.ndarray] | list[torch.Tensor]
)


def resize(pixels: torch.Tensor, height: int, width: int, antialias: bool = False) -> torch.Tensor:
    """Resizes `(B, C, H, W)` bilinearly; views of encoders and latent masks without antialiasing, as REFace does."""
    if pixels.shape[-2:] == (height, width):
        return pixels
    return F.interpolate(pixels, size=(height, width), mode="bilinear", align_corners=False, antialias=antialias)


def fill_hidden(
    pixel_values: torch.Tensor,
    mask: torch.Tensor,
    fill: torch.Tensor | None = None,
    coverage: torch.Tensor | None = None,
) -> torch.Tensor:
    """The target without its face, and with something else in its place.

    Args:
        pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): The target, RGB in [-1, 1].
        mask (`torch.Tensor` of shape `(B, 1, H, W)`): 1 = hidden, 0 = shown.
        fill (`torch.Tensor` of shape `(B, 3, H, W)`, *optional*): What hidden pixels show, RGB in [-1, 1]; grey (0) if
            left out.
        coverage (`torch.Tensor` of shape `(B, 1, H, W)`, *optional*): Where `fill` shows something, in [0, 1]; the
            rest gets a smooth colour of what is around. 1 everywhere if left out.

    Returns:
        `torch.Tensor` of shape `(B, 3, H, W)`, RGB in [-1, 1].
    """
    shown = pixel_values * (1 - mask)
    if fill is None:
        return shown
    if coverage is None:
        return shown + fill * mask
    mask = mask.clamp(max=1)  # rounded above 1, it would leave a negative share of the target
    covered = mask * coverage
    return close_holes(pixel_values * (1 - mask) + fill * covered, 1 - mask + covered)


def close_holes(weighted_pixels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Fills unknown pixels with smooth colours of the known ones.

    It is push-pull (Gortler et al., The Lumigraph, 1996, section 3.4): known colours are averaged level by level of a
    pyramid, and what a level does not know comes from the coarser one.

    Args:
        weighted_pixels (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [-1, 1], times `weights`.
        weights (`torch.Tensor` of shape `(B, 1, H, W)`): How well a pixel is known, in [0, 1].

    Returns:
        `torch.Tensor` of shape `(B, 3, H, W)`, RGB in [-1, 1]; grey (0) where a picture knows nothing at all.
    """
    height, width = weights.shape[-2:]
    if height == width == 1:
        return weighted_pixels / weights.clamp(min=torch.finfo(weights.dtype).tiny)
    size = ((height + 1) // 2, (width + 1) // 2)
    means, known = (F.adaptive_avg_pool2d(part, size) for part in (weighted_pixels, weights))
    gain = 1 / known.clamp(min=1 / 4)  # one known pixel of four makes a known one
    coarse = close_holes(means * gain, known * gain)
    return weighted_pixels + (1 - weights) * resize(coarse, height, width)


def preprocess_encoder_image(
    pixel_values: torch.Tensor,
    size: int,
    mean: Sequence[float],
    std: Sequence[float],
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Prepares an aligned crop for the image encoder. Differentiable, so that training uses it as well.

    Args:
        pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [-1, 1].
        size (`int`): Side length of the view in pixels.
        mean (`Sequence[float]`): The encoder's mean of each channel, for RGB in [0, 1].
        std (`Sequence[float]`): The encoder's standard deviation of each channel, for RGB in [0, 1].
        mask (`torch.Tensor` of shape `(B, 1, H, W)`, *optional*): 1 = shown, 0 = hidden; hidden pixels are 0 *after*
            normalisation. `None` shows everything.

    Returns:
        `torch.Tensor` of shape `(B, 3, size, size)`, normalised RGB.
    """
    view = resize(pixel_values, size, size) / 2 + 0.5
    view = (view - view.new_tensor(mean).view(1, 3, 1, 1)) / view.new_tensor(std).view(1, 3, 1, 1)
    return view if mask is None else view * resize(mask, size, size)


def preprocess_identity_image(
    pixel_values: torch.Tensor, size: int, mean: Sequence[float], mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Prepares an aligned crop for the identity network. Differentiable, so that training uses it as well.

    It is the image encoder's view before its division by the standard deviation: hidden pixels have the encoder's
    mean colour.

    Args:
        pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [-1, 1].
        size (`int`): Side length of the view in pixels.
        mean (`Sequence[float]`): The colour of hidden pixels, RGB in [0, 1].
        mask (`torch.Tensor` of shape `(B, 1, H, W)`, *optional*): 1 = shown, 0 = hidden. `None` shows everything.

    Returns:
        `torch.Tensor` of shape `(B, 3, size, size)`, RGB in [-1, 1].
    """
    centred = preprocess_encoder_image(pixel_values, size, mean, (1.0, 1.0, 1.0), mask)
    return 2 * (centred + centred.new_tensor(mean).view(1, 3, 1, 1)) - 1


def image_to_tensor(image: PIL.Image.Image | np.ndarray | torch.Tensor, channels: int, name: str) -> torch.Tensor:
    """Turns one picture, or a batch of them in one array or tensor, into a float tensor.

    Args:
        image (`PIL.Image.Image`, `np.ndarray` or `torch.Tensor`): RGB (`channels` 3) or grey (`channels` 1), where a
            picture's alpha counts as in [`masks.inpaint.read_mask`]. Arrays
            `(H, W, C)` or `(B, H, W, C)`, tensors `(C, H, W)` or `(B, C, H, W)`, where grey ones may lack C; bytes or
            floats in [0, 1].
        channels (`int`): 3 or 1.
        name (`str`): What an error calls it.

    Returns:
        `torch.Tensor` of shape `(B, C, H, W)`, float32 in [0, 1].

    Raises:
        ValueError: If the shape or the range does not fit.
    """
    if isinstance(image, PIL.Image.Image):
        image = np.asarray(image.convert("RGB")) if channels == 3 else read_mask(image)
    if isinstance(image, np.ndarray):
        lacks_channel = channels == 1 and (image.ndim == 2 or image.shape[-1] != 1)
        pixels = torch.from_numpy(np.array(image[..., None] if lacks_channel else image))
        pixels = pixels.movedim(-1, max(-3, -pixels.ndim))
    else:
        pixels = image.unsqueeze(-3) if channels == 1 and image.ndim < 4 else image
    pixels = pixels[None] if pixels.ndim == 3 else pixels
    if pixels.ndim != 4 or pixels.shape[1] != channels:
        raise ValueError(f"`{name}` has shape {tuple(image.shape)}: expected {channels} channel(s), batched or not")
    pixels = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    if not (pixels.min() >= -1e-3 and pixels.max() <= 1 + 1e-3):
        raise ValueError(f"`{name}` reaches from {pixels.min():g} to {pixels.max():g}: scale to [0, 1] or pass bytes")
    return pixels


def images_to_tensors(image: ImageInput, channels: int, name: str) -> list[torch.Tensor]:
    """Turns a picture or a list of pictures into tensors, as `image_to_tensor` does; their sizes may differ."""
    return [image_to_tensor(item, channels, name) for item in (image if isinstance(image, list | tuple) else [image])]


def repeat_batch(tensor: torch.Tensor, batch_size: int, num_copies: int, name: str) -> torch.Tensor:
    """Repeats a batch of 1 or `batch_size` to `batch_size * num_copies`, copies of one face next to each other.

    Raises:
        ValueError: If the batch is neither.
    """
    if len(tensor) not in (1, batch_size):
        raise ValueError(f"`{name}` is a batch of {len(tensor)}, others are of {batch_size}: pass 1 or {batch_size}")
    return tensor.expand(batch_size, *tensor.shape[1:]).repeat_interleave(num_copies, dim=0)
