"""Output of the pipeline."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers.utils.outputs import BaseOutput
from PIL import Image


@dataclass
class FaceSwapPipelineOutput(BaseOutput):
    """Output of `FaceSwapInpaintPipeline`.

    Args:
        images (`list[PIL.Image.Image]`, `np.ndarray` or `torch.Tensor`):
            The swapped crops, RGB: a list of PIL pictures, an array `(B, H, W, 3)` in [0, 1] or a tensor
            `(B, 3, H, W)` in [0, 1]; with `output_type="latent"` the latents `(B, C, h, w)`.
        nsfw_content_detected (`list[bool]`, *optional*):
            Whether each crop is explicit, and black for it; `None` if nothing was checked.
    """

    images: list[Image.Image] | np.ndarray | torch.Tensor
    nsfw_content_detected: list[bool] | None = None
