"""Identity guidance: small changes to a repainted face by which a recogniser sees more of the source in it.

The gradient of an identity network steers the picture, as in DiffFace (Kim et al., arXiv 2212.13344), towards a
smaller 1 - cos(E(source), E(swap)), and here away from the target as well. There it acts between the steps of the
sampler. Here it acts on the finished crop, as the structure of the reference replaces what the steps have changed.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from faceswap_diffusion.faces.texture import smoothstep

NUM_STEPS = 5
STEP = 1.5
"""Root mean square of the change in one step, of 255."""

LIMIT = 8.0
"""No pixel changes by more, of 255."""

CHROMA = 0.2
"""Factor on the change of colours: stains are seen sooner than a change of brightness."""

AWAY = 0.3
"""Weight of the cosine to the target, which is to become smaller."""

SAME_PERSON = (0.3, 0.6)
"""Cosines of source and target from which on less is changed, and nothing: they are the same person."""

SMOOTHNESS = 0.01
"""Standard deviation of the blur of each step, as a share of the crop's side."""

LOSS_SCALE = 1024.0  # gradients of half precision would be rounded to 0; their length does not matter

Embed = Callable[[torch.Tensor], torch.Tensor]
"""From crops (1, 3, S, S), RGB in [-1, 1], of any size, to embeddings (1, D) of unit length; differentiable."""


def guide_identity(
    pixels: np.ndarray,
    mask: np.ndarray,
    embed: Embed,
    source_embeds: torch.Tensor,
    target_embeds: torch.Tensor,
    scale: float = 1.0,
) -> np.ndarray:
    """Changes a face towards an identity.

    Each step looks at the face in another way: as it is, mirrored, and at half of the size. What only one of these
    views shows is of the network, and not of the person. Nothing changes between photos of one person.

    Args:
        pixels (`np.ndarray` of shape `(S, S, 3)`, float32): RGB in [0, 255], FFHQ-aligned.
        mask (`np.ndarray` of shape `(S, S)`): In [0, 1], what may change.
        embed (`Callable`): The identity network.
        source_embeds (`torch.Tensor` of shape `(1, D)`): Of the source, of unit length.
        target_embeds (`torch.Tensor` of shape `(1, D)`): Of the target, likewise.
        scale (`float`): In [0, 1], a factor on all changes, which are at most `LIMIT`.

    Returns:
        `np.ndarray` of shape `(S, S, 3)`, float32: RGB in [0, 255].
    """
    cosine = (source_embeds.float() * target_embeds.float()).sum()
    scale *= 1 - float(smoothstep(cosine.numpy(), *SAME_PERSON))
    if not scale or not mask.any():
        return pixels
    wanted = source_embeds.float() - AWAY * target_embeds.float()
    change = np.zeros(pixels.shape, np.float32)
    weights = mask[..., None].astype(np.float32)
    for step in range(NUM_STEPS):
        gradient = _gradient(pixels + weights * change, embed, wanted, step)
        brightness = gradient.mean(axis=2, keepdims=True)
        smooth = weights * cv2.GaussianBlur(
            brightness + CHROMA * (gradient - brightness), (0, 0), SMOOTHNESS * len(pixels)
        )
        size = np.sqrt((smooth**2).sum() / (3 * weights.sum()))
        change += STEP * scale * smooth / max(size, np.finfo(np.float32).tiny)
    limit = LIMIT * scale
    return np.clip(pixels + weights * limit * np.tanh(change / limit), 0, 255).astype(np.float32)


def _gradient(pixels: np.ndarray, embed: Embed, wanted: torch.Tensor, step: int) -> np.ndarray:
    """How the likeness to a wanted embedding changes with each pixel, (S, S, 3), up to a positive factor."""
    view = torch.from_numpy(pixels.astype(np.float32)).permute(2, 0, 1)[None] / 127.5 - 1
    # Callers that swap in inference mode need gradients here as well.
    with torch.inference_mode(False), torch.enable_grad():
        view, wanted = view.clone().requires_grad_(), wanted.clone()
        embeds = embed(VIEWS[step % len(VIEWS)](view)).float()
        likeness = (embeds * wanted.to(embeds.device)).sum()
        (gradient,) = torch.autograd.grad(LOSS_SCALE * likeness, view)
    return gradient[0].permute(1, 2, 0).cpu().numpy()


def _as_it_is(view: torch.Tensor) -> torch.Tensor:
    return view


def _mirrored(view: torch.Tensor) -> torch.Tensor:
    return view.flip(3)


def _half_size(view: torch.Tensor) -> torch.Tensor:
    return F.interpolate(view, scale_factor=0.5, mode="bilinear", antialias=True, align_corners=False)


VIEWS = (_as_it_is, _mirrored, _half_size)
