"""A checkpoint inside training: applies its networks to a batch as the pipeline applies them to pictures."""

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline, assemble_unet_input
from faceswap_diffusion.pipelines.inputs import (
    fill_hidden,
    preprocess_encoder_image,
    preprocess_identity_image,
    resize,
)
from faceswap_diffusion.pipelines.latents import encode
from faceswap_diffusion.training.data.batches import SwapBatch


class SwapModule(nn.Module):
    """Base class of the swap model's objectives.

    UNet and conditioner are its submodules, so that one forward pass and one backward pass serve every way of
    distributing them. The frozen networks are not.

    Args:
        pipeline (`FaceSwapInpaintPipeline`): A whole checkpoint; it is trained in place.
        identity_network (`str`): Which recogniser the embeddings of the samples are from; where the checkpoint has
            another, sources are embedded again.
    """

    def __init__(self, pipeline: FaceSwapInpaintPipeline, identity_network: str):
        super().__init__()
        self.unet, self.conditioner = pipeline.unet, pipeline.conditioner
        self.pipeline = pipeline
        self.prepared_embeds = pipeline.conditioner.config["identity_network"] == identity_network
        self.alphas_cumprod = pipeline.scheduler.alphas_cumprod
        self.prediction_type = pipeline.scheduler.config["prediction_type"]

    @torch.no_grad()
    def encode_targets(self, pixels: torch.Tensor) -> torch.Tensor:
        """Scaled latents (B, C, h, w): the mode of the posterior."""
        return encode(self.pipeline.vae, pixels)

    @torch.no_grad()
    def encode_masked(self, batch: SwapBatch, generators: list[torch.Generator]) -> torch.Tensor:
        """Scaled latents of the targets without their faces, as the pipeline makes them."""
        masked = fill_hidden(batch.pixels, batch.mask, *self.hidden_fill(batch))
        return self.pipeline.encode_vae_image(masked, generators)

    def hidden_fill(self, batch: SwapBatch) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Content of the targets' hidden part, and the mask of that content, see `fill_hidden`.

        Raises:
            ValueError: If the checkpoint shows references, and the samples have none.
        """
        if self.pipeline.config["hidden_fill"] != "reference":
            drawing = self.pipeline.draw(batch.landmarks, *batch.pixels.shape[-2:])
            return (None if drawing is None else drawing.to(batch.pixels.device)), None
        if batch.reference is None:
            raise ValueError(
                "hidden_fill is 'reference', but the samples carry no references: train on samples that do, or with "
                "--hidden_fill landmarks"
            )
        return batch.reference, batch.reference_mask

    @torch.no_grad()
    def source_embeds(self, batch: SwapBatch) -> torch.Tensor:
        """Identity of the sources, (B, D)."""
        if self.prepared_embeds:
            return batch.identity_embeds
        return self.embed_identity(batch.source_pixels, batch.source_mask)

    def embed_identity(self, pixels: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Embeds crops (B, 3, S, S) in [-1, 1] as `FaceSwapInpaintPipeline.encode_identity` does; differentiable."""
        config = self.pipeline.config
        size = config["identity_size"] or config["crop_size"]
        if config["mask_identity"]:
            pixels = preprocess_identity_image(pixels, size, self.pipeline.feature_extractor.image_mean, mask)
        recognizer = self.conditioner.identity_encoder
        return recognizer(recognizer.prepare(resize(pixels, size, size)))

    def clip_embeds(self, pixels: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Image features of crops (B, 3, S, S) in [-1, 1], behind a mask if any; differentiable."""
        encoder, extractor = self.pipeline.image_encoder, self.pipeline.feature_extractor
        statistics = extractor.image_mean, extractor.image_std
        return encoder(preprocess_encoder_image(pixels, encoder.config.image_size, *statistics, mask)).image_embeds

    @torch.no_grad()
    def conditions(self, batch: SwapBatch) -> dict[str, torch.Tensor]:
        """Inputs of the context, by the names in [`EncodedBatch`]."""
        return {
            "identity_embeds": self.source_embeds(batch),
            "source_clip_embeds": self.clip_embeds(batch.source_pixels, batch.source_mask),
            "target_clip_embeds": self.clip_embeds(batch.pixels),
            "landmarks": batch.landmarks,
        }

    def context(
        self,
        identity_embeds: torch.Tensor,
        source_clip_embeds: torch.Tensor,
        target_clip_embeds: torch.Tensor,
        landmarks: torch.Tensor,
        dropped: torch.Tensor,
    ) -> torch.Tensor:
        """The UNet's context of `conditions`; the unconditional one where `dropped` (B,) is set."""
        landmarks = landmarks * self.pipeline.config["landmark_scale"]
        context = self.conditioner(identity_embeds, source_clip_embeds, target_clip_embeds, landmarks)
        return torch.where(dropped[:, None, None], self.conditioner.unconditional(len(context)), context)

    def predict(
        self,
        noisy: torch.Tensor,
        timesteps: torch.Tensor,
        masked: torch.Tensor,
        mask: torch.Tensor,
        context: torch.Tensor,
        unet: UNet2DConditionModel | None = None,
    ) -> torch.Tensor:
        """The UNet's output (B, C, h, w), or that of another one."""
        unet_input = assemble_unet_input(noisy, masked, mask, self.pipeline.config["channel_order"])
        return (unet or self.unet)(unet_input, timesteps, context).sample.float()
