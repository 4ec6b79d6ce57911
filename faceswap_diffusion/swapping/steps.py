"""The steps of a swap, from aligned faces to repainted crops, each to be taken by itself."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers.utils import logging
from torch.nn.functional import cosine_similarity

from faceswap_diffusion.conditioning.geometry import exchange_geometry, move_mesh
from faceswap_diffusion.conditioning.identity_guidance import guide_identity
from faceswap_diffusion.conditioning.reference import (
    Reference,
    draw_reference,
    lay_over,
    render_texture,
    ring_reach,
)
from faceswap_diffusion.masks.outlines import above_brows, around_eyes
from faceswap_diffusion.masks.regions import (
    REGIONS,
    ROOM,
    feather,
    part_mask,
    region_labels,
    region_mask,
    region_names,
    repaint_mask,
)
from faceswap_diffusion.photos.loading import Photo, PhotoLike, load_photo
from faceswap_diffusion.pipelines.faceswap_inpaint import is_hooked
from faceswap_diffusion.pipelines.latents import rebuild
from faceswap_diffusion.swapping.aligned_face import AlignedFace, native_size
from faceswap_diffusion.swapping.coherence import FaceState, independent
from faceswap_diffusion.swapping.compositing import ShownReference, match_border_tone
from faceswap_diffusion.swapping.gate import SwapGate
from faceswap_diffusion.swapping.masked_image import MaskedImage, encode_masked_image, prepare_start
from faceswap_diffusion.swapping.pasting import FEATHER
from faceswap_diffusion.swapping.recent import pixels_key
from faceswap_diffusion.swapping.second_look import select_aligned
from faceswap_diffusion.swapping.source_identity import (
    ANEW,
    SourceIdentity,
    average_identities,
    hides_eyes,
    shows_beard,
    source_head,
    take_texture,
)

logger = logging.get_logger(__name__)

FACES_PER_BATCH = 4  # bounds the memory that a group photo takes
LEAST_SHOWN = 1 / 3  # share of a face below which a warning says that the source shows little of it
FOREHEAD_EDGE = 0.02  # how softly a drawing passes into a target's own forehead, as a share of the crop's side
FOREHEAD_SIGMA = 0.05  # for `match_border_tone`: brows and hair are close by, and are no tone


class SwapSteps(SwapGate):
    """The steps of a swap from encoded sources to repainted crops, see [`FaceSteps`]."""

    @torch.no_grad()
    def encode_source(
        self, photos: Sequence[PhotoLike], which: str | int | np.integer = "largest", region: str = "face"
    ) -> SourceIdentity:
        """Encodes who to become: the mean over photos of one person.

        It warns of photos that seem to show somebody else, and if all of them together show little of the face.

        Args:
            photos (`Sequence[PhotoLike]`): One or more, as `swap` takes them.
            which (`str | int`): The face in each: "largest", or an index.
            region (`str`): See `encode_face`.

        Raises:
            NoFaceFoundError: If a photo has no such face.
            RefusedError: If the safety checker refuses a photo.
        """
        return replace(self._encode_photos(photos, which, region), fingerprint=self.fingerprint)

    def _encode_photos(
        self, photos: Sequence[PhotoLike], which: str | int | np.integer, region: str
    ) -> SourceIdentity:
        """Does what `encode_source` says, for an identity that this swapper alone will use."""
        loaded = [load_photo(photo, "source") for photo in photos]
        names = [photo.name for photo in loaded]
        key = (*[pixels_key(photo.rgb) for photo in loaded], which, region)
        looks, identity = self._sources.get(key, lambda: self._encode_loaded(loaded, which, region))
        if self.same_person is not None:
            _warn_of_others(names, looks, self.same_person)
        identity = replace(identity, name=", ".join(names))
        _warn_of_little_shown(names, identity)
        return identity

    def _source_face(self, photo: Photo, which: str | int | np.integer) -> AlignedFace:
        """The face of a source's photo that is meant, if the safety checker lets it pass."""
        found = self.survey(photo.rgb)
        chosen = select_aligned(found, which, photo.name)
        face = found.faces[found.aligned.index(chosen)]
        self.check_agreed(photo.rgb, face, f"the face of {photo.name}")
        self.check_safety(photo.rgb, [face], photo.name)
        return chosen

    def _encode_loaded(
        self, photos: Sequence[Photo], which: str | int | np.integer, region: str
    ) -> tuple[list[SourceIdentity], SourceIdentity]:
        """What each photo shows of a source, without its texture and photo, and what all show together."""
        found = [self._source_face(photo, which) for photo in photos]
        looks = [self.encode_face(photo.rgb, face, region) for photo, face in zip(photos, found, strict=True)]
        return [replace(look, texture=None, head=None) for look in looks], average_identities(looks)

    def check_identity(self, identity: SourceIdentity, region: str) -> None:
        """Checks that an identity was encoded for these networks and such a region.

        Args:
            identity ([`SourceIdentity`]): From `encode_source`, of this or another process.
            region (`str`): What is to be repainted.

        Raises:
            RefusedError: If it is of nobody who agreed, see `allow_only`.
            ValueError: If it was not.
        """
        if identity.fingerprint is not None:
            identity.check_networks(self.fingerprint)
        self.check_identity_agreed(identity)
        if self._needs(identity.region) != self._needs(region):
            raise ValueError(
                f"{identity.name} was encoded for region {identity.region!r} and lacks what {region!r} shows of a "
                f"source: {ANEW} --region {region}"
            )

    def _needs(self, region: str) -> tuple[str, float]:
        """What decides what of a source is encoded for a region."""
        return self._shown_region(region), ring_reach(region)

    def _shown_region(self, region: str) -> str:
        """What is shown of a source: the checkpoint's `shown_regions`, or where they do not hold it, the region."""
        shown = self.pipeline.config["shown_regions"]
        return shown if region_labels(region) <= REGIONS[shown] else "+".join(region_names(region))

    @property
    def shows_references(self) -> bool:
        """Whether the checkpoint is shown the source's face, drawn on the target's mesh."""
        return self.pipeline.config["hidden_fill"] == "reference"

    def draw_reference(
        self, face: AlignedFace, identity: SourceIdentity, state: FaceState | None = None
    ) -> Reference | None:
        """Draws a source's face on that of a target.

        Args:
            face ([`AlignedFace`]): Of the target.
            identity ([`SourceIdentity`]): Who it becomes.
            state ([`FaceState`], *optional*): Of the face's track, if it is a video's.

        Returns:
            [`Reference`], *optional*: Of the crop's size; `None` if the checkpoint shows none, or one of the two faces
            has no mesh.
        """
        if identity.texture is None or face.depth is None:
            return None
        state = state or independent()
        skin = state.mask("shown_skin", region_mask(face.labels, "skin", face.label_names) * face.free())
        mesh = self.exchange_mesh(face, identity)
        drawn = draw_reference(identity.texture, face.pixels, mesh, face.depth, skin, identity.head, tone=state.tone)
        size = len(face.pixels)
        own = feather(kept_of_target(face, identity), FEATHER * size) * face.free()
        pixels = match_border_tone(
            drawn.pixels, face.pixels, drawn.coverage, own * skin, state.tone, "forehead", FOREHEAD_SIGMA
        )
        # A drawing ends in some of the colour of the source's hair, and foreheads differ in shape and shine.
        coverage = own * feather(drawn.coverage, FOREHEAD_EDGE * size) + (1 - own) * drawn.coverage
        return lay_over(Reference(face.pixels.astype(np.float32), own), Reference(np.clip(pixels, 0, 255), coverage))

    @torch.no_grad()
    def encode_face(self, rgb: np.ndarray, face: AlignedFace, region: str = "face") -> SourceIdentity:
        """Encodes what one photo shows of who to become.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8, the photo.
            face ([`AlignedFace`]): Cut out of it.
            region (`str`): What is to be repainted. It is also what is shown of the source instead of the checkpoint's
                `shown_regions`, where they do not hold it: hair, for one.
        """
        mask = repaint_mask(face.labels, face.landmarks, self._shown_region(region), face.label_names)
        with self._pipeline_lock:
            identity_embeds = self.pipeline.encode_identity(face.pixels, mask)
            clip_embeds = self.pipeline.encode_clip(face.pixels, mask)
        look = SourceIdentity(identity_embeds, clip_embeds, face.geometry, region=region)
        if not self.shows_references or face.depth is None:
            return look
        texture, head = take_texture(rgb, face), source_head(rgb, face, region)
        return replace(look, texture=texture, head=head, eyes_hidden=hides_eyes(face), bearded=shows_beard(face))

    @property
    def _decoding(self) -> AbstractContextManager[Any]:
        """The lock for decoding: while the pipeline repaints as well, unless offloading takes networks by turns."""
        return self._pipeline_lock if is_hooked(self.pipeline.vae) else self._decoder_lock

    @torch.no_grad()
    def masked_images(
        self, faces: Sequence[AlignedFace], masks: Sequence[np.ndarray], references: Sequence[Reference | None]
    ) -> list[MaskedImage | None]:
        """Encodes each face's crop with the reference in place of the face; `None` for those without a reference.

        Args:
            faces (`Sequence[AlignedFace]`): Of the target.
            masks (`Sequence[np.ndarray]`): For each face (S, S) float in [0, 1], 1 = repaint.
            references (`Sequence[Reference | None]`): For each face what its hidden part shows, see `draw_reference`.
        """
        with self._pipeline_lock:
            return [
                None if reference is None else encode_masked_image(self.pipeline, face, mask, reference)
                for face, mask, reference in zip(faces, masks, references, strict=True)
            ]

    @torch.no_grad()
    def repaint(
        self,
        faces: Sequence[AlignedFace],
        masks: Sequence[np.ndarray],
        identities: Sequence[SourceIdentity],
        masked: Sequence[MaskedImage | None],
        seed: int,
        **settings: Any,
    ) -> list[np.ndarray]:
        """Runs the pipeline on aligned faces, in batches, with a generator for each face.

        Args:
            faces (`Sequence[AlignedFace]`): Of the target.
            masks (`Sequence[np.ndarray]`): For each face (S, S) float in [0, 1], 1 = repaint.
            identities (`Sequence[SourceIdentity]`): For each face who it becomes.
            masked (`Sequence[MaskedImage | None]`): From `masked_images`.
            seed (`int`): Of each generator.
            settings: Passed to the pipeline.

        Returns:
            `list[np.ndarray]`: For each face (S, S, 3) uint8 RGB.
        """
        return self.decode_crops(self.paint_latents(faces, masks, identities, masked, seed, **settings))

    @torch.no_grad()
    def paint_latents(
        self,
        faces: Sequence[AlignedFace],
        masks: Sequence[np.ndarray],
        identities: Sequence[SourceIdentity],
        masked: Sequence[MaskedImage | None],
        seed: int,
        **settings: Any,
    ) -> list[torch.Tensor]:
        """Does what `repaint` does, up to the latents (1, C, h, w) of each crop."""
        painted = []
        for batch in _batches(masked):
            generator = [torch.Generator().manual_seed(int(seed)) for _ in faces[batch]]
            with self._pipeline_lock:
                latents, _ = self.pipeline(
                    mask_image=list(masks[batch]),
                    landmarks=torch.cat([*map(self.exchange_shape, faces[batch], identities[batch])]),
                    identity_embeds=torch.cat([identity.identity_embeds for identity in identities[batch]]),
                    source_clip_embeds=torch.cat([identity.source_clip_embeds for identity in identities[batch]]),
                    target_clip_embeds=torch.cat([self._encode_target(face.pixels) for face in faces[batch]]),
                    generator=generator,
                    output_type="latent",  # the whole picture is checked, and not each crop
                    return_dict=False,
                    **self._target_inputs(faces[batch], masked[batch], generator),
                    **settings,
                )
            painted += latents.split(1)
        return painted

    @torch.no_grad()
    def decode_crops(self, latents: Sequence[torch.Tensor]) -> list[np.ndarray]:
        """Decodes what `paint_latents` returned to crops (S, S, 3) uint8 RGB."""
        with self._decoding:
            # One at a time: on a CPU an autoencoder takes longer for a batch, which does not fit into its caches.
            decoded = torch.cat([self.pipeline.decode_latents(one) for one in latents])
            self.pipeline.maybe_free_model_hooks()
        images = self.pipeline.image_processor.postprocess(decoded, output_type="np")
        return list(np.round(np.asarray(images) * 255).astype(np.uint8))

    def _target_inputs(
        self, faces: Sequence[AlignedFace], masked: Sequence[MaskedImage | None], generator: list[torch.Generator]
    ) -> dict[str, Any]:
        """The pipeline's arguments for a batch of targets, of which all have a masked image, or none."""
        images = [image for image in masked if image is not None]
        if not images:
            return {"image": [face.pixels for face in faces]}
        coverage = [image.reference.coverage for image in images]
        return {"reference_mask_image": coverage, **prepare_start(self.pipeline, images, generator)}

    @torch.no_grad()
    def _encode_target(self, pixels: np.ndarray) -> torch.Tensor:
        """The image encoder's view of a target, (1, C); that of the last targets is remembered."""
        return self._targets.get(pixels_key(pixels), lambda: self.pipeline.encode_clip(pixels))

    def shown_references(
        self,
        faces: Sequence[AlignedFace],
        masked: Sequence[MaskedImage | None],
        identities: Sequence[SourceIdentity],
    ) -> list[ShownReference | None]:
        """What `shown_reference` says of each face; `None` for those without a reference."""
        return [
            None if image is None else self.shown_reference(face, image, identity)
            for face, image, identity in zip(faces, masked, identities, strict=True)
        ]

    @torch.no_grad()
    def shown_reference(self, face: AlignedFace, masked: MaskedImage, identity: SourceIdentity) -> ShownReference:
        """What the pipeline was shown in place of a face, for the fine detail that its crops cannot hold.

        Args:
            face ([`AlignedFace`]): Of the target.
            masked ([`MaskedImage`]): From `masked_images`.
            identity ([`SourceIdentity`]): Whose face it shows.
        """
        size = len(face.pixels)
        with self._decoding:
            decoded = rebuild(self.pipeline.vae, masked.encoded)
        rebuilt = (decoded[0].float().cpu().permute(1, 2, 0).numpy() + 1) * 127.5
        finest = native_size(face.matrix, size)
        fine = None
        if finest > size:
            assert identity.texture is not None  # there is a reference
            assert face.depth is not None
            scale = finest / size
            landmarks = (self.exchange_mesh(face, identity) + 0.5) * scale - 0.5
            fine = render_texture(identity.texture, landmarks, face.depth * scale, (finest, finest))
        return ShownReference(masked.pixels, rebuilt, masked.reference.coverage * masked.mask, fine)

    def guide_identity(
        self,
        pixels: np.ndarray,
        mask: np.ndarray,
        face: AlignedFace,
        shown: ShownReference,
        identity: SourceIdentity,
        scale: float,
    ) -> np.ndarray:
        """Brings a repainted crop closer to a source for the checkpoint's recogniser, and away from the target.

        The change is that of the reference, which is the same for any noise, and for any faces that are painted
        together: what rounding does to a crop would become visible.

        Args:
            pixels (`np.ndarray`): (S, S, 3) float32 RGB in [0, 255].
            mask (`np.ndarray`): (S, S) float in [0, 1], what may change.
            face ([`AlignedFace`]): Of the target.
            shown ([`ShownReference`]): What the pipeline was shown in place of the face.
            identity ([`SourceIdentity`]): Who it becomes.
            scale (`float`): In [0, 1], see `identity_guidance.guide_identity`.
        """
        conditioner, device = self.pipeline.conditioner, self.pipeline._execution_device

        def embed(view: torch.Tensor) -> torch.Tensor:
            return conditioner.encode_identity(view.to(device, conditioner.dtype))

        with self._pipeline_lock:
            own = self.pipeline.encode_identity(face.pixels, np.ones(mask.shape, np.float32)).cpu()
            source = identity.identity_embeds.cpu()
            guided = guide_identity(shown.filled, mask, embed, source, own, scale)
        return pixels + (guided - shown.filled)

    def exchange_shape(self, face: AlignedFace, identity: SourceIdentity) -> torch.Tensor:
        """Gives a target's landmarks the facial shape of the source, as far as the checkpoint says.

        Args:
            face ([`AlignedFace`]): Of the target.
            identity ([`SourceIdentity`]): Who it becomes.

        Returns:
            `torch.Tensor`: (1, 68, 2), x, y in crop pixels.
        """
        landmarks = torch.from_numpy(np.asarray(face.landmarks68, np.float32))[None]
        if face.geometry is None or identity.geometry is None:
            return landmarks
        return exchange_geometry(landmarks, face.geometry, identity.geometry, self.pipeline.config["geometry_share"])

    def exchange_mesh(self, face: AlignedFace, identity: SourceIdentity) -> np.ndarray:
        """The mesh of a target, (478, 2) in crop pixels, with the facial shape of the source, see `exchange_shape`."""
        moved = self.exchange_shape(face, identity)[0].numpy() - face.landmarks68
        return move_mesh(face.landmarks, moved)


def kept_of_target(face: AlignedFace, identity: SourceIdentity) -> np.ndarray:
    """What stays the target's own where a source shows nothing, (S, S) float32, 1 inside.

    These are brows that a fringe covers on the source, eyes behind sunglasses, and the forehead above its mesh, unless
    the source's hair is shown.
    """
    size = len(face.pixels)
    if identity.eyes_hidden:
        features = around_eyes(face.landmarks, size)
    else:
        features = part_mask(face.labels, face.landmarks, "brows", face.label_names, room=ROOM["brows"])
    if "hair" in region_labels(identity.region):
        return features
    forehead = region_mask(face.labels, "skin", face.label_names) * above_brows(face.landmarks, size)
    return np.maximum(features, forehead)


def _batches(masked: Sequence[MaskedImage | None]) -> Iterator[slice]:
    """Parts of at most `FACES_PER_BATCH` neighbours, of which all have a masked image, or none."""
    start = 0
    for end in range(1, len(masked) + 1):
        at_end = end == len(masked) or end == start + FACES_PER_BATCH
        if at_end or (masked[end] is None) != (masked[start] is None):
            yield slice(start, end)
            start = end


def _warn_of_others(names: Sequence[str], looks: Sequence[SourceIdentity], same_person: float) -> None:
    """Warns of photos of a source in which somebody else seems to be than in the first, by the recogniser's cosine."""
    first = looks[0].identity_embeds.float()
    for name, look in zip(names[1:], looks[1:], strict=True):
        cosine = cosine_similarity(first, look.identity_embeds.float()).item()
        if cosine < same_person:
            logger.warning(
                f"{name} does not look like the person in {names[0]} (cosine {cosine:.2f}, below {same_person}): the "
                "photos of a source are averaged; leave out those of others"
            )


def _warn_of_little_shown(names: Sequence[str], identity: SourceIdentity) -> None:
    """Warns if the photos of a source leave most of the face to mirroring and to the model."""
    if identity.texture is not None and identity.texture.shown < LEAST_SHOWN:
        logger.warning(
            f"{', '.join(names)} shows only {identity.texture.shown:.0%} of the face, the rest is mirrored or made "
            "up: add photos from other sides"
        )
