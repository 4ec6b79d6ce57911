"""The first steps of a swap, from photos to aligned faces, each to be taken by itself."""

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from threading import RLock
from typing import Any

import numpy as np
import torch
from torch.nn.functional import normalize

from faceswap_diffusion.conditioning.geometry import identity_geometry
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.analyzer import Face, FaceAnalyzer
from faceswap_diffusion.faces.tracking import FaceTracker
from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.masks.occlusion import OcclusionNetwork, cover_mask
from faceswap_diffusion.masks.parsing import FaceParser
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from faceswap_diffusion.swapping.agreed import AgreedPeople
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.coherence import FaceState, independent
from faceswap_diffusion.swapping.exposure import brighten, measure_exposure
from faceswap_diffusion.swapping.overlap import own_pixels
from faceswap_diffusion.swapping.recent import Recent, pixels_key
from faceswap_diffusion.swapping.second_look import DroppedFace, PhotoFaces, doubt
from faceswap_diffusion.swapping.source_identity import (
    SourceIdentity,
    fingerprint_picture,
)

RECENT_PHOTOS, RECENT_SOURCES = 4, 2  # kept for a swap that has the same photo or source: at most 80 MB a source


class FaceSteps:
    """The first steps of a swap: faces are found, told apart, and cut out.

    Args:
        pipeline ([`FaceSwapInpaintPipeline`]): With all its components.
        analyzer ([`FaceAnalyzer`]): Finds the faces.
        parser ([`FaceParser`] or [`BiSeNet`]): Tells the parts of a face.
        occlusion ([`OcclusionNetwork`], *optional*): Finds what is in front of a target's face.
    """

    def __init__(
        self,
        pipeline: FaceSwapInpaintPipeline,
        analyzer: FaceAnalyzer,
        parser: FaceParser | BiSeNet,
        occlusion: OcclusionNetwork | None,
    ):
        pipeline.check_complete()
        self.pipeline = pipeline
        self.analyzer = analyzer
        self.parser = parser
        self.occlusion = occlusion
        self.agreed: AgreedPeople | None = None
        # OpenCV's and LiteRT's networks, a pipeline's scheduler and its offloaded parts serve one call at a time.
        self._analyzer_lock, self._pipeline_lock, self._decoder_lock = RLock(), RLock(), RLock()
        self._photos: Recent[PhotoFaces] = Recent(RECENT_PHOTOS)
        self._passed: Recent[None] = Recent(2 * RECENT_PHOTOS)
        self._targets: Recent[torch.Tensor] = Recent(RECENT_PHOTOS)
        self._sources: Recent[tuple[list[SourceIdentity], SourceIdentity]] = Recent(RECENT_SOURCES)

    def find_faces(self, rgb: np.ndarray) -> list[Face]:
        """Finds the faces of a photo (H, W, 3) uint8 RGB, left to right."""
        return list(self.survey(rgb).faces)

    def survey(self, rgb: np.ndarray) -> PhotoFaces:
        """Finds the faces of a photo, cuts them out, and drops what turns out to be none.

        The last photos are remembered: one that comes again is not looked at again.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
        """
        return self._photos.get(pixels_key(rgb), lambda: self._survey(rgb))

    def _survey(self, rgb: np.ndarray) -> PhotoFaces:
        with self._analyzer_lock:
            detected = self.analyzer.analyze(rgb)
        still = independent()
        looks = [self._look(rgb, face, still) for face in detected]
        doubts = [doubt(look) for look in looks]
        faces = [face for face, reason in zip(detected, doubts, strict=True) if reason is None]
        dropped = [DroppedFace(face, reason) for face, reason in zip(detected, doubts, strict=True) if reason]
        kept = [look for look, reason in zip(looks, doubts, strict=True) if reason is None]
        aligned = [self._finish(look, face, faces, still) for look, face in zip(kept, faces, strict=True)]
        return PhotoFaces(faces, aligned, dropped)

    def new_tracker(self, **settings: Any) -> FaceTracker:
        """A tracker for the frames of one video, which tells people apart as the checkpoint's recogniser does.

        Args:
            settings: Passed to [`FaceTracker`].
        """
        known = {} if self.same_person is None else {"embed": self.embed, "same_person": self.same_person}
        return FaceTracker(self.analyzer, **known, accept=self._is_face, **settings)

    def _is_face(self, rgb: np.ndarray, face: Face) -> bool:
        return doubt(self._look(rgb, face, independent())) is None

    def align(
        self, rgb: np.ndarray, face: Face, faces: Sequence[Face] = (), state: FaceState | None = None
    ) -> AlignedFace:
        """Cuts a face out of a photo, shows it in plain light, parses it, and finds what is in front of it.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
            face ([`Face`]): The one to cut out.
            faces (`Sequence[Face]`): All faces of the photo, as far as they are to be told from this one.
            state ([`FaceState`], *optional*): Of the face's track, if the photo is a frame of a video.
        """
        state = state or independent()
        return self._finish(self._look(rgb, state.steady(face), state), face, faces, state)

    def _look(self, rgb: np.ndarray, face: Face, state: FaceState) -> AlignedFace:
        """Cuts a face out and parses it."""
        size = self.pipeline.config["crop_size"]
        matrix = ffhq_matrix(face.landmarks68, size)
        landmarks = face.landmarks if len(face.landmarks) == 478 else face.landmarks68
        landmarks, landmarks68 = (transform_points(points, matrix) for points in (landmarks, face.landmarks68))
        pixels = crop(rgb, matrix, size)
        exposure = measure_exposure(pixels, landmarks)
        black, gain = state.tone("black", exposure.black, 64.0), state.tone("gain", exposure.gain, 1.0)
        exposure = replace(exposure, black=black, gain=gain)
        pixels = brighten(pixels, exposure)
        return AlignedFace(
            pixels=pixels,
            matrix=matrix,
            labels=self.parser.parse(pixels),
            label_names=self.parser.label_names,
            landmarks=landmarks,
            landmarks68=landmarks68,
            geometry=self.own_geometry(landmarks68, face.head_pose, face.blendshapes),
            depth=None if face.depth is None else face.depth * np.sqrt(abs(np.linalg.det(matrix[:, :2]))),
            score=face.score,
            exposure=exposure,
        )

    def _finish(self, look: AlignedFace, face: Face, faces: Sequence[Face], state: FaceState) -> AlignedFace:
        """Adds what is in front of a face, and which pixels other faces have."""
        others = [other for other in faces if other is not face]
        own = own_pixels(face, others, look.matrix, len(look.pixels))
        if self.occlusion is None:
            return replace(look, own=own)
        covered = state.mask("covered", cover_mask(self.occlusion.find(look.pixels, look.landmarks)))
        return replace(look, own=own, covered=covered)

    def own_geometry(
        self, landmarks68: np.ndarray, head_pose: np.ndarray | None, blendshapes: np.ndarray | None
    ) -> torch.Tensor | None:
        """What of a face's landmarks is the person's own, and not their pose and expression.

        Args:
            landmarks68 (`np.ndarray`): (68, 2), x, y in crop pixels.
            head_pose (`np.ndarray`, *optional*): (3,), yaw, pitch and roll in degrees.
            blendshapes (`np.ndarray`, *optional*): (52,) in [0, 1].

        Returns:
            `torch.Tensor`, *optional*: (1, 68, 2), see [`AlignedFace`].
        """
        if not self.pipeline.config["geometry_share"] or head_pose is None or blendshapes is None:
            return None
        landmarks, pose, expression = (
            torch.from_numpy(np.asarray(value, np.float32))[None] for value in (landmarks68, head_pose, blendshapes)
        )
        coefficients = self.pipeline.conditioner.geometry_coefficients.float().cpu()
        return identity_geometry(landmarks, pose, expression, coefficients)

    @torch.no_grad()
    def embed(self, rgb: np.ndarray, face: Face) -> np.ndarray:
        """What the recogniser makes of a face.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
            face ([`Face`]): Of this picture.

        Returns:
            `np.ndarray`: (D,), of unit length.
        """
        size = self.pipeline.config["crop_size"]
        pixels = crop(rgb, ffhq_matrix(face.landmarks68, size), size)
        with self._pipeline_lock:
            return self.pipeline.encode_identity(pixels, np.ones((size, size), np.float32))[0].float().cpu().numpy()

    @property
    def same_person(self) -> float | None:
        """Least cosine of two faces of one person for the checkpoint's recogniser; `None` if it is not known.

        Where it is not known, `target_face` as a photo means the face that is most like it, however little, and there
        are no warnings of photos that show somebody else.
        """
        return self.pipeline.conditioner.identity_encoder.same_person

    @cached_property
    def fingerprint(self) -> torch.Tensor:
        """What recogniser and image encoder make of a test picture, (D + C,): other networks, another fingerprint."""
        picture = fingerprint_picture(self.pipeline.config["crop_size"])
        with torch.no_grad(), self._pipeline_lock:
            embeds = self.pipeline.encode_identity(picture, np.ones(picture.shape[:2], np.float32))
            clip_embeds = self.pipeline.encode_clip(picture)
        return torch.cat([normalize(part.float()).cpu() for part in (embeds, clip_embeds)], dim=1)[0]
