"""Names of the weights of Diffusers' UNet and autoencoder in CompVis' layout, as in the first Stable Diffusion.

The maps go from Diffusers' names to CompVis' names. A network knows all its own names, so the maps work in both
directions. The tests compare them with Diffusers' own conversion, which works in one direction only.
"""

from collections.abc import Mapping
from typing import Any

UNET_PREFIX = "model.diffusion_model."
VAE_PREFIX = "first_stage_model."

UNET_MODULES = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_in": "input_blocks.0.0",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
UNET_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
VAE_MODULES = {
    "quant_conv": "quant_conv",
    "post_quant_conv": "post_quant_conv",
    **{
        f"{half}.{module}": f"{half}.{name}"
        for half in ("encoder", "decoder")
        for module, name in {
            "conv_in": "conv_in",
            "mid_block.resnets.0": "mid.block_1",
            "mid_block.attentions.0": "mid.attn_1",
            "mid_block.resnets.1": "mid.block_2",
            "conv_norm_out": "norm_out",
            "conv_out": "conv_out",
        }.items()
    },
}
VAE_RESNET = {"conv_shortcut": "nin_shortcut"}
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def unet_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Maps the modules of Diffusers' `UNet2DConditionModel` to those of CompVis' UNet.

    CompVis numbers all blocks of a half consecutively, including down- and upsampling blocks.

    Args:
        config (`Mapping[str, Any]`): The network's configuration.
    """
    layers, modules = config["layers_per_block"], dict(UNET_MODULES)
    for block, kind in enumerate(config["up_block_types"]):
        down, up = block * (layers + 1) + 1, block * (layers + 1)
        for layer in range(layers):
            modules[f"down_blocks.{block}.resnets.{layer}"] = f"input_blocks.{down + layer}.0"
            modules[f"down_blocks.{block}.attentions.{layer}"] = f"input_blocks.{down + layer}.1"
        modules[f"down_blocks.{block}.downsamplers.0.conv"] = f"input_blocks.{down + layers}.0.op"
        for layer in range(layers + 1):
            modules[f"up_blocks.{block}.resnets.{layer}"] = f"output_blocks.{up + layer}.0"
            modules[f"up_blocks.{block}.attentions.{layer}"] = f"output_blocks.{up + layer}.1"
        upsampler = 2 if kind.startswith("CrossAttn") else 1  # it comes after the attention, if there is one
        modules[f"up_blocks.{block}.upsamplers.0.conv"] = f"output_blocks.{up + layers}.{upsampler}.conv"
    return modules


def vae_modules(config: Mapping[str, Any]) -> dict[str, str]:
    """Maps the modules of Diffusers' `AutoencoderKL` to those of CompVis' autoencoder.

    CompVis counts the decoder's blocks from the last.

    Args:
        config (`Mapping[str, Any]`): The network's configuration.
    """
    layers, modules = config["layers_per_block"], dict(VAE_MODULES)
    num_blocks = len(config["block_out_channels"])
    for block in range(num_blocks):
        down, up = f"encoder.down.{block}", f"decoder.up.{num_blocks - 1 - block}"
        for layer in range(layers):
            modules[f"encoder.down_blocks.{block}.resnets.{layer}"] = f"{down}.block.{layer}"
        modules[f"encoder.down_blocks.{block}.downsamplers.0.conv"] = f"{down}.downsample.conv"
        for layer in range(layers + 1):
            modules[f"decoder.up_blocks.{block}.resnets.{layer}"] = f"{up}.block.{layer}"
        modules[f"decoder.up_blocks.{block}.upsamplers.0.conv"] = f"{up}.upsample.conv"
    return modules


def _renamed(key: str, modules: Mapping[str, str], resnet: Mapping[str, str], attention: Mapping[str, str]) -> str:
    module = next(module for module in modules if key.startswith(f"{module}."))
    part, _, kind = key.removeprefix(f"{module}.").rpartition(".")
    names = resnet if ".resnets." in module else attention if ".attentions." in module else {}
    return ".".join(filter(None, (modules[module], names.get(part, part), kind)))


def unet_keys(keys: list[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Maps the names of weights of Diffusers' UNet to those in a CompVis checkpoint."""
    modules = unet_modules(config)
    return {key: UNET_PREFIX + _renamed(key, modules, UNET_RESNET, {}) for key in keys}


def vae_keys(keys: list[str], config: Mapping[str, Any]) -> dict[str, str]:
    """Maps the names of weights of Diffusers' autoencoder to those in a CompVis checkpoint."""
    modules = vae_modules(config)
    return {key: VAE_PREFIX + _renamed(key, modules, VAE_RESNET, VAE_ATTENTION) for key in keys}


def compvis_shape(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a weight in CompVis' layout, whose autoencoder has 1x1 convolutions in place of linear layers.

    Args:
        key (`str`): The weight's name in CompVis' layout.
        shape (`tuple[int, ...]`): Its shape in Diffusers'.
    """
    is_matrix = key.startswith(VAE_PREFIX) and ".mid.attn_1." in key and len(shape) == 2
    return (*shape, 1, 1) if is_matrix else shape
