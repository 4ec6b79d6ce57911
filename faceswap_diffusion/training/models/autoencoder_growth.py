# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportCallIssue=false, reportOptionalSubscript=false
# diffusers annotates its models too loosely for the checker.
"""An autoencoder for crops twice as large, started from one that is trained already."""

from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from faceswap_diffusion.pipelines.latents import Autoencoder

SHIFTS = (-1, 1)
"""Where the four copies of a colour are taken from, along each axis: together they show a downsampler 5 x 5 pixels."""

AREA = torch.tensor([[1, 0, 0, 0, 0], [0, 0.5, 0.5, 0, 0], [0, 0, 0, 0.5, 0.5]])
"""Weights, in three neighbours of the halved image, of the pixels 2i - 1 to 2i + 3 of the image.

The first neighbour is the mean of pixels 2i - 2 and 2i - 1, and the first of these is out of sight.
"""

TAPS = torch.tensor([
    [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [0, 0, 0, 0, 0]],
    [[0, 0, 1, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]],
]).float()  # fmt: skip
"""The pixel, 2i - 1 to 2i + 3, that each tap of a downsampler sees in each of the shifted copies; each pixel once."""

LOG_VARIANCE = -6.0
"""Of all latents, from now on: an encoder that learns its means alone says nothing true about their spread."""

NEW_CHANNEL_GAIN = 0.1
"""Of the weights through which the decoder sees new latent channels."""


def grow_autoencoder(old: Autoencoder, latent_channels: int) -> AutoencoderKL:
    """Puts a level in front of the encoder and behind the decoder, as wide as the outermost one, and adds channels.

    At first the new encoder halves the image and does what the old one does, and the new decoder does what the old
    one does on features that it doubles. The new channels are random and hardly seen. What is random comes from
    PyTorch's global generator.

    Args:
        old (`Autoencoder`): An `AutoencoderKL`; it is left as it is.
        latent_channels (`int`): Channels of the new latents, of which the first are the old ones.

    Returns:
        `AutoencoderKL`: Takes crops of twice the side to latents of the same side.

    Raises:
        ValueError: If it is of another kind, or there are fewer latent channels than before, or too few features to
            show the image in.
    """
    if not isinstance(old, AutoencoderKL):
        raise ValueError(f"the autoencoder is of kind {type(old).__name__}: only an AutoencoderKL can be grown")
    widths, num_copies = old.config["block_out_channels"], 3 * len(SHIFTS) ** 2
    if latent_channels < old.config["latent_channels"]:
        raise ValueError(
            f"got {latent_channels} latent channels, the old autoencoder has {old.config['latent_channels']}: "
            "raise --latent_channels"
        )
    if widths[0] < num_copies:
        raise ValueError(f"the autoencoder's first level has {widths[0]} channels: grow one of {num_copies} or more")
    new: Any = AutoencoderKL.from_config({
        **old.config,
        "block_out_channels": (widths[0], *widths),
        "down_block_types": ("DownEncoderBlock2D",) * (len(widths) + 1),
        "up_block_types": ("UpDecoderBlock2D",) * (len(widths) + 1),
        "latent_channels": latent_channels,
        "sample_size": 2 * old.config["sample_size"],
    })  # fmt: skip
    with torch.no_grad():
        _grow_encoder(old.encoder, new.encoder)
        _grow_decoder(old.decoder, new.decoder)
        _grow_latents(old, new)
    return new


def _grow_encoder(old: Any, new: Any) -> None:
    first, *others = new.down_blocks
    for old_block, block in zip(old.down_blocks, others, strict=True):
        block.load_state_dict(old_block.state_dict())
    new.mid_block.load_state_dict(old.mid_block.state_dict())
    new.conv_norm_out.load_state_dict(old.conv_norm_out.state_dict())
    _show_copies(new.conv_in)
    for resnet in first.resnets:
        _make_identity(resnet)
    downsampler = first.downsamplers[0].conv
    downsampler.bias.copy_(old.conv_in.bias)
    downsampler.weight.zero_()
    downsampler.weight[:, : 3 * len(SHIFTS) ** 2] = halving_kernel(old.conv_in.weight)


def _show_copies(conv_in: nn.Module) -> None:
    """Copies each colour four times, shifted along the diagonals; further features stay random."""
    num_copies = 3 * len(SHIFTS) ** 2
    conv_in.weight[:num_copies] = 0
    conv_in.bias[:num_copies] = 0
    for group, (y, x) in enumerate((y, x) for y in SHIFTS for x in SHIFTS):
        for color in range(3):
            conv_in.weight[3 * group + color, color, 1 + y, 1 + x] = 1


def halving_kernel(kernel: torch.Tensor) -> torch.Tensor:
    """The kernel of stride 2 on shifted copies of an image that does what a kernel does on the halved image.

    It is exact where neighbours, in pairs, are equal; elsewhere one row and one column of 6 x 6 pixels are out of
    sight, and their neighbours count for them.

    Args:
        kernel (`torch.Tensor`): (O, 3, 3, 3).

    Returns:
        `torch.Tensor`: (O, 12, 3, 3), for the copies in the order that `_show_copies` makes them in.
    """
    area, taps = AREA.to(kernel), TAPS.to(kernel)
    pixels = torch.einsum("ocab,ay,bx->ocyx", kernel, area, area)  # (O, 3, 5, 5)
    copies = torch.einsum("ocyx,pty,qux->opqctu", pixels, taps, taps)  # (O, 2, 2, 3, 3, 3)
    return copies.flatten(1, 3)


def _grow_decoder(old: Any, new: Any) -> None:
    *others, last = new.up_blocks
    for old_block, block in zip(old.up_blocks, others, strict=True):
        block.load_state_dict(old_block.state_dict(), strict=False)  # the last of them had no upsampler
    new.mid_block.load_state_dict(old.mid_block.state_dict())
    new.conv_norm_out.load_state_dict(old.conv_norm_out.state_dict())
    new.conv_out.load_state_dict(old.conv_out.state_dict())
    for resnet in last.resnets:
        _make_identity(resnet)
    _interpolate(others[-1].upsamplers[0].conv)


def _make_identity(resnet: nn.Module) -> None:
    resnet.conv2.weight.zero_()
    resnet.conv2.bias.zero_()


def _interpolate(conv: nn.Module) -> None:
    """Makes bilinear interpolation of the nearest neighbours that diffusers' upsampler shows its convolution."""
    line = torch.tensor([0.25, 0.5, 0.25])
    identity = torch.eye(conv.out_channels)
    conv.weight.copy_(identity[:, :, None, None] * torch.outer(line, line))
    conv.bias.zero_()


def _grow_latents(old: AutoencoderKL, new: AutoencoderKL) -> None:
    """Old channels keep their weights, new ones get separate weights."""
    was, now = old.config["latent_channels"], new.config["latent_channels"]
    kept = torch.cat([torch.arange(was), now + torch.arange(was)])  # means, log variances
    new.encoder.conv_out.weight[kept] = old.encoder.conv_out.weight
    new.encoder.conv_out.bias[kept] = old.encoder.conv_out.bias
    new.decoder.conv_in.weight.mul_(NEW_CHANNEL_GAIN)
    new.decoder.conv_in.weight[:, :was] = old.decoder.conv_in.weight
    new.decoder.conv_in.bias.copy_(old.decoder.conv_in.bias)
    _extend(old.quant_conv, new.quant_conv, kept)
    new.quant_conv.weight[now:] = 0
    new.quant_conv.bias[now:] = LOG_VARIANCE
    _extend(old.post_quant_conv, new.post_quant_conv, kept[:was])


def _extend(old: nn.Module, new: nn.Module, kept: torch.Tensor) -> None:
    """Old channels are mixed as before, new ones pass."""
    new.weight.copy_(torch.eye(new.out_channels)[:, :, None, None])
    new.weight[kept[:, None], kept] = old.weight
    new.bias.zero_()
    new.bias[kept] = old.bias
