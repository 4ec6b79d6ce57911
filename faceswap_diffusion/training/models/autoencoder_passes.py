"""Passes through an autoencoder, with the types that diffusers' annotations leave open."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution


def encode(vae: AutoencoderKL, images: torch.Tensor) -> DiagonalGaussianDistribution:
    """The posterior over latents of pictures.

    Args:
        vae (`AutoencoderKL`): The autoencoder.
        images (`torch.Tensor`): (B, 3, S, S), RGB in [-1, 1].
    """
    output: Any = vae.encode(images)
    return output.latent_dist


def decode(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Pictures (B, 3, S, S), RGB around [-1, 1], of latents.

    Args:
        vae (`AutoencoderKL`): The autoencoder.
        latents (`torch.Tensor`): (B, C, h, w), not scaled.
    """
    unscaled: Any = latents
    output: Any = vae.decode(unscaled)
    return output.sample
