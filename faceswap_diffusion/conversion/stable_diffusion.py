"""Stable Diffusion 1.x, in either layout, into a face-swap checkpoint that a training begins with."""

from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors import SafetensorError
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conversion.compvis import compvis_shape, unet_keys, vae_keys
from faceswap_diffusion.conversion.output import check_output, written
from faceswap_diffusion.conversion.reface import (
    LEFT_OUT,
    PUBLISHED,
    SCHEDULE,
    Architecture,
    clip_feature_extractor,
    stable_diffusion_scheduler,
)
from faceswap_diffusion.conversion.torch_files import read_checkpoint
from faceswap_diffusion.conversion.weights import ConversionReport, check_weights, fill, left_out, shapes_of
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.latents import spatial_factor
from faceswap_diffusion.safety.checker import SafetyChecker
from faceswap_diffusion.weights.folders import EMBEDDED_CHECKPOINT, choose_variant, variants_of

FRESH = "fresh layers of the conditioner"
NO_TEXT = "the text encoder: conditions come from pictures"
LEFT_OUT_OF_STABLE_DIFFUSION = {
    **{name: reason for name, reason in LEFT_OUT.items() if reason == SCHEDULE},
    "cond_stage_model.": NO_TEXT,
    "model_ema.": "moving averages of the weights",
}


def init_from_stable_diffusion(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    arcface: str | Path | None = None,
    image_encoder: str | Path | None = None,
    seed: int = 0,
    dtype: torch.dtype | None = None,
    overwrite: bool = False,
    architecture: Architecture = PUBLISHED,
) -> ConversionReport:
    """Makes a checkpoint to begin a training with, as REFace's began.

    The UNet takes the masked target and the mask beside the latents, through new input channels whose weights are 0:
    at first it paints as it did. The conditioner's own layers are random.

    Args:
        checkpoint (`str` or `Path`): Stable Diffusion 1.x: a folder in Diffusers' layout, or a file in CompVis'.
        folder (`str` or `Path`): To write.
        arcface (`str` or `Path`, *optional*): `model_ir_se50.pth`; the identity network is the package's SFace if
            left out.
        image_encoder (`str` or `Path`, *optional*): Folder or Hub id of a CLIP model, such as ViT-L/14; the package's
            small one if left out.
        seed (`int`): Of the random layers.
        dtype (`torch.dtype`, *optional*): Precision to save in; float32 if left out.
        overwrite (`bool`): Whether an older folder is replaced.
        architecture ([`Architecture`]): Sizes of what is in a file; a folder says its own.

    Returns:
        [`ConversionReport`]: What became of every key; the folder holds it, too, as `conversion.json`.

    Raises:
        ValueError: If something given is not what it should be, or the folder exists or cannot be written.
    """
    check_output(folder, overwrite)
    source = Path(checkpoint)
    unet, vae, report = _load_folder(source) if source.is_dir() else _load_file(source, architecture)
    widen_input(unet, source)
    encoder, feature_extractor = load_image_encoder(image_encoder)
    conditioner = fresh_conditioner(unet, encoder, arcface, seed)
    crop_size = unet.config["sample_size"] * spatial_factor(vae)
    pipeline = FaceSwapInpaintPipeline(
        vae=vae,
        unet=unet,
        image_encoder=encoder,
        feature_extractor=feature_extractor,
        conditioner=conditioner,
        scheduler=stable_diffusion_scheduler(),
        safety_checker=SafetyChecker(),
        **{**architecture.pipeline, "crop_size": crop_size},
    )
    if dtype is not None:
        pipeline.to(dtype)
    report.added = _added(pipeline, arcface, image_encoder)
    with written(folder, overwrite) as target:
        pipeline.save_pretrained(target)
        report.save(target)
    return report


def _added(
    pipeline: FaceSwapInpaintPipeline, arcface: str | Path | None, image_encoder: str | Path | None
) -> dict[str, str]:
    """Says where the weights come from that Stable Diffusion lacks."""
    encoder = f"the image encoder of {image_encoder or 'the package'}"
    added = {"unet/conv_in.weight": "input channels for the masked target and the mask: zeros"}
    for name in pipeline.conditioner.state_dict():
        is_identity = name.startswith("identity_encoder.")
        added[f"conditioner/{name}"] = f"the identity network of {arcface}" if is_identity else FRESH
    return added | {f"image_encoder/{name}": encoder for name in pipeline.image_encoder.state_dict()}


def _load_file(path: Path, architecture: Architecture) -> tuple[UNet2DConditionModel, AutoencoderKL, ConversionReport]:
    """Loads UNet and autoencoder from a file in CompVis' layout."""
    source = read_checkpoint(path)
    with torch.device("meta"):
        unet = UNet2DConditionModel(**{**architecture.unet, "in_channels": architecture.unet["out_channels"]})
        vae = AutoencoderKL(**architecture.vae)
    parts: dict[str, tuple[Any, dict[str, str]]] = {
        "unet": (unet, unet_keys(list(unet.state_dict()), unet.config)),
        "vae": (vae, vae_keys(list(vae.state_dict()), vae.config)),
    }
    shapes = {
        keys[name]: compvis_shape(keys[name], shape)
        for network, keys in parts.values()
        for name, shape in shapes_of(network).items()
    }
    check_weights(source, "a checkpoint of Stable Diffusion 1.x", shapes, LEFT_OUT_OF_STABLE_DIFFUSION)
    report = ConversionReport(left_out=left_out(source, LEFT_OUT_OF_STABLE_DIFFUSION))
    for part, (network, keys) in parts.items():
        fill(network, keys, source.weights, torch.float32)
        report.became |= {key: f"{part}/{name}" for name, key in keys.items()}
    return unet, vae, report


def _load_folder(folder: Path) -> tuple[UNet2DConditionModel, AutoencoderKL, ConversionReport]:
    """Loads UNet and autoencoder from a folder in Diffusers' layout."""
    networks: dict[str, Any] = {}
    for part, network_class in (("unet", UNet2DConditionModel), ("vae", AutoencoderKL)):
        try:
            variant = choose_variant({part: variants_of((folder / part).iterdir(), folder / part)}, None)
            networks[part] = network_class.from_pretrained(
                folder / part, dtype=torch.float32, variant=variant, use_safetensors=True, local_files_only=True
            )
        except (OSError, RuntimeError, ValueError, SafetensorError) as error:
            raise ValueError(
                f"no {part} of Stable Diffusion with safetensors can be read in {folder}: {one_line(error)}"
            ) from error
    report = ConversionReport(left_out={"text_encoder": NO_TEXT, "tokenizer": NO_TEXT})
    for part, network in networks.items():
        report.became |= {f"{part}/{name}": f"{part}/{name}" for name in network.state_dict()}
    return networks["unet"], networks["vae"], report


def one_line(error: Exception) -> str:
    """The text of an error of the libraries, which may have many lines."""
    return " ".join(str(error).split())


def widen_input(unet: UNet2DConditionModel, source: Path) -> None:
    """Adds the input channels of an inpainting UNet to a text-to-image one, with weights 0.

    Args:
        unet ([`UNet2DConditionModel`]): With as many input as output channels.
        source (`Path`): Where it is from, for the error.

    Raises:
        ValueError: If it has other input channels already.
    """
    num_latents, conv_in = unet.config["out_channels"], unet.conv_in
    if conv_in.in_channels != num_latents:
        raise ValueError(
            f"the UNet of {source} takes {conv_in.in_channels} channels: give one of Stable Diffusion 1.x that makes "
            f"pictures from text, which takes {num_latents}"
        )
    zeros = torch.zeros_like(conv_in.weight).repeat(1, 2, 1, 1)[:, : num_latents + 1]  # masked target and mask
    conv_in.weight = torch.nn.Parameter(torch.cat([conv_in.weight.detach(), zeros], dim=1))
    conv_in.in_channels = 2 * num_latents + 1
    unet.register_to_config(in_channels=conv_in.in_channels)


def load_image_encoder(
    folder: str | Path | None,
) -> tuple[CLIPVisionModelWithProjection, CLIPImageProcessorPil]:
    """Loads a CLIP vision tower, and what holds its mean and deviation of pixels.

    Args:
        folder (`str` or `Path`, *optional*): Folder or Hub id of a CLIP model; the package's small one if left out.

    Raises:
        ValueError: If there is none.
    """
    if folder is None:
        encoder = CLIPVisionModelWithProjection.from_pretrained(
            EMBEDDED_CHECKPOINT / "image_encoder", dtype=torch.float32
        )
        return encoder, CLIPImageProcessorPil.from_pretrained(EMBEDDED_CHECKPOINT / "feature_extractor")
    try:
        loaded: Any = CLIPVisionModelWithProjection.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise ValueError(f"no CLIP model with safetensors can be read in {folder}: {one_line(error)}") from error
    encoder, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"{folder} is no CLIP model with a vision tower: it lacks {missing[0]}")
    return encoder, clip_feature_extractor(encoder.config.image_size)


def fresh_conditioner(
    unet: UNet2DConditionModel,
    image_encoder: CLIPVisionModelWithProjection,
    arcface: str | Path | None,
    seed: int,
) -> FaceConditioner:
    """Builds a conditioner as REFace's, with random layers around a trained identity network.

    Args:
        unet ([`UNet2DConditionModel`]): Whose context it makes.
        image_encoder (`CLIPVisionModelWithProjection`): Whose embeddings it takes.
        arcface (`str` or `Path`, *optional*): `model_ir_se50.pth`; SFace if left out.
        seed (`int`): Of the random layers.

    Raises:
        ValueError: If `arcface` is another file.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        conditioner = FaceConditioner(
            **{
                **PUBLISHED.conditioner,
                "identity_network": "sface" if arcface is None else "ir_se50",
                "clip_embed_dim": image_encoder.config.projection_dim,
                "cross_attention_dim": unet.config["cross_attention_dim"],
            }
        )
    if arcface is not None:
        source, network = read_checkpoint(arcface), conditioner.identity_encoder
        shapes = shapes_of(network)
        check_weights(source, "the identity network model_ir_se50.pth", shapes, {})
        fill(network, {name: name for name in shapes}, source.weights, dtype=None)
    return conditioner
