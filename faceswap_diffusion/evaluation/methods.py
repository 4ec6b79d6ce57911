"""Methods that are compared: checkpoints, finished swaps, and baselines without a model."""

import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from faceswap_diffusion.evaluation.ablation import mean_condition, recorded_conditions, removed_condition
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.evaluation.references import classical_swap, face_oval, pasted_source
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.masked_image import MaskedImage
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper
from faceswap_diffusion.weights.checkpoints import EMBEDDED_CHECKPOINT, weights_digest


@dataclass(frozen=True)
class Swap:
    """A method's result for a pair.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8, of the target's size.
        mask (`np.ndarray`, *optional*): (H, W) float32 in [0, 1], where the method changed pixels; `None` if unknown.
        seconds (`float`): Time from the two paths to the picture; NaN if nothing was computed.
        conditions (`dict[str, np.ndarray]`): Inputs of the conditioner, by name.
        occlusion (`np.ndarray`, *optional*): (H, W) float32 in [0, 1], what the method found in front of the target;
            `None` if it did not look.
    """

    rgb: np.ndarray
    mask: np.ndarray | None = None
    seconds: float = float("nan")
    conditions: dict[str, np.ndarray] = field(default_factory=dict)
    occlusion: np.ndarray | None = None


class Method(Protocol):
    """A method that makes swaps.

    Attributes:
        name (`str`): Name in the report, and of the folder of its records.
        facts (`dict[str, Any]`): What its swaps depend on: weights, steps, guidance, device, dtype, and
            `conditioned_by`, the recogniser that it is conditioned on.
        uses_seed (`bool`): Whether the swap depends on the seed.
        generated (`bool`): Whether a model generated parts of its pictures.
    """

    name: str
    facts: dict[str, Any]
    uses_seed: bool
    generated: bool

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Swaps the pair with that index; raises `NoFaceFoundError` if a picture has no face."""
        ...


class CheckpointMethod:
    """A checkpoint with its own settings, or those of the protocol or the user.

    Args:
        checkpoint (`str`, *optional*): Folder or Hub id; the one in the package if left out.
        device, dtype (`str`, *optional*): As for [`FaceSwapper.from_pretrained`].
        settings (`dict[str, Any]`): The user's `num_inference_steps` and `guidance_scale`, if given.
    """

    uses_seed = True
    generated = True

    def __init__(
        self,
        checkpoint: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        settings: dict[str, Any] | None = None,
    ):
        self.swapper = FaceSwapper.from_pretrained(
            checkpoint, device=device, dtype=dtype, safety_checker=None
        )  # the people of a protocol are known
        self.swapper.pipeline.set_progress_bar_config(disable=True)
        self.name, self.settings = self.swapper.name, settings or {}
        pipeline = self.swapper.pipeline
        conditioner: Any = pipeline.conditioner
        self.facts = {
            "checkpoint": checkpoint or "of the package",
            "weights": weights_digest(Path(checkpoint or EMBEDDED_CHECKPOINT)),
            "steps": self.settings.get("num_inference_steps", pipeline.config["default_num_inference_steps"]),
            "guidance": self.settings.get("guidance_scale", pipeline.config["default_guidance_scale"]),
            "device": pipeline.device.type,
            "dtype": str(pipeline.dtype).removeprefix("torch."),
            "conditioned_by": None if conditioner is None else conditioner.config["identity_network"],
            "crop_size": pipeline.config["crop_size"],
        }

    def at_steps(self, num_inference_steps: int) -> "CheckpointMethod":
        """The same checkpoint with another number of denoising steps, which overrides the protocol's."""
        other = copy(self)
        other.name = f"{self.name} at {num_inference_steps} steps"
        other.settings = {**self.settings, "num_inference_steps": num_inference_steps}
        other.facts = {**self.facts, "steps": num_inference_steps}
        return other

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Swaps a pair and records the inputs of the conditioner."""
        with recorded_conditions(self.swapper.pipeline.conditioner) as conditions:
            started = time.perf_counter()
            result = self.swapper.swap(pair.source, pair.target, seed=seed, **{**settings, **self.settings})
            seconds = time.perf_counter() - started
        handed = {name: torch.stack(rows).float().mean(0).cpu().numpy() for name, rows in conditions.items() if rows}
        mask = np.asarray(result.mask, np.float32) / 255
        occlusion = None if result.occlusion is None else np.asarray(result.occlusion, np.float32) / 255
        return Swap(np.asarray(result.image.convert("RGB")), mask, seconds, handed, occlusion)


class WithoutCondition:
    """A checkpoint with one condition replaced by its mean.

    Args:
        method ([`CheckpointMethod`]): The checkpoint.
        condition (`str`): One of `ablation.CONDITIONS`.
        rows (`list[np.ndarray]`): The condition of each pair.
    """

    uses_seed = True
    generated = True

    def __init__(self, method: CheckpointMethod, condition: str, rows: list[np.ndarray]):
        self.method, self.condition = method, condition
        self.name, self.facts = f"{method.name} without {condition}", method.facts
        pipeline = method.swapper.pipeline
        self.mean = mean_condition(condition, [torch.from_numpy(row) for row in rows])
        self.mean = self.mean.to(pipeline.device, pipeline.dtype)

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Swaps a pair without the condition."""
        with removed_condition(self.method.swapper.pipeline, self.condition, self.mean):
            return self.method.swap(index, pair, seed, settings)


class FinishedSwaps:
    """Finished swaps of another method.

    Args:
        name (`str`): Name of the method.
        files (`list[Path]`): One file for each pair, in their order.
    """

    uses_seed = False
    generated = True

    def __init__(self, name: str, files: list[Path]):
        self.name, self.files = name, files
        self.facts: dict[str, Any] = {"outputs": str(files[0].parent)}

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Reads a swap."""
        return Swap(load_photo(self.files[index]).rgb)


class UnchangedTarget:
    """No swap: the target itself."""

    name = "the target itself"
    uses_seed = False
    generated = False

    def __init__(self):
        self.facts: dict[str, Any] = {}

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Reads the target."""
        return Swap(load_photo(pair.target).rgb)


class WarpedSource:
    """The source's face, warped onto the target's without a model.

    Args:
        name (`str`): Name of the method.
        warp (`Callable`): `references.pasted_source` or `references.classical_swap`.
        analyzer ([`MeshFaceAnalyzer`]): Finds the faces.
    """

    uses_seed = False
    generated = False

    def __init__(self, name: str, warp: Callable[..., np.ndarray], analyzer: MeshFaceAnalyzer):
        self.name, self.warp, self.analyzer = name, warp, analyzer
        self.facts: dict[str, Any] = {}

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Warps the source's face into the target."""
        started = time.perf_counter()
        (source, source_face), (target, target_face) = (self._load(path) for path in (pair.source, pair.target))
        rgb = self.warp(source, source_face, target, target_face)
        seconds = time.perf_counter() - started
        return Swap(rgb, face_oval(target_face, target.shape).astype(np.float32), seconds)

    def _load(self, path: Path) -> tuple[np.ndarray, Face]:
        rgb = load_photo(path).rgb
        return rgb, select_face(self.analyzer.analyze(rgb), where=str(path))


CropFill = Callable[[FaceSwapper, AlignedFace, np.ndarray, SourceIdentity, MaskedImage | None], np.ndarray]
"""Maps a swapper, a target's face, its mask (S, S) float in [0, 1], an identity and the masked image to a crop
(S, S, 3) uint8 RGB."""


def filled_with_reference(
    swapper: FaceSwapper, face: AlignedFace, mask: np.ndarray, identity: SourceIdentity, masked: MaskedImage | None
) -> np.ndarray:
    """The input of the pipeline (reference inside the mask, target outside), encoded and decoded again."""
    if masked is None:
        return face.pixels
    rebuilt = swapper.shown_reference(face, masked, identity).rebuilt
    return np.clip(np.round(rebuilt), 0, 255).astype(np.uint8)


class FillingSwapper(FaceSwapper):
    """A swapper that fills crops instead of repainting them; everything but the diffusion is the same.

    Args:
        swapper ([`FaceSwapper`]): The swapper.
        fill (`CropFill`): Makes a crop.
    """

    def __init__(self, swapper: FaceSwapper, fill: CropFill):
        super().__init__(swapper.pipeline, swapper.analyzer, swapper.name, swapper.parser, swapper.occlusion)
        self.fill = fill

    def repaint(
        self,
        faces: Sequence[AlignedFace],
        masks: Sequence[np.ndarray],
        identities: Sequence[SourceIdentity],
        masked: Sequence[MaskedImage | None],
        seed: int,
        **settings: Any,
    ) -> list[np.ndarray]:
        """Fills each face's crop; seed and settings have no effect."""
        return [self.fill(self, *parts) for parts in zip(faces, masks, identities, masked, strict=True)]


class ReferenceAlone:
    """A checkpoint's reference without diffusion, pasted with the mask and compositing of a swap.

    Args:
        method ([`CheckpointMethod`]): The checkpoint.
        fill (`CropFill`): Makes the crop that is pasted.
    """

    name = "reference alone"
    uses_seed = False
    generated = False

    def __init__(self, method: CheckpointMethod, fill: CropFill = filled_with_reference):
        self.swapper = FillingSwapper(method.swapper, fill)
        self.facts: dict[str, Any] = {name: method.facts[name] for name in ("checkpoint", "weights", "crop_size")}

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Pastes the reference of a pair."""
        started = time.perf_counter()
        result = self.swapper.swap(pair.source, pair.target, identity_guidance_scale=0.0)
        seconds = time.perf_counter() - started
        return Swap(np.asarray(result.image.convert("RGB")), np.asarray(result.mask, np.float32) / 255, seconds)


def reference_methods(analyzer: MeshFaceAnalyzer, compared: Sequence[Method] = ()) -> list[Method]:
    """The baselines that every method is compared with.

    Args:
        analyzer ([`MeshFaceAnalyzer`]): Finds the faces.
        compared (`Sequence[Method]`): What is measured. "reference alone" uses the first checkpoint among them
            with reference guidance, if there is one.
    """
    guided = [method for method in compared if isinstance(method, CheckpointMethod) and shows_reference(method)]
    return [
        UnchangedTarget(),
        WarpedSource("source pasted", pasted_source, analyzer),
        WarpedSource("classical warp", classical_swap, analyzer),
        *(ReferenceAlone(method) for method in guided[:1]),
    ]


def shows_reference(method: CheckpointMethod) -> bool:
    """Whether a checkpoint uses reference guidance."""
    return method.swapper.pipeline.config.get("hidden_fill") == "reference"
