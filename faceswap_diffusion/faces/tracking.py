"""Faces followed through the frames of a video: who is who, from when to when, without the detector on every frame."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace

import cv2
import numpy as np

from faceswap_diffusion.faces.analyzer import Face, FaceAnalyzer, FollowingAnalyzer, mesh_box, overlap

Embed = Callable[[np.ndarray, Face], np.ndarray]
Accept = Callable[[np.ndarray, Face], bool]

CUT = 0.45
"""Hellinger distance of two frames' histograms from which on another shot begins."""

BINS = 8  # of each channel
HISTOGRAM_PIXELS = 96  # longer side to which a frame is shrunk for it

SAME_PLACE = 0.3
"""Intersection over union of boxes from which on two faces of one frame, or of neighbouring ones, may be one."""

CROWDED = 0.5
"""The same, from which on two tracks follow one face."""

SUDDEN = 0.2
"""Distance between a face and where it was expected, as a share of its height, from which on it is looked at again."""

FARTHEST = 0.25
"""How far a face is expected to move between two frames at most, as a share of its height."""

LEAVE = 0.5
"""Share of the recogniser's threshold below which a face is hardly the same person's."""

STRANGER = 3
"""Doubts at which a track gives a face up: each look below the threshold is one, and below that share of it two."""

LOOKS = 10  # how many of the last embeddings a track's reference stands for
MANY = 64  # lost tracks that are remembered


@dataclass(frozen=True, eq=False)
class TrackedFace:
    """A face of a frame that belongs to a track.

    Args:
        track (`int`): Number of the track, from 0. Nobody else ever has it.
        face ([`Face`]): In this frame. If the face was lost just now, this is where it would be.
        strength (`float`): In (0, 1]: rises at the start of a track and falls at its end, 1 in between.
        age (`int`): Frames since the track began, or since the face reappeared, elsewhere or after a cut: at 0,
            nothing that was known of the frames before holds.
        seen (`bool`): Whether the frame shows the face.
    """

    track: int
    face: Face
    strength: float
    age: int
    seen: bool


@dataclass(eq=False)
class _Track:
    """What is known of one person."""

    number: int
    face: Face
    time: float
    strength: float
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(2))
    age: int = 0
    reference: np.ndarray = field(default_factory=lambda: np.zeros(0))
    last: np.ndarray = field(default_factory=lambda: np.zeros(0))  # embedding at the last look without a doubt
    looks: int = 0
    doubts: int = 0
    seen: bool = True
    placed: bool = True  # whether its place in the frame is known, lost or not: not after a cut

    def expected(self, time: float) -> np.ndarray:
        """Where its landmarks (N, 2) should be at a time."""
        moved = self.velocity * (time - self.time)
        farthest = FARTHEST * np.ptp(self.face.landmarks[:, 1])
        return self.face.landmarks + moved * min(1, farthest / max(float(np.hypot(*moved)), 1e-9))

    def see(self, face: Face, time: float) -> None:
        """Takes over what a frame shows of it."""
        moved = _middle(face) - _middle(self.face)
        speed = moved / max(time - self.time, 1e-6)
        self.velocity = (self.velocity + speed) / 2 if self.seen else np.zeros(2)
        self.face, self.time, self.seen, self.placed = face, time, True, True

    def likeness(self, embedding: np.ndarray) -> float:
        """Cosine with the reference."""
        return float(self.reference @ embedding)

    def learn(self, embedding: np.ndarray) -> None:
        """Takes an embedding into the reference."""
        self.last = embedding
        known = self.looks * self.reference if self.looks else 0
        total = known + embedding
        self.reference, self.looks = total / np.linalg.norm(total), min(self.looks + 1, LOOKS)


class FaceTracker:
    """Follows faces through frames.

    The mesh of a frame is fitted around that of the frame before. The detector looks for other faces every
    `detect_every` frames, and on every frame after a cut, while a face is missed, or if there is none. A track is
    held by place and, with `embed`, by likeness: it is given up if its face is another person's, and taken up again
    when its person is back.

    What it returns depends on nothing but the frames and times since its start, or since `load_state_dict`.

    Args:
        analyzer ([`FaceAnalyzer`]): Finds faces; a [`FollowingAnalyzer`] does so for less.
        embed (`Callable`, *optional*): From a frame (H, W, 3) uint8 RGB and a face to an embedding (D,) of unit
            length. Without it a lost face is found again only soon and near where it was.
        same_person (`float`): Least cosine of two embeddings of one person.
        accept (`Callable`, *optional*): Whether something found in a frame is a face after all.
        detect_every (`int`): Frames between two runs of the detector, at least 1.
        verify_every (`int`): Frames between two looks at who a face is, at least 1.
        fade (`float`): Seconds in which a face that comes or goes within a shot becomes strong or weak; 0 for at once.
        patience (`float`): Seconds for which a missed face is looked for on every frame.
    """

    def __init__(
        self,
        analyzer: FaceAnalyzer,
        embed: Embed | None = None,
        same_person: float = 0.4,
        accept: Accept | None = None,
        *,
        detect_every: int = 10,
        verify_every: int = 5,
        fade: float = 0.2,
        patience: float = 2.0,
    ):
        self.analyzer, self.embed, self.same_person, self.accept = analyzer, embed, same_person, accept
        self.detect_every, self.verify_every, self.fade, self.patience = detect_every, verify_every, fade, patience
        self._tracks: list[_Track] = []
        self._histogram = np.zeros(0)
        self._time = self._shot = 0.0  # of the last frame, and of the first one of its shot
        self._next = self._since_detection = self._since_look = 0

    def update(self, rgb: np.ndarray, time: float) -> list[TrackedFace]:
        """Takes the next frame.

        Args:
            rgb (`np.ndarray` of shape `(H, W, 3)`, uint8): RGB.
            time (`float`): When it is shown, in seconds, later than the frame before.

        Returns:
            `list[TrackedFace]`: Its faces, by the number of their track, and those that fade out.
        """
        passed, begins = time - self._time, self._begins_shot(rgb)
        self._time = time
        if begins:
            self._begin_shot(time)
        missed = self._follow(rgb, time)
        strangers = self._look_again(rgb, time)
        self._since_detection += 1
        if begins or missed or strangers or self._is_looking(time) or self._since_detection >= self.detect_every:
            self._find(rgb, time, strangers, begins)
            self._since_detection = 0
        self._fade(time, passed)
        self._forget()
        shown = [track for track in self._tracks if track.strength > 0]
        return [TrackedFace(t.number, self._shown(t), t.strength, t.age, t.seen) for t in shown]

    def _begins_shot(self, rgb: np.ndarray) -> bool:
        """Whether the frame is the first, or comes after a cut: whether its colours are others."""
        before, self._histogram = self._histogram, color_histogram(rgb)
        return not len(before) or hellinger(before, self._histogram) > CUT

    def _begin_shot(self, time: float) -> None:
        """Forgets where faces were, and fades none out: they are not in this picture."""
        self._shot = time
        for track in self._tracks:
            track.seen = track.placed = False
            track.strength = 0.0

    def _is_looking(self, time: float) -> bool:
        """Whether the detector should run on every frame: no face is seen, or one was seen lately."""
        since = max(time - self.patience, self._shot)
        lately = any(not track.seen and track.time >= since for track in self._tracks)
        return lately or not any(track.seen for track in self._tracks)

    def _follow(self, rgb: np.ndarray, time: float) -> bool:
        """Finds the tracks' faces near where they were. Returns whether one was lost."""
        seen = [track for track in self._tracks if track.seen]
        if not isinstance(self.analyzer, FollowingAnalyzer):
            self._follow_by_place(self.analyzer.analyze(rgb), seen, time)
        else:
            for track in seen:
                expected = track.expected(time)
                self._take(track, self.analyzer.follow(rgb, track.face, expected), expected, time)
        return not all(track.seen for track in seen)

    def _follow_by_place(self, faces: list[Face], seen: Sequence[_Track], time: float) -> None:
        """Gives each track the found face that overlaps most with where it is expected."""
        free = list(faces)
        for track in seen:
            expected = track.expected(time)
            best = max(free, key=lambda f: overlap(mesh_box(f.landmarks), mesh_box(expected)), default=None)
            if best is not None and overlap(mesh_box(best.landmarks), mesh_box(expected)) < SAME_PLACE:
                best = None
            free = [face for face in free if face is not best]
            self._take(track, best, expected, time)

    def _take(self, track: _Track, face: Face | None, expected: np.ndarray, time: float) -> None:
        track.age += 1
        if face is None:
            track.seen = False
            return
        height = np.ptp(expected[:, 1])
        moved = np.abs(mesh_box(face.landmarks) - mesh_box(expected)).max()
        if moved > SUDDEN * height:
            track.doubts = max(track.doubts, 1)  # not enough to give it up, enough to look at once
        track.see(face, time)

    def _look_again(self, rgb: np.ndarray, time: float) -> list[tuple[Face, np.ndarray | None]]:
        """Makes tracks give up faces that are not theirs, and returns those with their embeddings."""
        self._since_look += 1
        due = self._since_look >= self.verify_every
        self._since_look = 0 if due else self._since_look
        seen = [track for track in self._tracks if track.seen]
        crowded = {t.number for t in seen for o in seen if o is not t and _overlap(t, o) > CROWDED}
        strangers = []
        for track in seen:
            if self.embed is None or not (due or track.doubts or track.number in crowded):
                continue
            embedding = self.embed(rgb, track.face)
            if self._is_stranger(track, embedding):
                self._give_up(track)
                strangers.append((track.face, embedding))
        still = [track for track in seen if track.seen and track.number in crowded]
        for track in sorted(still, key=lambda t: t.age)[
            : len(still) - 1
        ]:  # one face, several tracks: the oldest has it
            self._give_up(track)
        return strangers

    def _is_stranger(self, track: _Track, embedding: np.ndarray) -> bool:
        """Whether a track's face is another person's: that of a lost track, or for several looks not its own.

        A head that turns away gets unlike its reference by and by, but not unlike what it was a moment ago.
        """
        own = track.likeness(embedding)
        if own < self.same_person:
            others = [other.likeness(embedding) for other in self._tracks if not other.seen]
            if max(others, default=-1.0) > max(self.same_person, own):
                return True
        if own >= self.same_person:
            track.learn(embedding)
        likeness = max(own, float(track.last @ embedding))
        if likeness >= self.same_person:
            track.last, track.doubts = embedding, 0
        else:
            track.doubts += 1 if likeness >= LEAVE * self.same_person else 2
        return track.doubts >= STRANGER

    def _give_up(self, track: _Track) -> None:
        """Ends the presence of a track whose face is not its own: at once, for it would be put on somebody else."""
        track.seen = track.placed = False
        track.strength, track.doubts = 0.0, 0

    def _find(
        self, rgb: np.ndarray, time: float, strangers: list[tuple[Face, np.ndarray | None]], begins: bool
    ) -> None:
        """Gives faces without a track to those who miss one, and begins new tracks for the rest."""
        known = [track.face for track in self._tracks if track.seen]
        found = list(strangers)
        for face in self._others(rgb, [*known, *(face for face, _ in strangers)]):
            if self.accept is None or self.accept(rgb, face):
                found.append((face, None if self.embed is None else self.embed(rgb, face)))
        lost = [track for track in self._tracks if not track.seen]
        pairs = [(self._fit(track, *new, time), i, track) for i, new in enumerate(found) for track in lost]
        taken: set[int] = set()
        for fit, index, track in sorted(pairs, key=lambda pair: (-pair[0], pair[1], pair[2].number)):
            if fit > 0 and index not in taken and not track.seen:
                self._resume(track, *found[index], time)
                taken.add(index)
        for index in sorted({*range(len(found))} - taken):
            self._begin(*found[index], time, begins)

    def _others(self, rgb: np.ndarray, known: Sequence[Face]) -> list[Face]:
        if isinstance(self.analyzer, FollowingAnalyzer):
            return self.analyzer.find_others(rgb, known)
        boxes = [mesh_box(face.landmarks) for face in known]
        found = self.analyzer.analyze(rgb)
        return [f for f in found if all(overlap(mesh_box(f.landmarks), box) < SAME_PLACE for box in boxes)]

    def _fit(self, track: _Track, face: Face, embedding: np.ndarray | None, time: float) -> float:
        """How well a face fits a lost track, 0 for not at all."""
        near = track.placed and time - track.time < self.patience
        place = overlap(mesh_box(face.landmarks), mesh_box(track.face.landmarks)) if near else 0.0
        if embedding is None:
            return place if place > SAME_PLACE else 0.0
        likeness = track.likeness(embedding)
        least = self.same_person * (LEAVE if place > SAME_PLACE else 1)  # hysteresis
        return likeness if likeness >= least else 0.0

    def _resume(self, track: _Track, face: Face, embedding: np.ndarray | None, time: float) -> None:
        """A missed face is back. It is strong at once: it was there, behind something."""
        continues = track.placed and overlap(mesh_box(face.landmarks), mesh_box(track.face.landmarks)) > SAME_PLACE
        track.age = track.age if continues and track.strength > 0 else 0
        track.see(face, time)
        track.strength = 1.0
        if embedding is not None and track.likeness(embedding) >= self.same_person:
            track.learn(embedding)

    def _begin(self, face: Face, embedding: np.ndarray | None, time: float, begins: bool) -> None:
        track = _Track(self._next, face, time, strength=1.0 if begins or not self.fade else 0.0)
        if embedding is not None:
            track.learn(embedding)
        self._tracks.append(track)
        self._next += 1

    def _fade(self, time: float, passed: float) -> None:
        for track in self._tracks:
            step = passed / self.fade if self.fade else 1.0
            track.strength = float(np.clip(track.strength + (step if track.seen else -step), 0, 1))
            if not track.seen and not track.strength:
                track.velocity = np.zeros(2)

    def _shown(self, track: _Track) -> Face:
        """Its face, or where that would be if it is lost."""
        if track.seen:
            return track.face
        return moved_face(track.face, track.expected(self._time) - track.face.landmarks)

    def _forget(self) -> None:
        """Keeps those that are seen, and the lost ones that were seen last."""
        lost = sorted((t for t in self._tracks if not t.seen), key=lambda t: (-t.time, t.number))
        dropped = {track.number for track in lost[MANY:]}
        self._tracks = [track for track in self._tracks if track.number not in dropped]

    def state_dict(self) -> dict[str, np.ndarray]:
        """What has to be known of the frames so far to go on as if nothing had been interrupted.

        Returns:
            `dict[str, np.ndarray]`: Plain arrays.
        """
        counts = [self._next, self._since_detection, self._since_look]
        state = {"counts": np.array(counts), "times": np.array([self._time, self._shot]), "histogram": self._histogram}
        for track in self._tracks:
            state |= {f"track.{track.number}.{name}": value for name, value in _track_arrays(track).items()}
        return state

    def load_state_dict(self, state: dict[str, np.ndarray]) -> None:
        """Goes on after the frame at which `state_dict` was called."""
        self._next, self._since_detection, self._since_look = (int(count) for count in state["counts"])
        self._time, self._shot = (float(time) for time in state["times"])
        self._histogram = np.array(state["histogram"])
        parts: dict[int, dict[str, np.ndarray]] = {}
        for key, value in state.items():
            if key.startswith("track."):
                _, number, name = key.split(".", 2)
                parts.setdefault(int(number), {})[name] = np.array(value)
        self._tracks = [_track_from_arrays(number, arrays) for number, arrays in sorted(parts.items())]


def color_histogram(rgb: np.ndarray) -> np.ndarray:
    """Share (512,) of the pixels of a frame (H, W, 3) uint8 in each bin of colour."""
    scale = min(1.0, HISTOGRAM_PIXELS / max(rgb.shape[:2]))
    size = tuple(max(1, round(side * scale)) for side in rgb.shape[1::-1])
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    counts = cv2.calcHist([small], [0, 1, 2], None, [BINS] * 3, [0, 256] * 3).ravel()
    return counts.astype(np.float64) / counts.sum()


def hellinger(first: np.ndarray, second: np.ndarray) -> float:
    """Hellinger distance of two histograms, 0 for equal ones, 1 for those that have no bin in common."""
    return float(np.sqrt(max(0.0, 1 - np.sqrt(first * second).sum())))


def moved_face(face: Face, offset: np.ndarray) -> Face:
    """A face moved by an offset (N, 2) of its landmarks, all alike."""
    step = offset.mean(axis=0)
    return replace(
        face,
        bbox=face.bbox + np.tile(step, 2),
        keypoints=face.keypoints + step,
        landmarks=face.landmarks + step,
        landmarks68=face.landmarks68 + step,
    )


def _middle(face: Face) -> np.ndarray:
    return mesh_box(face.landmarks).reshape(2, 2).mean(axis=0)


def _overlap(first: _Track, second: _Track) -> float:
    return overlap(mesh_box(first.face.landmarks), mesh_box(second.face.landmarks))


def _track_arrays(track: _Track) -> dict[str, np.ndarray]:
    own = {f.name: np.asarray(getattr(track, f.name)) for f in fields(_Track) if f.name not in ("number", "face")}
    parts = {f.name: getattr(track.face, f.name) for f in fields(Face)}
    return own | {f"face.{name}": np.asarray(value) for name, value in parts.items() if value is not None}


def _track_from_arrays(number: int, arrays: dict[str, np.ndarray]) -> _Track:
    def plain(value: np.ndarray) -> np.ndarray | float | int | bool:
        return value.item() if value.ndim == 0 else value

    own = {name: plain(value) for name, value in arrays.items() if not name.startswith("face.")}
    face = Face(**{n.removeprefix("face."): plain(v) for n, v in arrays.items() if n.startswith("face.")})  # pyright: ignore[reportArgumentType]
    return _Track(number=number, face=face, **own)  # pyright: ignore[reportArgumentType]
