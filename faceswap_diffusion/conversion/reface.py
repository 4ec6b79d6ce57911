"""Converts REFace's published checkpoint (arXiv 2409.07269) to a Diffusers folder, and back.

REFace's checkpoint is one Lightning file in CompVis' layout with all networks. The maps below give the name in that
file for each weight of ours. Checkpoints of other sizes are described by an [`Architecture`].
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from tqdm import tqdm
from transformers import CLIPVisionConfig
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

from faceswap_diffusion.conditioning.conditioner import FaceConditioner
from faceswap_diffusion.conversion.bisenet import convert_bisenet
from faceswap_diffusion.conversion.compvis import compvis_shape, unet_keys, vae_keys
from faceswap_diffusion.conversion.output import check_output, written
from faceswap_diffusion.conversion.torch_files import Checkpoint, read_checkpoint
from faceswap_diffusion.conversion.weights import ConversionReport, check_weights, fill, left_out, shapes_of
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.pipelines.loading import PARSER_FOLDER
from faceswap_diffusion.safety.checker import SafetyChecker
from faceswap_diffusion.weights.hub import CARD_TAGS, CONSENT, swap_example, write_hub_files

NETWORKS = ("unet", "vae", "image_encoder", "conditioner")
ARCFACE_PREFIX = "face_ID_model.facenet."

PREFIXES = {
    "image_encoder": {
        "vision_model.": "cond_stage_model.model.vision_model.",
        "visual_projection.": "cond_stage_model.model.visual_projection.",
    },
    "conditioner": {
        "identity_encoder.": ARCFACE_PREFIX,
        "mapper.": "cond_stage_model.mapper2.resblocks.",
        "mapper_norm.": "cond_stage_model.final_ln2.",
        "identity_projection.": "ID_proj_out.",
        "source_projection.": "proj_out_source.",
        "target_projection.": "proj_out_target.",
        "landmark_projection.": "landmark_proj_out.",
        "unconditional.embeds": "learnable_vector",
    },
}
"""Prefixes of our names of weights, and of REFace's."""

RAW_LANDMARKS = {"landmark_mean": 0.0, "landmark_std": 1.0}
"""Our statistics for standardising landmarks. REFace uses raw pixels and has no such weights."""

SCHEDULE = "the noise schedule, which the scheduler computes itself"
LEFT_OUT = {
    **dict.fromkeys(
        (
            "betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
            "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod",
            "posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2",
            "lvlb_weights", "logvar",
        ),
        SCHEDULE,
    ),
    "cond_stage_model.model.text_model.": "CLIP's text tower: REFace has no text",
    "cond_stage_model.model.text_projection.": "CLIP's text tower: REFace has no text",
    "cond_stage_model.model.logit_scale": "CLIP's text tower: REFace has no text",
    "cond_stage_model.model.vision_model.embeddings.position_ids": "numbers from 0 on",
    "cond_stage_model.mapper.": "never used by REFace",
    "cond_stage_model.final_ln.": "never used by REFace",
    "cond_stage_model.projection_back.": "never used by REFace",
    "lpips_loss.": "a network of the training's loss",
}  # fmt: skip


@dataclass(frozen=True)
class Architecture:
    """Sizes and settings of the networks.

    Args:
        unet (`dict`): What `UNet2DConditionModel` takes.
        vae (`dict`): What `AutoencoderKL` takes.
        image_encoder (`dict`): What `CLIPVisionConfig` takes.
        conditioner (`dict`): What `FaceConditioner` takes.
        pipeline (`dict`): The settings that `FaceSwapInpaintPipeline` takes.
    """

    unet: dict[str, Any]
    vae: dict[str, Any]
    image_encoder: dict[str, Any]
    conditioner: dict[str, Any]
    pipeline: dict[str, Any]


PUBLISHED = Architecture(
    unet={
        "sample_size": 64, "in_channels": 9, "out_channels": 4, "block_out_channels": (320, 640, 1280, 1280),
        "cross_attention_dim": 768, "attention_head_dim": 8,
    },
    vae={
        "sample_size": 512, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4,
        "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
        "scaling_factor": 0.18215,
    },
    image_encoder={
        "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
        "image_size": 224, "patch_size": 14, "projection_dim": 768, "hidden_act": "quick_gelu",
    },
    conditioner={
        "identity_network": "ir_se50", "clip_embed_dim": 768, "cross_attention_dim": 768, "num_landmarks": 68,
        "mapper_layers": 5, "combine": "sum", "identity_weight": 10.0, "clip_weight": 1.0, "landmark_weight": 0.05,
    },
    pipeline={
        "channel_order": "latents,masked_image_latents,keep_mask", "masked_latents": "sample", "crop_size": 512,
        "shown_regions": "face", "landmark_scale": 1.0, "hidden_fill": "grey", "geometry_share": 0.0,
        "identity_size": 224, "mask_identity": True, "default_num_inference_steps": 50, "default_strength": 1.0,
        "default_guidance_scale": 3.5,
    },
)  # fmt: skip
"""The checkpoint that REFace's authors published: Stable Diffusion 1.4, CLIP ViT-L/14, IR-SE50, 512 px."""


MODEL_CARD = f"""---
license: other
library_name: diffusers
pipeline_tag: image-to-image
tags:
- {CARD_TAGS[0]}
- {CARD_TAGS[1]}
---

# REFace, converted for Diffusers

Weights of [REFace](https://arxiv.org/abs/2409.07269), converted by the package `faceswap-diffusion`; `conversion.json`
says what became of every key. Their terms are those of the original: they were trained on CelebAMask-HQ and began as
Paint-by-Example's, for non-commercial use.

{swap_example("path/to/this/folder")}
{CONSENT}"""


def stable_diffusion_scheduler() -> DDIMScheduler:
    """DDIM on Stable Diffusion's noise schedule, without clipping, as REFace samples."""
    return DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False,
        set_alpha_to_one=False,
    )  # fmt: skip


def clip_feature_extractor(image_size: int) -> CLIPImageProcessorPil:
    """The image processor with CLIP's mean and standard deviation."""
    sides = {"height": image_size, "width": image_size}
    return CLIPImageProcessorPil(size={"shortest_edge": image_size}, crop_size=sides)


def _build_networks(architecture: Architecture) -> dict[str, Any]:
    return {
        "unet": UNet2DConditionModel(**architecture.unet),
        "vae": AutoencoderKL(**architecture.vae),
        "image_encoder": CLIPVisionModelWithProjection(CLIPVisionConfig(**architecture.image_encoder)),
        "conditioner": FaceConditioner(**architecture.conditioner),
    }


def _assemble(architecture: Architecture, networks: Mapping[str, Any]) -> FaceSwapInpaintPipeline:
    return FaceSwapInpaintPipeline(
        **networks,
        feature_extractor=clip_feature_extractor(architecture.image_encoder["image_size"]),
        scheduler=stable_diffusion_scheduler(),
        safety_checker=SafetyChecker(),
        **architecture.pipeline,
    )


def build_empty_pipeline(architecture: Architecture) -> FaceSwapInpaintPipeline:
    """Builds a pipeline whose networks have no values (on the meta device)."""
    with torch.device("meta"):
        networks = _build_networks(architecture)
    for name, value in RAW_LANDMARKS.items():
        setattr(networks["conditioner"], name, torch.full((2 * architecture.conditioner["num_landmarks"],), value))
    return _assemble(architecture, networks)


def build_random_pipeline(
    architecture: Architecture, device: str | torch.device = "cpu", dtype: torch.dtype = torch.float32
) -> FaceSwapInpaintPipeline:
    """Builds a pipeline with random weights.

    It makes no useful swaps, but takes the time and memory of a trained one. The weights are created on the wanted
    device in the wanted precision, so no additional memory is needed.

    Args:
        architecture ([`Architecture`]): Sizes of the networks.
        device (`str` or `torch.device`): Of the networks.
        dtype (`torch.dtype`): Of the networks.
    """
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            networks = _build_networks(architecture)
    finally:
        torch.set_default_dtype(usual)
    return _assemble(architecture, {name: network.eval() for name, network in networks.items()})


def reface_keys(pipeline: FaceSwapInpaintPipeline) -> dict[str, dict[str, str]]:
    """Maps the names of weights of each network to those in REFace's checkpoint."""
    names = {part: list(getattr(pipeline, part).state_dict()) for part in NETWORKS}
    keys = {part: _prefixed(names[part], prefixes) for part, prefixes in PREFIXES.items()}
    return {
        "unet": unet_keys(names["unet"], pipeline.unet.config),
        "vae": vae_keys(names["vae"], pipeline.vae.config),
        **keys,
    }


def _prefixed(names: list[str], prefixes: Mapping[str, str]) -> dict[str, str]:
    return {
        name: reface + name.removeprefix(ours)
        for name in names
        for ours, reface in prefixes.items()
        if name.startswith(ours)
    }


def reface_shapes(pipeline: FaceSwapInpaintPipeline) -> dict[str, tuple[int, ...]]:
    """The shape of every weight that REFace's checkpoint has for a pipeline's networks."""
    return {
        keys[name]: compvis_shape(keys[name], shape)
        for part, keys in reface_keys(pipeline).items()
        for name, shape in shapes_of(getattr(pipeline, part)).items()
        if name in keys
    }


def convert_reface(
    checkpoint: str | Path,
    folder: str | Path,
    *,
    dtype: torch.dtype | None = None,
    parser: str | Path | None = None,
    arcface: str | Path | None = None,
    overwrite: bool = False,
    architecture: Architecture = PUBLISHED,
) -> ConversionReport:
    """Converts REFace's checkpoint to a folder that `FaceSwapInpaintPipeline.from_pretrained` loads.

    The checkpoint is mapped into memory and converted part by part; no code in it is run.

    Args:
        checkpoint (`str` or `Path`): REFace's `last.ckpt`.
        folder (`str` or `Path`): Folder to write; it appears when everything is done.
        dtype (`torch.dtype`, *optional*): Precision to save in; the checkpoint's if left out.
        parser (`str` or `Path`, *optional*): `79999_iter.pth`, REFace's face parser, to go into the folder.
        arcface (`str` or `Path`, *optional*): `model_ir_se50.pth`, in place of the checkpoint's identity network.
        overwrite (`bool`): Whether an older folder is replaced.
        architecture ([`Architecture`]): Sizes of the networks.

    Returns:
        [`ConversionReport`]: What became of every key; the folder holds it, too, as `conversion.json`.

    Raises:
        ValueError: If a file is no such checkpoint, or the folder exists or cannot be written.
    """
    check_output(folder, overwrite)
    source = read_checkpoint(checkpoint)
    if arcface is not None:
        source = _with_arcface(source, read_checkpoint(arcface))
    pipeline = build_empty_pipeline(architecture)
    check_reface(source, pipeline)
    with written(folder, overwrite) as target:
        if parser is not None:
            convert_bisenet(parser, target / PARSER_FOLDER)
        save_networks(pipeline, reface_keys(pipeline), source.weights, target, dtype)
        report = report_of(source, reface_keys(pipeline))
        report.added |= {f"safety_checker/{name}": "the package's" for name in pipeline.safety_checker.state_dict()}
        report.save(target)
    return report


def _with_arcface(source: Checkpoint, arcface: Checkpoint) -> Checkpoint:
    kept = {key: weight for key, weight in source.weights.items() if not key.startswith(ARCFACE_PREFIX)}
    identity = {ARCFACE_PREFIX + key: weight for key, weight in arcface.weights.items()}
    return Checkpoint(source.path, kept | identity, source.training_state)


def check_reface(source: Checkpoint, pipeline: FaceSwapInpaintPipeline) -> None:
    """Checks that a checkpoint is REFace's, for the networks of a pipeline.

    Raises:
        ValueError: If it is something else, or has another noise schedule.
    """
    weights = source.weights
    if "learnable_vector" not in weights and any(key.startswith("model.diffusion_model.") for key in weights):
        raise ValueError(
            f"{source.path} is not REFace's checkpoint but looks like one of Stable Diffusion, without an identity "
            "network and learnable_vector: to begin a training with it use `convert sd-inpaint-init`"
        )
    check_weights(source, "REFace's checkpoint", reface_shapes(pipeline), LEFT_OUT)
    schedule: torch.Tensor = pipeline.scheduler.alphas_cumprod
    stored: torch.Tensor = weights.get("alphas_cumprod", schedule)
    if stored.shape != schedule.shape or not torch.allclose(stored.float(), schedule, rtol=1e-4):
        raise ValueError(f"{source.path} has another noise schedule than REFace's (alphas_cumprod)")


def report_of(source: Checkpoint, keys: Mapping[str, Mapping[str, str]]) -> ConversionReport:
    """Reports what became of each key of REFace's checkpoint."""
    became = {key: f"{part}/{name}" for part, names in keys.items() for name, key in names.items()}
    added = {f"conditioner/{name}": "REFace takes landmarks in raw pixels" for name in RAW_LANDMARKS}
    return ConversionReport(became, left_out(source, LEFT_OUT), added)


def save_networks(
    pipeline: FaceSwapInpaintPipeline,
    keys: Mapping[str, Mapping[str, str]],
    weights: Mapping[str, torch.Tensor],
    folder: Path,
    dtype: torch.dtype | None,
) -> None:
    """Writes a pipeline's folder, with only one network's weights in memory at a time.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): Its networks are on the meta device.
        keys (`Mapping[str, Mapping[str, str]]`): For each network, from its names of weights to those in `weights`.
        weights (`Mapping[str, torch.Tensor]`): Preferably memory-mapped.
        folder (`Path`): To write.
        dtype (`torch.dtype`, *optional*): Precision to save in; as they are if left out.
    """
    total = sum(weights[key].nbytes for part in keys.values() for key in part.values())
    with tqdm(total=total, unit="B", unit_scale=True, disable=None) as progress:
        for part, names in keys.items():
            progress.set_description(part)
            network = getattr(pipeline, part)
            fill(network, names, weights, dtype)
            network.save_pretrained(folder / part)
            network.to("meta")
            progress.update(sum(weights[key].nbytes for key in names.values()))
    for part in ("scheduler", "feature_extractor", "safety_checker"):
        getattr(pipeline, part).save_pretrained(folder / part)
    pipeline.save_config(folder)
    (folder / "README.md").write_text(MODEL_CARD, encoding="utf-8")
    write_hub_files(folder)
