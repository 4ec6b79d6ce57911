"""Swaps the faces of one frame after another: whose they are is decided along their tracks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.faces.tracking import TrackedFace
from faceswap_diffusion.photos.loading import Photo, load_photo
from faceswap_diffusion.swapping.coherence import CoherenceOptions, TemporalCoherence
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.request import TargetFace
from faceswap_diffusion.swapping.result import SwappedFaces
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.stages import PreparedSwap
from faceswap_diffusion.swapping.swapper import FaceSwapper

State = dict[str, np.ndarray]
LOOK_EVERY = 10  # frames between two looks at how much a track is like the person who is sought
SAFETY_INTERVAL = 1.0  # seconds between two frames at which the safety checker looks
MARGIN = 0.1  # of the cosine, by which another track has to be more like them than the one that was taken for them


@dataclass(frozen=True, eq=False)
class ChosenFaces:
    """The faces of a frame.

    Args:
        swapped (`list[TrackedFace]`): Those to be swapped.
        people (`list[int]`): For each of them the index of the source that it becomes.
        others (`list[TrackedFace]`): Those that stay as they are.
    """

    swapped: list[TrackedFace]
    people: list[int]
    others: list[TrackedFace]


class FaceChoice:
    """Which faces of a video are swapped, and who they become.

    Args:
        swapper ([`FaceSwapper`]): Knows who is who.
        face (`str | int` or photo): "largest": in each shot the largest of its first frame, "all", the number of a
            track, or a photo of the person to replace.
        mapping (`Mapping[int, int]`, *optional*): From the number of a track to that of a source, in place of `face`.

    Raises:
        NoFaceFoundError: If a photo of the person shows no face.
        ValueError: If the checkpoint's recogniser cannot tell whether two faces are one person's.
    """

    def __init__(self, swapper: FaceSwapper, face: TargetFace, mapping: Mapping[int, int] | None):
        self.swapper, self.mapping = swapper, mapping
        self.face = face
        self.sought: np.ndarray | None = None
        if mapping is None and not is_number_or_word(face):
            self.sought = self._embedding(load_photo(face, "face"))  # pyright: ignore[reportArgumentType]
        self._held = -1  # the track that "largest" or a photo has chosen last
        self._likeness: dict[int, float] = {}  # of tracks to the person who is sought, at their best

    def _embedding(self, photo: Photo) -> np.ndarray:
        if self.swapper.same_person is None:
            raise ValueError(
                "this checkpoint's recogniser cannot tell people apart: give the number of a track as face"
            )
        face = select_face(self.swapper.find_faces(photo.rgb), "largest", where=photo.name)
        return self.swapper.embed(photo.rgb, face)

    def choose(self, rgb: np.ndarray, tracked: Sequence[TrackedFace]) -> ChosenFaces:
        """Chooses among the faces of the next frame (H, W, 3) uint8 RGB."""
        if self.mapping is not None:
            people = {face.track: self.mapping[face.track] for face in tracked if face.track in self.mapping}
        else:
            people = dict.fromkeys(self._tracks(rgb, tracked), 0)
        swapped = [face for face in tracked if face.track in people]
        others = [face for face in tracked if face.track not in people]
        return ChosenFaces(swapped, [people[face.track] for face in swapped], others)

    def _tracks(self, rgb: np.ndarray, tracked: Sequence[TrackedFace]) -> list[int]:
        numbers = [face.track for face in tracked]
        if self.sought is not None:
            return self._sought_track(rgb, tracked)
        if isinstance(self.face, int | np.integer):
            return [number for number in numbers if number == self.face]
        if self.face == "all" or not numbers:
            return numbers
        if self._held not in numbers:
            self._held = max(tracked, key=lambda face: float(np.prod(np.ptp(face.face.landmarks, axis=0)))).track
        return [self._held]

    def _sought_track(self, rgb: np.ndarray, tracked: Sequence[TrackedFace]) -> list[int]:
        """The one track of a frame that is most like the person; another one has to be clearly more like them."""
        assert self.sought is not None
        assert self.swapper.same_person is not None
        for face in tracked:
            if face.seen and face.age % LOOK_EVERY == 0:
                likeness = float(self.swapper.embed(rgb, face.face) @ self.sought)
                self._likeness[face.track] = max(likeness, self._likeness.get(face.track, -1.0))
        known = {face.track: self._likeness.get(face.track, -1.0) for face in tracked}
        alike = {track: likeness for track, likeness in known.items() if likeness >= self.swapper.same_person}
        if not alike:
            return []
        best = max(alike, key=lambda track: alike[track])
        if self._held not in alike or alike[best] > alike[self._held] + MARGIN:
            self._held = best
        return [self._held]

    def state_dict(self) -> State:
        """What has to be known of the frames so far."""
        likeness = np.array(sorted(self._likeness.items()), np.float64).reshape(-1, 2)
        return {"held": np.array(self._held), "likeness": likeness}

    def load_state_dict(self, state: State) -> None:
        """Goes on after the frame at which `state_dict` was called."""
        self._held = int(state["held"])
        self._likeness = {int(track): float(likeness) for track, likeness in state["likeness"]}


@dataclass(eq=False)
class PreparedFrame:
    """A frame on its way from `FrameSwapper.prepare` to `FrameSwapper.paste`.

    Args:
        prepared ([`PreparedSwap`]): Its faces.
        is_checked (`bool`): Whether the safety checker looks at it.
        latents (`list[torch.Tensor]`): For each face what was painted.
    """

    prepared: PreparedSwap
    is_checked: bool
    latents: list[torch.Tensor] = field(default_factory=list)


class FrameSwapper:
    """Swaps the faces of the frames of one video, in their order: `look`, `prepare`, `paint`, then `paste`.

    Each of them may run in a thread of its own. What they give depends on the frames before, and on nothing else but
    rounding, in which frames that are painted together have a part.

    Args:
        swapper ([`FaceSwapper`]): Finds and swaps faces.
        identities (`Sequence[SourceIdentity]`): The sources.
        options ([`SwapOptions`]): How.
        face (`str | int` or photo): See [`FaceChoice`].
        mapping (`Mapping[int, int]`, *optional*): See [`FaceChoice`].
        coherence ([`CoherenceOptions`], *optional*): What is smoothed along a track.
    """

    def __init__(
        self,
        swapper: FaceSwapper,
        identities: Sequence[SourceIdentity],
        options: SwapOptions,
        face: TargetFace = "largest",
        mapping: Mapping[int, int] | None = None,
        coherence: CoherenceOptions | None = None,
    ):
        self.swapper, self.identities, self.options = swapper, identities, options
        self.choice = FaceChoice(swapper, face, mapping)
        self.tracker = swapper.new_tracker()
        # Two memories of the same tracks, because frames are prepared while earlier ones are pasted.
        self.coherence, self.pasting = TemporalCoherence(coherence), TemporalCoherence(coherence)
        self._agreed: set[int] = set()
        self._next_check = -math.inf
        self._ages: dict[int, list[float]] = {}
        self._new_ages: dict[int, list[float]] = {}

    def look(self, rgb: np.ndarray, time: float) -> ChosenFaces:
        """Finds the faces of the next frame.

        Args:
            rgb (`np.ndarray`): (H, W, 3) uint8 RGB.
            time (`float`): When it is shown, in seconds.
        """
        chosen = self.choice.choose(rgb, self.tracker.update(rgb, time))
        return chosen if self.swapper.agreed is None else self._without_outsiders(rgb, chosen)

    def _without_outsiders(self, rgb: np.ndarray, chosen: ChosenFaces) -> ChosenFaces:
        """Leaves faces of people who did not agree as they are. One who was known once is known along the track."""
        for face in chosen.swapped:
            if face.track not in self._agreed and face.seen and face.age % LOOK_EVERY == 0:
                self._agreed |= {face.track} if self.swapper.has_agreed(rgb, face.face) else set()
        pairs = list(zip(chosen.swapped, chosen.people, strict=True))
        kept = [pair for pair in pairs if pair[0].track in self._agreed]
        outsiders = [face for face, _ in pairs if face.track not in self._agreed]
        return ChosenFaces([face for face, _ in kept], [person for _, person in kept], [*chosen.others, *outsiders])

    def prepare(self, rgb: np.ndarray, time: float, faces: ChosenFaces) -> PreparedFrame | None:
        """Prepares the faces that `look` has found in the next frame; `None` if there are none.

        Raises:
            NothingToRepaintError: If a face shows nothing of the region.
            RefusedError: If the safety checker refuses the frame. It looks at one frame a second, and at those with a
                new face.
        """
        states = self.coherence.advance(faces.swapped, time)
        if not faces.swapped:
            return None
        is_checked = self._is_check_due(faces.swapped, time)
        if is_checked:
            self._check(rgb, faces.swapped, f"the frame at {time:.2f} s", self._ages)
        prepared = self.swapper.prepare_faces(
            rgb,
            [face.face for face in faces.swapped],
            [self.identities[person] for person in faces.people],
            self.options,
            others=[face.face for face in faces.others],
            states=states,
        )
        return PreparedFrame(prepared, is_checked)

    def paint(self, frames: Sequence[PreparedFrame]) -> None:
        """Repaints the faces of several frames together, which takes less time than one after another."""
        if frames:
            painted = self.swapper.paint([frame.prepared for frame in frames])
            for frame, latents in zip(frames, painted, strict=True):
                frame.latents = latents

    def paste(self, time: float, faces: ChosenFaces, frame: PreparedFrame | None) -> SwappedFaces | None:
        """Puts the new faces into the next frame; `None` if it was not prepared and painted.

        Args:
            time (`float`): When it is shown, in seconds.
            faces ([`ChosenFaces`]): From `look`.
            frame ([`PreparedFrame`], *optional*): Painted.

        Raises:
            RefusedError: If the safety checker refuses what comes of a frame that it has looked at.
        """
        states = self.pasting.advance(faces.swapped, time)
        if frame is None:
            return None
        made = self.swapper.paste(frame.prepared, self.swapper.decode_crops(frame.latents), states)
        if frame.is_checked:
            self._check(made.rgb, faces.swapped, f"the result at {time:.2f} s", self._new_ages)
        return made

    def _is_check_due(self, faces: Sequence[TrackedFace], time: float) -> bool:
        is_new = any(face.track not in self._ages for face in faces)
        if self.swapper.safety_checker is None or not (is_new or time >= self._next_check):
            return False
        self._next_check = time + SAFETY_INTERVAL
        return True

    def _check(self, rgb: np.ndarray, faces: Sequence[TrackedFace], name: str, ages: dict[int, list[float]]) -> None:
        """Checks a frame; the age of a face is the mean over what was seen of its track."""
        checker = self.swapper.safety_checker
        assert checker is not None  # it would not be due
        self.swapper.check_explicit(rgb, name)
        for face in faces:
            seen = ages.setdefault(face.track, [])
            seen.append(self.swapper.apparent_age(rgb, face.face))
            checker.check_age(float(np.mean(seen)), f"a face of {name}")

    def look_state(self) -> State:
        """What `look` has to know of the frames so far, as plain arrays."""
        agreed = {"agreed": np.array(sorted(self._agreed), np.int64)}
        parts = {"tracker": self.tracker.state_dict(), "choice": self.choice.state_dict(), "consent": agreed}
        return {key: value for name, state in parts.items() for key, value in _prefixed(name, state).items()}

    def paint_state(self) -> State:
        """What `prepare` has to know of the frames so far, as plain arrays."""
        return _prefixed("coherence", self.coherence.state_dict())

    def paste_state(self) -> State:
        """What `paste` has to know of the frames so far, as plain arrays."""
        return _prefixed("pasting", self.pasting.state_dict())

    def load_state(self, state: State) -> None:
        """Goes on after the frame at which all states were taken."""
        self.tracker.load_state_dict(_without_prefix("tracker", state))
        self.choice.load_state_dict(_without_prefix("choice", state))
        self.coherence.load_state_dict(_without_prefix("coherence", state))
        self.pasting.load_state_dict(_without_prefix("pasting", state))
        self._agreed = set(_without_prefix("consent", state)["agreed"].tolist())


def is_number_or_word(face: TargetFace) -> bool:
    """Whether a choice of faces is the number of a track, "largest" or "all", and not a photo."""
    return isinstance(face, int | np.integer) or (isinstance(face, str) and face in ("largest", "all"))


def _prefixed(name: str, state: State) -> State:
    return {f"{name}:{key}": value for key, value in state.items()}


def _without_prefix(name: str, state: State) -> State:
    return {key.removeprefix(f"{name}:"): value for key, value in state.items() if key.startswith(f"{name}:")}
