# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false
# pyright: reportIndexIssue=false, reportOptionalCall=false
# diffusers annotates its models and their outputs too loosely for the checker.
"""Swaps made while training: a picture to look at, and how much identity they carry over."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from faceswap_diffusion.pipeline_faceswap_inpaint import FaceSwapInpaintPipeline


def grid(rows: list[torch.Tensor]) -> Image.Image:
    """Rows of pictures (B, 3, H, W) in [0, 1], one below the other."""
    lines = [torch.cat(list(row), dim=2) for row in rows]
    pixels = torch.cat(lines, dim=1).permute(1, 2, 0).clamp(0, 1)
    return Image.fromarray((pixels * 255).round().to(torch.uint8).numpy())


@torch.no_grad()
def validate(
    pipeline: FaceSwapInpaintPipeline, measured: dict[str, torch.Tensor], path: Path, num_inference_steps: int = 10
) -> str:
    """Gives every face the identity of the next one.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): With the weights to judge.
        measured (`dict[str, torch.Tensor]`): As `measure_faces` returns them; at least two faces.
        path (`Path`): Receives sources, targets and swaps, one row each, as PNG.
        num_inference_steps (`int`): Few, since it is done often.

    Returns:
        `str`: Mean cosine of the swaps' embedding to source and target, and the share closer to the source.
    """
    targets = measured["pixels"].permute(0, 3, 1, 2).float() / 255
    masks = measured["face_mask"].float()[:, None] / 255
    sources, source_masks = targets.roll(-1, 0), masks.roll(-1, 0)
    identity_embeds = measured["identity_embeds"][:, 0].roll(-1, 0)
    pipeline.set_progress_bar_config(disable=True)
    swaps = (
        pipeline(
            image=targets,
            source_image=sources,
            mask_image=masks,
            source_mask_image=source_masks,
            landmarks=measured["landmarks"],
            identity_embeds=identity_embeds,
            num_inference_steps=num_inference_steps,
            generator=[torch.Generator().manual_seed(index) for index in range(len(targets))],
            output_type="pt",
        )
        .images.cpu()
        .float()
    )
    swaps = swaps * masks + targets * (1 - masks)
    grid([sources, targets, swaps]).save(path)
    recognizer = pipeline.conditioner.identity_encoder
    embeds = recognizer(recognizer.prepare(swaps.to(pipeline.device) * 2 - 1)).cpu()
    to_source = (embeds * identity_embeds).sum(1)
    to_target = (embeds * measured["identity_embeds"][:, 0]).sum(1)
    closer = np.mean((to_source > to_target).numpy())
    return f"cosine to source {to_source.mean():.3f}, to target {to_target.mean():.3f}, closer to source {closer:.2f}"
