"""Reconstruction quality of an autoencoder on crops of faces."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from faceswap_diffusion.pipelines.latents import Autoencoder, posterior
from faceswap_diffusion.training.data.dataset import PreparedFaces
from faceswap_diffusion.training.objectives.losses import image_gradients


@dataclass(frozen=True)
class Reconstruction:
    """Pictures and their reconstructions by an autoencoder.

    Args:
        images (`torch.Tensor`): (B, 3, S, S), RGB in [-1, 1]: the mode of the posterior, decoded.
        psnr (`float`): Mean of the pictures' PSNR in dB, where the range of values is 2.
        gradient_energy (`float`): Squared gradients over those of the original, mean over pictures: 1 is as sharp.
        latent_std (`float`): Standard deviation of sampled latents, before they are scaled.
    """

    images: torch.Tensor
    psnr: float
    gradient_energy: float
    latent_std: float


def load_crops(faces: PreparedFaces, rows: Iterable[int]) -> torch.Tensor:
    """Crops of prepared faces (B, 3, S, S), RGB in [-1, 1]."""
    return torch.stack([faces[row].pixels for row in rows]).float() / 127.5 - 1


@torch.no_grad()
def reconstruct(vae: Autoencoder, images: torch.Tensor, batch_size: int = 8) -> Reconstruction:
    """Reconstructs pictures with an autoencoder.

    Args:
        vae (`Autoencoder`): Where it is, and as precise as it is.
        images (`torch.Tensor`): (B, 3, S, S), RGB in [-1, 1].
        batch_size (`int`): How many at a time.
    """
    network: Any = vae
    generator = torch.Generator().manual_seed(0)
    latents, decoded = [], []
    for batch in images.split(batch_size):
        encoded = posterior(network, batch.to(network.device))
        latents.append(encoded.sample(generator))
        decoded.append(network.decode(encoded.mode(), return_dict=False)[0].clamp(-1, 1).cpu())
    got = torch.cat(decoded)
    errors = (got - images).square().mean(dim=(1, 2, 3))
    energies = [
        torch.stack([part.square().mean(dim=(1, 2, 3)) for part in image_gradients(view)]).sum(0)
        for view in (got, images)
    ]
    return Reconstruction(
        images=got,
        psnr=(10 * torch.log10(4 / errors)).mean().item(),
        gradient_energy=(energies[0] / energies[1]).mean().item(),
        latent_std=torch.cat(latents).std().item(),
    )
