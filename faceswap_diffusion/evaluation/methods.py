"""What is compared: checkpoints, finished swaps of others, and the references that need no model."""

import hashlib
import time
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from faceswap_diffusion.conditioning.reference import Reference
from faceswap_diffusion.evaluation.ablation import mean_condition, recorded_conditions, removed_condition
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.evaluation.references import classical_swap, face_oval, pasted_source
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.selection import select_face
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.pipelines.loading import EMBEDDED_CHECKPOINT
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper


@dataclass(frozen=True)
class Swap:
    """What a method made of a pair.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8, of the target's size.
        mask (`np.ndarray`, *optional*): (H, W) float32 in [0, 1], where it painted; `None` if it does not tell.
        seconds (`float`): From the two paths to the picture; NaN where nothing was computed.
        conditions (`dict[str, np.ndarray]`): What the conditioner was handed, by name.
    """

    rgb: np.ndarray
    mask: np.ndarray | None = None
    seconds: float = float("nan")
    conditions: dict[str, np.ndarray] = field(default_factory=dict)


class Method(Protocol):
    """Makes swaps.

    Attributes:
        name (`str`): For the report, and the folder of its records.
        facts (`dict[str, Any]`): What its swaps depend on: weights, steps, guidance, device, dtype, and
            `conditioned_by`, the recogniser that it saw.
        uses_seed (`bool`): Whether another seed gives another swap.
        painted (`bool`): Whether a model painted in its pictures.
    """

    name: str
    facts: dict[str, Any]
    uses_seed: bool
    painted: bool

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Swaps the pair of that index; raises `NoFaceFoundError` where a picture has no face."""
        ...


class Checkpoint:
    """A checkpoint at its own settings, or those that the protocol or the user prescribes.

    Args:
        checkpoint (`str`, *optional*): Folder or Hub id; the one in the package if left out.
        device, dtype (`str`, *optional*): As for [`FaceSwapper.from_pretrained`].
        settings (`dict[str, Any]`): The user's `num_inference_steps` and `guidance_scale`, where given.
    """

    uses_seed = True
    painted = True

    def __init__(
        self,
        checkpoint: str | None = None,
        device: str | torch.device | None = None,
        dtype: str | None = None,
        settings: dict[str, Any] | None = None,
    ):
        self.swapper = FaceSwapper.from_pretrained(checkpoint, device=device, dtype=dtype)
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

    def at_steps(self, num_inference_steps: int) -> "Checkpoint":
        """The same checkpoint at another number of denoising steps, whatever the protocol prescribes."""
        other = copy(self)
        other.name = f"{self.name} at {num_inference_steps} steps"
        other.settings = {**self.settings, "num_inference_steps": num_inference_steps}
        other.facts = {**self.facts, "steps": num_inference_steps}
        return other

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Swaps a pair, and keeps what the conditioner was handed."""
        with recorded_conditions(self.swapper.pipeline.conditioner) as conditions:
            started = time.perf_counter()
            result = self.swapper.swap(pair.source, pair.target, seed=seed, **{**settings, **self.settings})
            seconds = time.perf_counter() - started
        handed = {name: torch.stack(rows).float().mean(0).cpu().numpy() for name, rows in conditions.items() if rows}
        mask = np.asarray(result.mask, np.float32) / 255
        return Swap(np.asarray(result.image.convert("RGB")), mask, seconds, handed)


class WithoutCondition:
    """A checkpoint whose conditioner is handed the mean of one condition in place of the pair's own.

    Args:
        method ([`Checkpoint`]): The checkpoint.
        condition (`str`): One of `ablation.CONDITIONS`.
        rows (`list[np.ndarray]`): The condition of each pair.
    """

    uses_seed = True
    painted = True

    def __init__(self, method: Checkpoint, condition: str, rows: list[np.ndarray]):
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
    """Swaps that someone else made.

    Args:
        name (`str`): What to call them.
        files (`list[Path]`): One for each pair, in their order.
    """

    uses_seed = False
    painted = True

    def __init__(self, name: str, files: list[Path]):
        self.name, self.files = name, files
        self.facts: dict[str, Any] = {"outputs": str(files[0].parent)}

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Reads a swap."""
        return Swap(load_photo(self.files[index]).rgb)


class UnchangedTarget:
    """No swap at all: the target itself."""

    name = "the target itself"
    uses_seed = False
    painted = False

    def __init__(self):
        self.facts: dict[str, Any] = {}

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Reads the target."""
        return Swap(load_photo(pair.target).rgb)


class WarpedSource:
    """The source's face moved onto the target's without a model.

    Args:
        name (`str`): What to call it.
        warp (`Callable`): `references.pasted_source` or `references.classical_swap`.
        analyzer ([`MeshFaceAnalyzer`]): Finds the faces.
    """

    uses_seed = False
    painted = False

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


CropFill = Callable[[FaceSwapper, AlignedFace, np.ndarray, SourceIdentity, Reference | None], np.ndarray]
"""From a swapper, a target's face, its mask (S, S) float in [0, 1], an identity and the reference to a crop (S, S, 3)
uint8 RGB."""


def filled_with_reference(
    swapper: FaceSwapper, face: AlignedFace, mask: np.ndarray, identity: SourceIdentity, reference: Reference | None
) -> np.ndarray:
    """What the autoencoder makes of what the pipeline is shown: the reference inside the mask, the target outside."""
    if reference is None:
        return face.pixels
    rebuilt = swapper.shown_reference(face, mask, reference, identity).rebuilt
    return np.clip(np.round(rebuilt), 0, 255).astype(np.uint8)


class FillingSwapper(FaceSwapper):
    """A swapper that pastes crops which were filled, and not painted: all but the diffusion is a swap's.

    Args:
        swapper ([`FaceSwapper`]): Whose swaps are meant.
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
        references: Sequence[Reference | None],
        seed: int,
        **settings: Any,
    ) -> list[np.ndarray]:
        """Fills each face's crop; neither seed nor settings matter."""
        return [self.fill(self, *parts) for parts in zip(faces, masks, identities, references, strict=True)]


class ReferenceAlone:
    """A checkpoint's rendered reference without diffusion, pasted by a swap's own mask and compositing.

    Args:
        method ([`Checkpoint`]): The checkpoint.
        fill (`CropFill`): Makes the crop that is pasted.
    """

    name = "reference alone"
    uses_seed = False
    painted = False

    def __init__(self, method: Checkpoint, fill: CropFill = filled_with_reference):
        self.swapper = FillingSwapper(method.swapper, fill)
        self.facts: dict[str, Any] = {name: method.facts[name] for name in ("checkpoint", "weights", "crop_size")}

    def swap(self, index: int, pair: Pair, seed: int, settings: dict[str, Any]) -> Swap:
        """Pastes the reference of a pair."""
        started = time.perf_counter()
        result = self.swapper.swap(pair.source, pair.target)
        seconds = time.perf_counter() - started
        return Swap(np.asarray(result.image.convert("RGB")), np.asarray(result.mask, np.float32) / 255, seconds)


def reference_methods(analyzer: MeshFaceAnalyzer, compared: Sequence[Method] = ()) -> list[Method]:
    """The rows that give every figure its scale.

    Args:
        analyzer ([`MeshFaceAnalyzer`]): Finds the faces.
        compared (`Sequence[Method]`): What is measured. "reference alone" is that of the first checkpoint among them
            which is shown a reference, if there is one.
    """
    guided = [method for method in compared if isinstance(method, Checkpoint) and shows_reference(method)]
    return [
        UnchangedTarget(),
        WarpedSource("source pasted", pasted_source, analyzer),
        WarpedSource("classical warp", classical_swap, analyzer),
        *(ReferenceAlone(method) for method in guided[:1]),
    ]


def shows_reference(method: Checkpoint) -> bool:
    """Whether the hidden part of the target shows a checkpoint the rendered reference."""
    return method.swapper.pipeline.config.get("hidden_fill") == "reference"


def weights_digest(folder: Path) -> str:
    """First digits of the SHA-256 over a folder's safetensors; of a Hub id "", as its name tells."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()[:16] if folder.is_dir() else ""
