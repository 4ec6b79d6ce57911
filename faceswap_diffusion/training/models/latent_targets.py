"""Target latents of a grown autoencoder: the old latents first, then what the old ones miss."""

from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from faceswap_diffusion.pipelines.latents import Autoencoder, posterior, spatial_factor


class LatentTargets(nn.Module):
    """Latents of a crop: those of the old autoencoder on the halved crop, and projections of patches of the crop.

    A patch is the region of the crop that one latent position covers. It is projected onto the principal components of
    what is missing in the old autoencoder's reconstruction. Not what is missing is projected but the patch: that is
    easier to learn, and together with the old latents it holds the same information.

    Args:
        old (`Autoencoder`): Takes crops of half the side.
        num_details (`int`): Number of components.
        images (`torch.Tensor`): (B, 3, S, S), RGB in [-1, 1], that components, means and spreads are taken from.

    Attributes:
        explained (`float`): Share of the squared error of the reconstructions that lies in the components.
    """

    components: torch.Tensor
    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, old: Autoencoder, num_details: int, images: torch.Tensor):
        super().__init__()
        self.old = old.requires_grad_(False)
        self.scale = old.config["scaling_factor"]
        self.factor = 2 * spatial_factor(old)
        missing = torch.cat([self.patches(image - self.restored(image)) for image in images.split(1)]).double()
        energies, components = torch.linalg.eigh(missing.T @ missing)  # ascending
        self.explained = (energies[len(energies) - num_details :].sum() / energies.sum()).item()
        self.register_buffer("components", components.flip(1)[:, :num_details].float())
        details = self.patches(images) @ self.components
        self.register_buffer("mean", details.mean(0))
        self.register_buffer("std", details.std(0))

    @torch.no_grad()
    def restored(self, images: torch.Tensor) -> torch.Tensor:
        """The old autoencoder's reconstruction of halved crops, doubled."""
        latents = posterior(self.old, F.avg_pool2d(images, 2)).mean
        return F.interpolate(self.decode(latents), scale_factor=2.0, mode="bicubic")

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """The old autoencoder's pictures (B, 3, S/2, S/2) of unscaled latents."""
        old: Any = self.old
        return old.decode(latents, return_dict=False)[0]

    def patches(self, images: torch.Tensor) -> torch.Tensor:
        """The patch of each place, row by row: (B * h * w, 3 * factor**2)."""
        return F.pixel_unshuffle(images, self.factor).permute(0, 2, 3, 1).flatten(0, 2)

    @torch.no_grad()
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Latents (B, C, h, w) that the encoder should produce; new channels have unit spread once they are scaled."""
        latents = posterior(self.old, F.avg_pool2d(images, 2)).mean
        details = (self.patches(images) @ self.components - self.mean) / self.std / self.scale
        places = details.unflatten(0, (len(images), *latents.shape[-2:]))
        return torch.cat([latents, places.permute(0, 3, 1, 2)], 1)


@torch.no_grad()
def fit_new_channels(vae: AutoencoderKL, targets: LatentTargets, images: torch.Tensor, ridge: float = 1e-4) -> None:
    """Sets the encoder's last layer so that its new channels come as near to the targets as its features allow.

    Args:
        vae (`AutoencoderKL`): Of `grow_autoencoder`; its new channels pass `quant_conv` as they are.
        targets (`LatentTargets`): Target latents.
        images (`torch.Tensor`): (B, 3, S, S), RGB in [-1, 1].
        ridge (`float`): Added to the diagonal of the normal equations, as a share of its mean.
    """
    was, now = targets.old.config["latent_channels"], vae.config["latent_channels"]
    conv_out: Any = vae.encoder.conv_out
    seen, wanted = [], []
    hook = conv_out.register_forward_pre_hook(lambda _, inputs: seen.append(_neighbourhoods(inputs[0])))
    for image in images.split(1):
        vae.encode(image)
        wanted.append(targets(image)[:, was:].permute(0, 2, 3, 1).flatten(0, 2))
    hook.remove()
    features = torch.cat(seen).double()
    gram = features.T @ features
    gram.diagonal().add_(ridge * gram.diagonal().mean())
    solution = torch.linalg.solve(gram, features.T @ torch.cat(wanted).double()).float()
    conv_out.weight[was:now] = solution[:-1].T.unflatten(1, conv_out.weight.shape[1:])
    conv_out.bias[was:now] = solution[-1]


def _neighbourhoods(features: torch.Tensor) -> torch.Tensor:
    """What a 3 x 3 convolution of (B, C, h, w) sees at each place, and a one for its bias: (B * h * w, 9 C + 1)."""
    columns = F.unfold(features, 3, padding=1).transpose(1, 2).flatten(0, 1)
    return F.pad(columns, (0, 1), value=1.0)
