"""The only module that knows autoencoders: shape and scaling of their latents, encoding and decoding.

A kind that is missing here is refused by its name. A function takes the autoencoder first, whichever of them it is.
"""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_asym_kl import AsymmetricAutoencoderKL
from diffusers.models.autoencoders.autoencoder_dc import AutoencoderDC
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

Autoencoder = AutoencoderKL | AutoencoderTiny | AutoencoderDC | AsymmetricAutoencoderKL

WIDTHS = {
    AutoencoderKL: "block_out_channels",
    AutoencoderTiny: "encoder_block_out_channels",
    AutoencoderDC: "encoder_block_out_channels",
    AsymmetricAutoencoderKL: "down_block_out_channels",
}
"""The known kinds, and what their configs call the channels of the encoder's levels."""


def load_autoencoder(folder: str | Path, **kwargs: Any) -> Autoencoder:
    """Loads an autoencoder of any supported class, by its config.

    Args:
        folder (`str | Path`): That `save_pretrained` wrote.
        kwargs: What the class's `from_pretrained` takes.

    Raises:
        ValueError: If it is of another kind.
    """
    config: Any = AutoencoderKL.load_config(folder)
    name = config["_class_name"]
    for kind in WIDTHS:
        if kind.__name__ == name:
            return kind.from_pretrained(folder, **kwargs)
    raise ValueError(_unknown(name))


def encoder_widths(vae: Any) -> tuple[int, ...]:
    """Channels of the encoder's levels, from the picture to the latents.

    Raises:
        ValueError: If the autoencoder is of no known kind.
    """
    vae = getattr(vae, "_orig_mod", vae)  # what `torch.compile` wraps
    for kind, name in WIDTHS.items():
        if isinstance(vae, kind):
            return tuple(vae.config[name])
    raise ValueError(_unknown(type(vae).__name__))


def _unknown(name: str) -> str:
    return f"the autoencoder is of kind {name}: use one of {', '.join(kind.__name__ for kind in WIDTHS)}"


def spatial_factor(vae: Any) -> int:
    """How many pixels one latent position covers in each direction; each level but the first halves the side.

    Raises:
        ValueError: If the autoencoder is of no known kind.
    """
    return 2 ** (len(encoder_widths(vae)) - 1)


def channel_count(vae: Any) -> int:
    """How many channels the latents have."""
    return vae.config["latent_channels"]


def scale_and_shift(vae: Any) -> tuple[float, float]:
    """`scaling_factor` and `shift_factor`, which bring latents to unit spread around 0: `(x - shift) * scale`."""
    return vae.config["scaling_factor"], vae.config.get("shift_factor") or 0.0


def scale(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Scales an encoder's latents (B, C, h, w) for the UNet."""
    factor, shift = scale_and_shift(vae)
    return (latents - shift) * factor


def unscale(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Reverses `scale` for the decoder."""
    factor, shift = scale_and_shift(vae)
    return latents / factor + shift


def posterior(vae: Any, pixel_values: torch.Tensor) -> DiagonalGaussianDistribution:
    """Encodes pictures to a distribution of unscaled latents; its spread is 0 for deterministic encoders.

    Args:
        vae (`Autoencoder`): Of a known kind.
        pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [-1, 1].
    """
    encoded = vae.encode(pixel_values)
    if hasattr(encoded, "latent_dist"):
        return encoded.latent_dist
    latents = encoded.latents if hasattr(encoded, "latents") else encoded.latent  # AutoencoderTiny, AutoencoderDC
    return DiagonalGaussianDistribution(torch.cat([latents, torch.zeros_like(latents)], 1), deterministic=True)


def encode(
    vae: Any,
    pixel_values: torch.Tensor,
    sample: bool = False,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> torch.Tensor:
    """Encodes pictures.

    Args:
        vae (`Autoencoder`): Of a known kind.
        pixel_values (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [-1, 1].
        sample (`bool`): Whether to draw from the posterior, as far as it has a spread, or to take its mode.
        generator (`torch.Generator` or `list[torch.Generator]`, *optional*): To draw with.

    Returns:
        `torch.Tensor` of shape `(B, C, h, w)`: Scaled latents.
    """
    return draw_latents(vae, posterior(vae, pixel_values), sample, generator)


def draw_latents(
    vae: Any,
    encoded: DiagonalGaussianDistribution,
    sample: bool = False,
    generator: torch.Generator | list[torch.Generator] | None = None,
) -> torch.Tensor:
    """Takes scaled latents (B, C, h, w) from what `posterior` returned; see `encode` for the arguments."""
    drawn = sample and not encoded.deterministic
    return scale(vae, encoded.sample(generator) if drawn else encoded.mode())  # pyright: ignore[reportArgumentType]


def decode(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Decodes scaled latents (B, C, h, w) to RGB (B, 3, H, W), about [-1, 1]."""
    return vae.decode(unscale(vae, latents), return_dict=False)[0]


def rebuild(vae: Any, encoded: DiagonalGaussianDistribution) -> torch.Tensor:
    """Reconstructs RGB (B, 3, H, W), about [-1, 1], from what `posterior` returned: decodes its mode."""
    return vae.decode(encoded.mode(), return_dict=False)[0]


def freeze_encoder(vae: Any) -> None:
    """Freezes the encoder, so that latents stay the same in a training."""
    for name, parameter in vae.named_parameters():
        if name.startswith(("encoder.", "quant_conv.")):
            parameter.requires_grad_(False)
