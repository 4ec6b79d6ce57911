"""The stages of a swap of all faces of a picture: they are prepared, repainted, and pasted.

Between them a picture may wait, so that those of a video are repainted in batches, and pasted in another thread.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging

from faceswap_diffusion.faces.alignment import resized_matrix
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.provenance.watermark import SIZE, lay_mark, payload_of
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.coherence import FaceState
from faceswap_diffusion.swapping.compositing import ShownReference
from faceswap_diffusion.swapping.masked_image import MaskedImage
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.painted import PaintedMasks
from faceswap_diffusion.swapping.pasting import Guide, paste_faces
from faceswap_diffusion.swapping.request import NothingToRepaintError
from faceswap_diffusion.swapping.result import InFront, Stopwatch, SwappedFaces
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.steps import SwapSteps

logger = logging.get_logger(__name__)


@dataclass(frozen=True, eq=False)
class PreparedSwap:
    """A picture whose faces are ready to be repainted.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        aligned (`Sequence[AlignedFace]`): Its faces.
        identities (`Sequence[SourceIdentity]`): For each of them who it becomes.
        regions (`list[np.ndarray]`): For each (S, S) float in [0, 1], what to repaint if nothing is in front of it.
        free (`list[np.ndarray]`): For each (S, S) float in [0, 1], where nothing is in front of it.
        masks (`list[np.ndarray]`): For each (S, S) float in [0, 1], the product of both.
        masked (`list[MaskedImage | None]`): For each what the pipeline is shown.
        options ([`SwapOptions`]): How.
        painted ([`PaintedMasks`]): Masks for the picture.
        settings (`dict[str, Any]`): What the pipeline is told.
        seconds (`dict[str, float]`): Time taken by the stages so far.
    """

    rgb: np.ndarray
    aligned: Sequence[AlignedFace]
    identities: Sequence[SourceIdentity]
    regions: list[np.ndarray]
    free: list[np.ndarray]
    masks: list[np.ndarray]
    masked: list[MaskedImage | None]
    options: SwapOptions
    painted: PaintedMasks
    settings: dict[str, Any]
    seconds: dict[str, float]


class SwapStages(SwapSteps):
    """The stages of a swap of a picture's faces, see [`FaceSteps`]."""

    name: str  # of the checkpoint, in metadata and in the invisible mark

    @torch.no_grad()
    def prepare(
        self,
        rgb: np.ndarray,
        aligned: Sequence[AlignedFace],
        identities: Sequence[SourceIdentity],
        options: SwapOptions,
        painted: PaintedMasks,
        names: Sequence[str],
        states: Sequence[FaceState],
    ) -> PreparedSwap:
        """Finds what to repaint of faces, and draws and encodes what the pipeline is shown in its place.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
            aligned (`Sequence[AlignedFace]`): Those of its faces that are swapped.
            identities (`Sequence[SourceIdentity]`): For each of them who it becomes.
            options ([`SwapOptions`]): How.
            painted ([`PaintedMasks`]): Masks for the picture.
            names (`Sequence[str]`): What errors call the faces.
            states (`Sequence[FaceState]`): For each face what is known of the frames before.

        Raises:
            NothingToRepaintError: If a face shows nothing of the region.
        """
        watch = Stopwatch()
        for identity in identities:
            self.check_identity(identity, options.region)
        regions = [
            state.mask("region", painted.wanted(face, options, identity.bearded))
            for face, identity, state in zip(aligned, identities, states, strict=True)
        ]
        free = [painted.free(face, options) for face in aligned]
        masks = [region * bare for region, bare in zip(regions, free, strict=True)]
        _check_masks(masks, names)
        settings = self._settings(options)
        references = [self.draw_reference(*parts) for parts in zip(aligned, identities, states, strict=True)]
        watch.lap("reference")
        masked = self.masked_images(aligned, masks, references)
        watch.lap("diffuse")
        return PreparedSwap(
            rgb, aligned, identities, regions, free, masks, masked, options, painted, settings, watch.seconds
        )

    def paint(self, prepared: Sequence[PreparedSwap]) -> list[list[torch.Tensor]]:
        """Repaints the faces of several pictures with the same options, in batches.

        Args:
            prepared (`Sequence[PreparedSwap]`): At least one, from `prepare`.

        Returns:
            `list[list[torch.Tensor]]`: Of each picture for each face what `decode_crops` takes.
        """
        first = prepared[0]
        latents = self.paint_latents(
            [face for picture in prepared for face in picture.aligned],
            [mask for picture in prepared for mask in picture.masks],
            [identity for picture in prepared for identity in picture.identities],
            [masked for picture in prepared for masked in picture.masked],
            first.options.seed,
            **first.settings,
        )
        left = iter(latents)
        return [[next(left) for _ in picture.aligned] for picture in prepared]

    @torch.no_grad()
    def paste(self, prepared: PreparedSwap, crops: Sequence[np.ndarray], states: Sequence[FaceState]) -> SwappedFaces:
        """Puts the repainted crops of a picture back into it.

        Args:
            prepared ([`PreparedSwap`]): From `prepare`.
            crops (`Sequence[np.ndarray]`): For each face (S, S, 3) uint8 RGB, from `repaint` or `decode_crops`.
            states (`Sequence[FaceState]`): For each face what is known of the frames before. What it remembers for
                pasting has nothing to do with what it remembers for preparing.
        """
        watch, aligned, options = Stopwatch(), prepared.aligned, prepared.options
        shown = self.shown_references(aligned, prepared.masked, prepared.identities)
        guides = [
            self.identity_guide(*parts, options.identity_guidance_scale)
            for parts in zip(aligned, shown, prepared.identities, strict=True)
        ]
        pasted, changed = paste_faces(
            prepared.rgb,
            aligned,
            prepared.regions,
            prepared.free,
            crops,
            shown,
            options.color_match,
            options.skin_texture,
            states,
            guides,
        )
        if prepared.painted.bounds_photo:
            allowed = prepared.painted.allowed(pasted.shape)
            pasted, changed = np.where(allowed[..., None], pasted, prepared.rgb), changed * allowed
        if options.watermark:
            pasted = self._marked(pasted, changed, aligned)
        watch.lap("paste")
        settings = dict(prepared.settings)
        if settings["strength"] is None:
            drawn = any(image is not None for image in prepared.masked)
            settings["strength"] = self.pipeline.usual_strength(settings["num_inference_steps"]) if drawn else 1.0
        covered = [
            float(1 - left.sum() / whole.sum()) for left, whole in zip(prepared.masks, prepared.regions, strict=True)
        ]
        in_front = None if options.occlusion == "off" else found_in_front(aligned, pasted.shape, options.region)
        seconds = {**prepared.seconds, **watch.seconds}
        return SwappedFaces(pasted, changed, covered, _shares_shown(prepared.identities), settings, seconds, in_front)

    def identity_guide(
        self, face: AlignedFace, shown: ShownReference | None, identity: SourceIdentity, scale: float | None
    ) -> Guide | None:
        """What brings a crop closer to a source, see `guide_identity`; `None` if no reference is shown."""
        scale = 1.0 if scale is None else scale
        if shown is None or not scale:
            return None
        return partial(self.guide_identity, face=face, shown=shown, identity=identity, scale=scale)

    def _marked(self, rgb: np.ndarray, changed: np.ndarray, faces: Sequence[AlignedFace]) -> np.ndarray:
        """A picture with the invisible mark in its new faces; the payload stands for the checkpoint."""
        for face in faces:
            matrix = resized_matrix(face.matrix, len(face.pixels), SIZE)
            rgb = lay_mark(rgb, changed, matrix, payload_of(self.name))
        return rgb

    def _settings(self, options: SwapOptions) -> dict[str, Any]:
        """What the pipeline is told, with the checkpoint's defaults for what the options leave open."""
        config, steps, guidance = self.pipeline.config, options.num_inference_steps, options.guidance_scale
        steps = config["default_num_inference_steps"] if steps is None else steps
        _check_steps(self.pipeline, steps)
        guidance = config["default_guidance_scale"] if guidance is None else guidance
        return {"num_inference_steps": steps, "guidance_scale": guidance, "strength": options.strength}


def found_in_front(faces: Sequence[AlignedFace], shape: tuple[int, ...], region: str) -> InFront | None:
    """What is in front of faces of a photo of a shape; `None` if nobody looked."""
    seen = [(face.hidden(region), face.matrix) for face in faces if face.covered is not None]
    return InFront(seen, (shape[1], shape[0])) if seen else None


def _shares_shown(identities: Sequence[SourceIdentity]) -> list[float] | None:
    """Of each source the share of the face that photos show; `None` if references play no part."""
    textures = [identity.texture for identity in identities if identity.texture is not None]
    return [round(texture.shown, 3) for texture in textures] if len(textures) == len(identities) else None


def _check_steps(pipeline: FaceSwapInpaintPipeline, num_inference_steps: int) -> None:
    """A few-step student takes no more steps than its teacher's way has, and is best with those it is made for."""
    limit, usual = (
        pipeline.scheduler.config.get("original_inference_steps"),
        pipeline.config["default_num_inference_steps"],
    )
    if limit is None:
        return
    if usual < num_inference_steps <= limit:
        logger.warning(
            f"{num_inference_steps} denoising steps are more than the {usual} that this few-step version is made for: "
            "lower num_inference_steps, or take the checkpoint itself"
        )
    if num_inference_steps > limit:
        raise ValueError(
            f"got {num_inference_steps} denoising steps, and a few-step version takes {limit} at most: lower "
            "num_inference_steps, or take the checkpoint itself"
        )


def _check_masks(masks: Sequence[np.ndarray], names: Sequence[str]) -> None:
    for name, mask in zip(names, masks, strict=True):
        if not mask.any():
            raise NothingToRepaintError(f"nothing to repaint on {name}: choose another region, mask or face")
