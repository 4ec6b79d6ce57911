"""Who may be swapped: people who agreed, and nobody whom the safety checker refuses."""

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path

import numpy as np
import torch

from faceswap_diffusion.conditioning.identity import SFace, sface_matrix
from faceswap_diffusion.faces.alignment import crop
from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.photos.loading import PhotoLike, load_photo
from faceswap_diffusion.safety.checker import SafetyChecker
from faceswap_diffusion.safety.refusal import RefusedError
from faceswap_diffusion.swapping.agreed import AgreedPeople
from faceswap_diffusion.swapping.face_steps import FaceSteps
from faceswap_diffusion.swapping.recent import pixels_key
from faceswap_diffusion.swapping.source_identity import SourceIdentity

NOT_AGREED = "refused: {} is nobody of those who agreed (--only); choose another face, or ask them and add them"


class SwapGate(FaceSteps):
    """The step of a swap that may refuse it, see [`FaceSteps`]."""

    def allow_only(self, agreed: AgreedPeople | str | PathLike) -> None:
        """Lets nobody's face be swapped, in neither direction, but those of people who agreed.

        Args:
            agreed ([`AgreedPeople`] or file): The list, or the identity file of one person.

        Raises:
            ValueError: If it cannot be read, or was made with another recogniser.
        """
        agreed = agreed if isinstance(agreed, AgreedPeople) else AgreedPeople.load(agreed, self._known_same_person)
        agreed.check_networks(self.fingerprint)
        self.agreed = agreed

    def list_agreed(self, photos: Sequence[PhotoLike], which: str | int | np.integer = "largest") -> AgreedPeople:
        """Makes a list of who agreed, of photos of one person each.

        Args:
            photos (`Sequence[PhotoLike]`): As `swap` takes them.
            which (`str | int`): The face in each: "largest", or an index.

        Raises:
            NoFaceFoundError: If a photo has no such face.
            ValueError: If nobody knows when two faces are one person's to this checkpoint's recogniser.
        """
        loaded = [load_photo(photo, "photo") for photo in photos]
        faces = [select_face(self.find_faces(photo.rgb), which, where=photo.name) for photo in loaded]
        embeds = [torch.from_numpy(self.embed(photo.rgb, face)) for photo, face in zip(loaded, faces, strict=True)]
        names = [Path(photo.name).stem for photo in loaded]
        return AgreedPeople(names, torch.stack(embeds), self.fingerprint, self._known_same_person)

    @property
    def _known_same_person(self) -> float:
        if self.same_person is None:
            raise ValueError("this checkpoint's recogniser cannot tell people apart: leave the list of who agreed out")
        return self.same_person

    def has_agreed(self, rgb: np.ndarray, face: Face) -> bool:
        """Whether a face of a picture (H, W, 3) uint8 RGB may be swapped, see `allow_only`."""
        return self.agreed is None or torch.from_numpy(self.embed(rgb, face)) in self.agreed

    def check_agreed(self, rgb: np.ndarray, face: Face, name: str) -> None:
        """Refuses a face, called `name`, of somebody who is not among those who agreed.

        Raises:
            RefusedError: If it is such.
        """
        if not self.has_agreed(rgb, face):
            raise RefusedError(NOT_AGREED.format(name))

    def check_identity_agreed(self, identity: SourceIdentity) -> None:
        """Refuses a source that is not among those who agreed.

        Raises:
            RefusedError: If it is such.
        """
        if self.agreed is not None and identity.identity_embeds[0] not in self.agreed:
            raise RefusedError(NOT_AGREED.format(identity.name))

    def check_safety(self, rgb: np.ndarray, faces: Sequence[Face], name: str) -> None:
        """Has the safety checker look at a picture and at faces of it, if there is one.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
            faces (`Sequence[Face]`): Those that are swapped or taken from it.
            name (`str`): What to call the picture.

        Raises:
            RefusedError: If the picture seems to be explicit, or a face to be a minor's.
        """
        checker = self.safety_checker
        if checker is None:
            return

        def check() -> None:
            self.check_explicit(rgb, name)
            for face in faces:
                checker.check_age(self.apparent_age(rgb, face), f"a face of {name}")

        self._passed.get((id(checker), pixels_key(rgb), *[face.keypoints.tobytes() for face in faces]), check)

    def check_explicit(self, rgb: np.ndarray, name: str) -> None:
        """Has the safety checker look at a picture (H, W, 3) uint8 RGB, called `name`; see `check_safety`."""
        with self._pipeline_lock:
            self.pipeline.safety_checker.check_picture(rgb, name)

    @property
    def safety_checker(self) -> SafetyChecker | None:
        """The pipeline's, if it has one."""
        return self.pipeline.safety_checker

    @torch.no_grad()
    def apparent_age(self, rgb: np.ndarray, face: Face) -> float:
        """How old a face of a picture (H, W, 3) uint8 RGB looks to the safety checker, in years."""
        size = self.pipeline.config["crop_size"]
        pixels = crop(rgb, sface_matrix(face.keypoints, size), size)
        with self._pipeline_lock:
            if isinstance(self.pipeline.conditioner.identity_encoder, SFace):
                embeds = self.pipeline.encode_identity(pixels, np.ones((size, size), np.float32))
            else:
                embeds = self._sface(self._sface.prepare(self.pipeline.preprocess(pixels, size, size)))
            return self.pipeline.safety_checker.age(rgb, face.keypoints, embeds[0].float().cpu().numpy())

    @cached_property
    def _sface(self) -> SFace:
        """For checkpoints with another recogniser."""
        return SFace()
