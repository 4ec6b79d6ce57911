"""What keeps neighbouring frames of a swap alike: everything that is estimated anew in each frame, smoothed.

The One-Euro filter: G. Casiez, N. Roussel, D. Vogel, "1 € Filter: A Simple Speed-based Low-pass Filter for Noisy Input
in Interactive Systems", CHI 2012.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from faceswap_diffusion.faces.alignment import ffhq_matrix, invert, transform_points
from faceswap_diffusion.faces.analyzer import Face
from faceswap_diffusion.faces.tracking import TrackedFace
from faceswap_diffusion.swapping.steadying import ShownFace, steady_pixels


@dataclass(frozen=True)
class Smoothing:
    """Settings of a One-Euro filter.

    Args:
        min_cutoff (`float`): In Hz, for what does not move: lower is smoother.
        beta (`float`): By how many Hz the cutoff rises for each unit of speed: higher lags less behind.
        derivative_cutoff (`float`): In Hz, for the speed itself.
    """

    min_cutoff: float
    beta: float
    derivative_cutoff: float = 1.0


SMOOTHING = {
    "pose": Smoothing(1.0, 40.0),
    "shape": Smoothing(1.5, 60.0),
    "expression": Smoothing(1.5, 2.0),
    "tone": Smoothing(0.5, 10.0),
    "mask": Smoothing(1.0, 2.0),
}
"""Of the aligned square and of the mesh in it, with speed in sides of the square per second; of depth in sides,
expression coefficients in [0, 1] and the head's pose in units of 30 degrees; of light and colours in
large differences; and of masks in [0, 1], each pixel by itself.

The lag of a filter behind a steady motion is at most 1 / (2 pi beta): 0.4 % of the square's side for the square.
"""

GAP = 0.5
"""Seconds without a face after which nothing known of it holds."""

JUMP = 0.5
"""Distance from one frame to the next, as a share of the aligned square, from which on the same is true."""

KEPT = 2.0
"""Seconds after which a track that does not appear is forgotten; later it would begin anew anyway."""


@dataclass(frozen=True)
class CoherenceOptions:
    """What is smoothed along a track. Each can be switched off.

    Args:
        mesh (`bool`): Landmarks and the crop that follows from them.
        tone (`bool`): Light, exposure, and colours that are matched to the target's.
        masks (`bool`): What is repainted, and what is in front of it.
        pixels (`bool`): The new face itself, along the motion of the mesh.
        fade (`bool`): Whether a swap comes and goes softly with its track.
    """

    mesh: bool = True
    tone: bool = True
    masks: bool = True
    pixels: bool = True
    fade: bool = True


class OneEuro:
    """The One-Euro filter of a vector field: its cutoff rises with the speed, so that what moves fast has no lag.

    Casiez et al. 2012: the smoothed value is X_i = alpha x_i + (1 - alpha) X_{i-1} (equation 1), alpha = 1 / (1 + tau
    / T) (equation 3) with tau = 1 / (2 pi f) (equation 5), and the cutoff f = f_min + beta |dX| (equation 7), where dX
    is the derivative, smoothed in the same way with a cutoff of its own.

    Args:
        smoothing ([`Smoothing`]): Its settings.
    """

    def __init__(self, smoothing: Smoothing):
        self.smoothing = smoothing
        self.raw: np.ndarray | None = None
        self.value: np.ndarray | None = None
        self.derivative: np.ndarray | None = None

    def __call__(self, raw: np.ndarray, passed: float, unit: float = 1.0) -> np.ndarray:
        """Filters the next value.

        Args:
            raw (`np.ndarray` of shape `(..., C)`): The vectors. All components of one share its speed.
            passed (`float`): Seconds since the value before.
            unit (`float`): Speed is measured in it, a length for one.

        Returns:
            `np.ndarray`: Of the shape of `raw`; `raw` itself at first, or if its shape is another than before.
        """
        if self.raw is None or self.value is None or self.raw.shape != raw.shape:
            self.raw, self.value, self.derivative = raw, raw, None
            return raw
        now = (raw - self.raw) / passed
        rate = _alpha(self.smoothing.derivative_cutoff, passed)
        # The second value is the first that tells a speed. To begin from 0 would be a lag behind what moves already.
        smooth = now if self.derivative is None else rate * now + (1 - rate) * self.derivative
        self.derivative = np.asarray(smooth, raw.dtype)
        speed = np.linalg.norm(self.derivative, axis=-1, keepdims=True) / unit
        share = _alpha(self.smoothing.min_cutoff + self.smoothing.beta * speed, passed)
        self.value = (share * raw + (1 - share) * self.value).astype(raw.dtype)
        self.raw = raw
        return self.value


def _alpha(cutoff: float | np.ndarray, passed: float) -> float | np.ndarray:
    return 1 / (1 + 1 / (2 * np.pi * cutoff * passed))


class FaceState:
    """What one track remembers of its frames, as it is used for one of them.

    Args:
        options ([`CoherenceOptions`]): What is smoothed.
    """

    def __init__(self, options: CoherenceOptions):
        self.options = options
        self.filters: dict[str, OneEuro] = {}
        self.before: ShownFace | None = None
        self.time, self.passed, self.strength = 0.0, 0.0, 1.0
        self.centre = np.zeros(2)

    def advance(self, tracked: TrackedFace, time: float) -> None:
        """Goes to the next frame, and forgets the ones before if they have nothing to do with it."""
        matrix = ffhq_matrix(tracked.face.landmarks68, 1)
        middle = invert(matrix)[:, 2]
        jump = np.hypot(*(middle - self.centre)) * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        if tracked.age == 0 or time - self.time > GAP or jump > JUMP:
            self.filters, self.before = {}, None
        self.passed, self.time, self.centre = time - self.time, time, middle
        self.strength = tracked.strength if self.options.fade else 1.0

    def steady(self, face: Face) -> Face:
        """Smooths a face's landmarks, and its pose and expression.

        Position, size and direction of the aligned square are smoothed, and the landmarks within it: the motion of the
        head does not hide how much the lips tremble.

        Args:
            face ([`Face`]): In pixels of the frame.

        Returns:
            [`Face`]: Likewise.
        """
        if not self.options.mesh:
            return face
        matrix = ffhq_matrix(face.landmarks68, 1)
        back = invert(self._steady_matrix(matrix))

        def smoothed(name: str, points: np.ndarray) -> np.ndarray:
            return transform_points(self._filter(f"shape.{name}", transform_points(points, matrix)), back)

        depth = None if face.depth is None else self._steady_depth(face.depth, matrix, back)
        return replace(
            face,
            keypoints=smoothed("keypoints", face.keypoints),
            landmarks=smoothed("landmarks", face.landmarks),
            landmarks68=smoothed("landmarks68", face.landmarks68),
            depth=depth,
            blendshapes=None if face.blendshapes is None else self._filter_each("blendshapes", face.blendshapes),
            head_pose=None if face.head_pose is None else 30 * self._filter_each("head_pose", face.head_pose / 30),
        )

    def _steady_matrix(self, matrix: np.ndarray) -> np.ndarray:
        """Smooths the map from the frame to the aligned square, a similarity."""
        side = abs(np.linalg.det(matrix[:, :2])) ** -0.5
        middle = self._filter("pose.middle", invert(matrix)[:, 2], side)
        angle = np.arctan2(matrix[1, 0], matrix[0, 0])
        known = self.filters.get("pose.size_and_angle")
        if known is not None and known.raw is not None:  # an angle has no jump from pi to -pi
            angle = known.raw[1] + (angle - known.raw[1] + np.pi) % (2 * np.pi) - np.pi
        log_side, angle = self._filter("pose.size_and_angle", np.array([np.log(side), angle]))
        linear = np.exp(-log_side) * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        return np.column_stack([linear, -linear @ middle])

    def _steady_depth(self, depth: np.ndarray, matrix: np.ndarray, back: np.ndarray) -> np.ndarray:
        in_sides = depth * np.sqrt(abs(np.linalg.det(matrix[:, :2])))
        return self._filter("expression.depth", in_sides[:, None])[:, 0] * np.sqrt(abs(np.linalg.det(back[:, :2])))

    def tone(self, name: str, value: np.ndarray, unit: float) -> np.ndarray:
        """Smooths a vector of light or colour, see `conditioning.tone.Tone`.

        Args:
            name (`str`): Which.
            value (`np.ndarray` of shape `(..., C)`): In this frame. NaN is passed on.
            unit (`float`): A large difference.

        Returns:
            `np.ndarray`: Likewise.
        """
        if not self.options.tone or np.isnan(value).any():
            return value
        return self._filter(f"tone.{name}", value, unit)

    def mask(self, name: str, mask: np.ndarray) -> np.ndarray:
        """Smooths a mask (S, S) in [0, 1] of the aligned crop, pixel by pixel."""
        if not self.options.masks:
            return mask
        return self._filter(f"mask.{name}", mask[..., None].astype(np.float32))[..., 0]

    def pixels(self, pixels: np.ndarray, target: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """Makes a repainted crop like that of the frame before, see `steadying.steady_pixels`, and remembers it.

        Args:
            pixels (`np.ndarray`): (F, F, 3) float32 RGB in [0, 255].
            target (`np.ndarray`): (F, F, 3) uint8 RGB, the crop before it was repainted.
            landmarks (`np.ndarray`): (N, 2), x, y in its pixels.

        Returns:
            `np.ndarray`: (F, F, 3) float32 RGB; `pixels` itself if it is switched off, or the face has no mesh.
        """
        if not self.options.pixels or len(landmarks) != 478:
            return pixels
        if self.before is not None:
            pixels = steady_pixels(pixels, target, landmarks, self.before, self.passed)
        self.before = ShownFace(np.round(np.clip(pixels, 0, 255)).astype(np.uint8), target, landmarks)
        return pixels

    def _filter_each(self, name: str, values: np.ndarray) -> np.ndarray:
        """Filters numbers (N,) that have nothing to do with each other."""
        return self._filter(f"expression.{name}", values[:, None])[:, 0]

    def _filter(self, name: str, value: np.ndarray, unit: float = 1.0) -> np.ndarray:
        """Filters a value by the filter of that name; what is before the point says how."""
        if name not in self.filters:
            self.filters[name] = OneEuro(SMOOTHING[name.split(".")[0]])
        return self.filters[name](value, self.passed, unit)


def independent() -> FaceState:
    """What a picture that belongs to no video is swapped with: everything is as it was estimated."""
    return FaceState(CoherenceOptions(mesh=False, tone=False, masks=False, pixels=False, fade=False))


class TemporalCoherence:
    """What the tracks of a video remember, see [`FaceState`].

    Args:
        options ([`CoherenceOptions`], *optional*): What is smoothed; everything if left out.
    """

    def __init__(self, options: CoherenceOptions | None = None):
        self.options = options or CoherenceOptions()
        self._states: dict[int, FaceState] = {}

    def advance(self, tracked: Sequence[TrackedFace], time: float) -> list[FaceState]:
        """Goes to the next frame.

        Args:
            tracked (`Sequence[TrackedFace]`): Those of its faces that are swapped, from [`FaceTracker.update`].
            time (`float`): When it is shown, in seconds, later than the frame before.

        Returns:
            `list[FaceState]`: For each of them what `FaceSwapper.swap_faces` takes as `states`.
        """
        self._states = {track: state for track, state in self._states.items() if time - state.time < KEPT}
        states = [self._states.setdefault(face.track, FaceState(self.options)) for face in tracked]
        for face, state in zip(tracked, states, strict=True):
            state.advance(face, time)
        return states

    def state_dict(self) -> dict[str, np.ndarray]:
        """What has to be known of the frames so far to go on as if nothing had been interrupted.

        Returns:
            `dict[str, np.ndarray]`: Plain arrays.
        """
        arrays: dict[str, np.ndarray] = {}
        for track, state in self._states.items():
            arrays |= {f"{track}/time": np.array(state.time), f"{track}/centre": state.centre}
            for name, known in state.filters.items():
                parts = {"raw": known.raw, "value": known.value, "derivative": known.derivative}
                arrays |= {f"{track}/{name}/{part}": value for part, value in parts.items() if value is not None}
            if state.before is not None:
                arrays |= {f"{track}/before/{part}": value for part, value in vars(state.before).items()}
        return arrays

    def load_state_dict(self, arrays: dict[str, np.ndarray]) -> None:
        """Goes on after the frame at which `state_dict` was called."""
        self._states, shown = {}, {}
        for key, value in arrays.items():
            track, *name, part = key.split("/")
            state = self._states.setdefault(int(track), FaceState(self.options))
            if name == ["before"]:
                shown.setdefault(int(track), {})[part] = np.array(value)
            elif not name:
                setattr(state, part, float(value) if part == "time" else np.array(value))
            else:
                known = state.filters.setdefault(name[0], OneEuro(SMOOTHING[name[0].split(".")[0]]))
                setattr(known, part, np.array(value))
        for track, parts in shown.items():
            self._states[track].before = ShownFace(**parts)
