"""Networks for the features of pictures, whose distributions are compared: Inception and CLIP."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from faceswap_diffusion.weights.registry import fetched_path

CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]


def resized_batch(images: Sequence[np.ndarray], size: int) -> torch.Tensor:
    """Pictures (H, W, 3) uint8 of any size as (B, 3, size, size) float32 in [0, 255].

    They are resized with Pillow's bicubic filter, which is antialiased. Other filters change FID (Parmar and others,
    "On Aliased Resizing and Surprising Subtleties in GAN Evaluation", 2022).
    """
    resized = [np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC)) for image in images]
    return torch.from_numpy(np.stack(resized)).permute(0, 3, 1, 2).float()


class InceptionFeatures:
    """Pooling features (2048) of the Inception-v3 that FID is defined with (Heusel and others 2017).

    The network is TorchScript, and is run only after its SHA-256 was checked.
    """

    def __init__(self):
        self.network = torch.jit.load(fetched_path("inception"), map_location="cpu").eval()

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Features (B, 2048) of pictures (H, W, 3) uint8 RGB."""
        return self.network((resized_batch(images, 299) - 128) / 128).numpy()


class CLIPFeatures:
    """Image embeddings (512) of CLIP ViT-B/32, not normalised: REFace's "FID" is a distance over these."""

    def __init__(self):
        self.network = load_clip_vision(
            torch.load(fetched_path("clip_vit_b32"), map_location="cpu", weights_only=True), CLIPVisionConfig()
        )

    @torch.no_grad()
    def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Features (B, 512) of pictures (H, W, 3) uint8 RGB."""
        pixels = (resized_batch(images, 224) / 255 - CLIP_MEAN) / CLIP_STD
        return self.network(pixel_values=pixels).image_embeds.numpy()


def load_clip_vision(weights: dict[str, torch.Tensor], config: CLIPVisionConfig) -> CLIPVisionModelWithProjection:
    """Loads the image tower from the weights of a CLIP model."""
    network = CLIPVisionModelWithProjection(config)
    wanted = network.state_dict().keys()
    network.load_state_dict({name: value for name, value in weights.items() if name in wanted})
    return network.eval()


FEATURE_NETWORKS = {"inception": InceptionFeatures, "clip": CLIPFeatures}
