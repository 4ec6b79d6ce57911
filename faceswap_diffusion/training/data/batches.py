"""Training samples of the swap model: drawn from prepared faces by their number alone."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from faceswap_diffusion.conditioning.geometry import exchange_geometry, identity_geometry
from faceswap_diffusion.faces.landmarks import dlib68
from faceswap_diffusion.occluders.blobs import draw_occluder
from faceswap_diffusion.training.config import SampleConfig
from faceswap_diffusion.training.data.augmentation import augment_source, soften, thin_plate_basis, warp_mask
from faceswap_diffusion.training.data.dataset import FaceRecord, FacesSummary, PreparedFaces
from faceswap_diffusion.training.data.mask_shuffling import (
    MaskSet,
    check_mask_sets,
    draw_mask_set,
    parse_mask_sets,
    region_or_face,
)
from faceswap_diffusion.training.data.mirroring import mirrored_landmarks68
from faceswap_diffusion.training.data.references import TrainingReferences, to_rgb
from faceswap_diffusion.training.engine.randomness import choose, draw_uniform, generator_for, row_of_sample

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class SampleRoles:
    """The role of each sample within every `period` consecutive samples.

    The first are `cross_identity`: they have the source of another person and go through several denoising steps. The
    next are `self_reconstruction`: they go through the steps with a source of their own. The others are `denoising`:
    they are denoised once.

    Args:
        period (`int`): Samples after which the roles repeat.
        num_cross_identity (`int`): Cross-identity samples among them.
        num_self_reconstruction (`int`): Self-reconstruction samples among them.
    """

    period: int
    num_cross_identity: int
    num_self_reconstruction: int

    @classmethod
    def from_shares(cls, cross_identity_share: float, self_reconstruction_share: float) -> "SampleRoles":
        """The shortest period in which both shares are whole numbers of samples.

        Raises:
            ValueError: If the shares are not in [0, 1], or are more than 1 together.
        """
        shares = [Fraction(share).limit_denominator(64) for share in (cross_identity_share, self_reconstruction_share)]
        if min(shares) < 0 or sum(shares) > 1:
            raise ValueError(
                f"shares of {cross_identity_share} and {self_reconstruction_share}: each has to be 0 or more, both "
                "together 1 at most"
            )
        period = lcm(*(share.denominator for share in shares))
        return cls(period, *(int(share * period) for share in shares))

    def of(self, index: int) -> str:
        """`"cross_identity"`, `"self_reconstruction"` or `"denoising"` for a sample's number."""
        position = index % self.period
        if position < self.num_cross_identity:
            return "cross_identity"
        return (
            "self_reconstruction" if position < self.num_cross_identity + self.num_self_reconstruction else "denoising"
        )

    def check(self, batch_size: int, global_batch_size: int) -> None:
        """Refuses batches that cannot hold the roles evenly, or have no other person to take a source from.

        Raises:
            ValueError: Naming a batch size that works.
        """
        if batch_size % self.period:
            raise ValueError(
                f"a batch of {batch_size} cannot hold {self.num_cross_identity} cross-identity and "
                f"{self.num_self_reconstruction} self-reconstruction samples of every {self.period}: use a multiple "
                f"of {self.period}, or other shares"
            )
        if self.num_cross_identity and global_batch_size < 2:
            raise ValueError(
                "a global batch of 1 holds no other person to take the source of: use at least 2 (train_batch_size x "
                "gradient_accumulation_steps x processes), or --cross_identity_share 0"
            )


def derange(identities: Sequence[str], generator: torch.Generator) -> list[int | None]:
    """Gives each member of a batch another one, of another person, and none to two of them.

    Members are put in order by person and moved on by the size of the largest group.

    Args:
        identities (`Sequence[str]`): The person of each member.
        generator (`torch.Generator`): Says in which order.

    Returns:
        `list[int | None]`: For each member the position of its partner; `None` for those of a person who holds more
        than half of the batch, for whom no partner is left.
    """
    count = len(identities)
    shuffled = torch.randperm(count, generator=generator).tolist()
    places = {person: place for place, person in enumerate(dict.fromkeys(identities[member] for member in shuffled))}
    ordered = sorted(shuffled, key=lambda member: places[identities[member]])
    shift = max(Counter(identities).values())
    partners: list[int | None] = [None] * count
    for place, member in enumerate(ordered):
        partner = ordered[(place + shift) % count]
        if identities[partner] != identities[member]:
            partners[member] = partner
    return partners


class TensorBatch:
    """Tensors of a batch's samples, as fields of a dataclass."""

    def to(self, device: torch.device | str) -> "Self":
        """The same samples on a device; their numbers stay on the CPU, where random numbers are drawn."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        del tensors["indices"]
        return self._exchange({name: tensor.to(device, non_blocking=True) for name, tensor in tensors.items()})

    def pin_memory(self) -> "Self":
        """The same samples in page-locked memory, for `DataLoader`."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return self._exchange({name: tensor.pin_memory() for name, tensor in tensors.items()})

    def _exchange(self, tensors: dict[str, torch.Tensor]) -> "Self":
        return replace(self, **tensors)  # pyright: ignore[reportArgumentType] - every kind of batch is a dataclass


@dataclass
class SwapBatch(TensorBatch):
    """B samples in the order of their roles (see `SampleRoles`).

    Args:
        pixels (`torch.Tensor`): (B, 3, S, S), targets, RGB in [-1, 1].
        mask (`torch.Tensor`): (B, 1, S, S), 1 = repaint.
        landmarks (`torch.Tensor`): (B, 68, 2), of the targets, in pixels.
        source_pixels (`torch.Tensor`): (B, 3, S, S), augmented, RGB in [-1, 1].
        source_mask (`torch.Tensor`): (B, 1, S, S), 1 = shown.
        identity_embeds (`torch.Tensor`): (B, D), of the sources, by the recogniser that prepared the faces.
        indices (`torch.Tensor`): (B,), numbers of the samples in the run.
        num_cross_identity (`int`): How many cross-identity samples there are.
        num_self_reconstruction (`int`): How many self-reconstruction samples come next.
        reference (`torch.Tensor`, *optional*): (B, 3, S, S), the sources' faces rendered on the targets, RGB in
            [-1, 1]; none where the checkpoint does not show references.
        reference_mask (`torch.Tensor`, *optional*): (B, 1, S, S), 1 = `reference` shows something; everywhere if none.
    """

    pixels: torch.Tensor
    mask: torch.Tensor
    landmarks: torch.Tensor
    source_pixels: torch.Tensor
    source_mask: torch.Tensor
    identity_embeds: torch.Tensor
    indices: torch.Tensor
    num_cross_identity: int
    num_self_reconstruction: int
    reference: torch.Tensor | None = None
    reference_mask: torch.Tensor | None = None


class SwapSamples(Dataset):
    """Samples of a run. Sample k depends on its number alone.

    Args:
        faces (`PreparedFaces`): At the checkpoint's crop size.
        config (`SampleConfig`): How to draw.
        roles (`SampleRoles`): Of the samples.
        global_batch_size (`int`): Samples of a step in all processes: cross-identity sources come out of these.
        seed (`int`): The run's.
        geometry_coefficients (`torch.Tensor`, *optional*): (58, 136), of the conditioner, for pixels of these crops;
            none: landmarks keep their owner's geometry.
        references (`TrainingReferences`, *optional*): Draws what the hidden part of the targets shows, for checkpoints
            that show references.

    Raises:
        ValueError: If cross-identity samples are wanted of faces that are all one person's, or a mask set has labels
            that the faces' parser does not know.
    """

    def __init__(
        self,
        faces: PreparedFaces,
        config: SampleConfig,
        roles: SampleRoles,
        global_batch_size: int,
        seed: int = 0,
        geometry_coefficients: torch.Tensor | None = None,
        references: TrainingReferences | None = None,
    ):
        self.mask_sets = parse_mask_sets(config.mask_sets)
        check_mask_sets(self.mask_sets, faces.label_names)
        self.faces, self.config, self.references = faces, config, references
        self.roles, self.global_batch_size, self.seed = roles, global_batch_size, seed
        self.rows_of: dict[str, list[int]] = defaultdict(list)
        for row, identity in enumerate(faces.identities):
            self.rows_of[identity].append(row)
        if roles.num_cross_identity and len(self.rows_of) < 2:
            raise ValueError(
                f"all {len(faces)} faces are of one person, {faces.identities[0]!r}: add faces of others, or train "
                "with --cross_identity_share 0"
            )
        self.basis = thin_plate_basis(faces.resolution)
        self.geometry = None
        if geometry_coefficients is not None:
            landmarks = np.stack([dlib68(points) for points in faces.column("landmarks")])
            head_pose, blendshapes = (torch.from_numpy(faces.column(name)) for name in ("head_pose", "blendshapes"))
            landmarks = torch.from_numpy(landmarks)
            self.geometry = identity_geometry(landmarks, head_pose, blendshapes, geometry_coefficients)

    @property
    def summary(self) -> FacesSummary:
        """Description of these samples."""
        return self.faces.summary

    def row(self, index: int) -> int:
        """The face that is the target of a sample: each comes once an epoch, in a new order."""
        return row_of_sample(self.seed, index, len(self.faces))

    def source_row(self, index: int, generator: torch.Generator) -> int:
        """The face whose identity a sample gets."""
        row, role = self.row(index), self.roles.of(index)
        if role == "cross_identity":
            partner = self._partners(index // self.global_batch_size)[index % self.global_batch_size]
            return self._draw_other_person(row, generator) if partner is None else partner
        others = [other for other in self.rows_of[self.faces.identities[row]] if other != row]
        if others and draw_uniform(generator) < self.config.pair_probability:
            return others[choose(len(others), generator)]
        return row

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """Makes the sample of a number: the tensors of a `SwapBatch`, without the batch's dimension."""
        generator = generator_for(self.seed, "sample", index)
        row, source_row = self.row(index), self.source_row(index, generator)
        target = self.faces[row]
        source = target if source_row == row else self.faces[source_row]
        cross_identity = self.roles.of(index) == "cross_identity"
        mask_set = draw_mask_set(self.mask_sets, generator, repaints_face=cross_identity)
        mirrored, source_mirrored = draw_uniform(generator) < 0.5, draw_uniform(generator) < 0.5
        shown = self._shown(source, mask_set, source_mirrored, generator)
        pixels, free = self._occlude(target, generator)
        sample = {
            "pixels": flip(pixels, mirrored).float() / 127.5 - 1,
            "mask": self._hidden(target, mask_set, mirrored, generator) * flip(free, mirrored),
            "landmarks": self._landmarks(target, row, source_row if cross_identity else None, mirrored, generator),
            "source_pixels": shown[:3],
            "source_mask": shown[3:],
            "identity_embeds": self._identity(source, source_mirrored, generator),
            "indices": torch.tensor(index),
        }
        if self.references is not None:
            shape = self._shape(row, source_row) if cross_identity else None
            shown = flip(self.references.draw(target, source, mask_set.hidden, generator, shape), mirrored)
            sample |= {"reference": shown[:3], "reference_mask": shown[3:]}
        return sample

    def collate(self, samples: list[dict[str, torch.Tensor]]) -> SwapBatch:
        """Puts samples into a batch, in the order of their roles."""
        order = ("cross_identity", "self_reconstruction", "denoising")
        ordered = sorted(samples, key=lambda sample: order.index(self.roles.of(int(sample["indices"]))))
        count = Counter(self.roles.of(int(sample["indices"])) for sample in samples)
        stacked = {name: torch.stack([sample[name] for sample in ordered]) for name in ordered[0]}
        return SwapBatch(**stacked, num_cross_identity=count[order[0]], num_self_reconstruction=count[order[1]])

    @lru_cache(maxsize=2)  # noqa: B019 - one dataset lives as long as the run
    def _partners(self, step: int) -> list[int | None]:
        """For each sample of a step, the row of another person among the step's targets."""
        size = self.global_batch_size
        rows = [self.row(step * size + offset) for offset in range(size)]
        identities = [self.faces.identities[row] for row in rows]
        partners = derange(identities, generator_for(self.seed, "step", step))
        return [None if partner is None else rows[partner] for partner in partners]

    def _draw_other_person(self, row: int, generator: torch.Generator) -> int:
        identity = self.faces.identities[row]
        others = [other for other in range(len(self.faces)) if self.faces.identities[other] != identity]
        return others[choose(len(others), generator)]

    def _region(self, face: FaceRecord, region: str, mirrored: bool) -> torch.Tensor:
        """The mask (1, S, S) of a region of a picture, mirrored like it."""
        mask = region_or_face(face.labels, face.landmarks, region, self.faces.label_names)
        return flip(torch.from_numpy(mask)[None], mirrored)

    def _shown(
        self, source: FaceRecord, mask_set: MaskSet, mirrored: bool, generator: torch.Generator
    ) -> torch.Tensor:
        """The source and the mask of its visible part, (4, S, S)."""
        pixels = flip(source.pixels, mirrored).float() / 127.5 - 1
        return augment_source(torch.cat([pixels, self._region(source, mask_set.shown, mirrored)]), generator)

    def _occlude(self, target: FaceRecord, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """Pixels (3, S, S) uint8 of a target, of some behind something, and (1, S, S) float32, 1 where nothing is."""
        rng = np.random.default_rng(choose(2**31, generator))
        if rng.random() >= self.config.occluded_targets:
            return target.pixels, torch.ones(1, *target.pixels.shape[1:])
        picture = to_rgb(self.faces[int(rng.integers(len(self.faces)))])
        occluder = draw_occluder(target.landmarks, picture, rng)
        pixels = torch.from_numpy(occluder.over(to_rgb(target))).permute(2, 0, 1)
        return pixels, torch.from_numpy(1 - occluder.alpha)[None]

    def _hidden(
        self, target: FaceRecord, mask_set: MaskSet, mirrored: bool, generator: torch.Generator
    ) -> torch.Tensor:
        mask = self._region(target, mask_set.hidden, mirrored)
        max_sigma = self.faces.resolution / 64  # swaps are feathered
        if draw_uniform(generator) < self.config.warped_masks:
            mask = torch.maximum(mask, warp_mask(mask, self.basis, generator))
        return soften(mask, max_sigma, generator)

    def _landmarks(
        self, target: FaceRecord, row: int, source_row: int | None, mirrored: bool, generator: torch.Generator
    ) -> torch.Tensor:
        """The target's 68 points, with the geometry of the source; where it has a source of its own, of anybody."""
        landmarks = torch.from_numpy(dlib68(target.landmarks)).float()
        if self.geometry is not None:
            other = choose(len(self.faces), generator) if source_row is None else source_row
            share = self.config.geometry_share * draw_uniform(generator)
            landmarks = exchange_geometry(landmarks, self.geometry[row], self.geometry[other], share)
        if mirrored:
            landmarks = mirrored_landmarks68(landmarks, self.faces.resolution)
        noise = self.config.landmark_noise * self.faces.resolution / 128
        return landmarks + noise * torch.randn(landmarks.shape, generator=generator)

    def _shape(self, row: int, source_row: int) -> torch.Tensor | None:
        """By how many pixels (68, 2) the source's facial shape moves the target's landmarks in a swap."""
        if self.geometry is None:
            return None
        return self.config.geometry_share * (self.geometry[source_row] - self.geometry[row])

    def _identity(self, source: FaceRecord, mirrored: bool, generator: torch.Generator) -> torch.Tensor:
        embeds = source.identity_embeds[int(mirrored)]
        noise = self.config.identity_noise * torch.randn(embeds.shape, generator=generator)
        return torch.nn.functional.normalize(embeds + noise, dim=0)


class StepBatches:
    """Numbers of the samples of each batch that one process takes, for `DataLoader(batch_sampler=...)`.

    A step's samples follow one another; processes and accumulated batches take their parts in turn, so that a step is
    made of the same samples however they are divided.

    Args:
        batch_size (`int`): Samples of one batch.
        first_step, last_step (`int`): Steps to make, the last one not included.
        num_accumulated (`int`): Batches of a step in each process.
        process_index, num_processes (`int`): Which process of how many.
    """

    def __init__(
        self,
        batch_size: int,
        first_step: int,
        last_step: int,
        num_accumulated: int = 1,
        process_index: int = 0,
        num_processes: int = 1,
    ):
        self.batch_size, self.num_processes, self.process_index = batch_size, num_processes, process_index
        self.first, self.last = first_step * num_accumulated, last_step * num_accumulated

    def __len__(self) -> int:
        """Number of batches."""
        return self.last - self.first

    def __iter__(self) -> Iterator[list[int]]:
        """Yields lists of `batch_size` numbers."""
        for batch in range(self.first, self.last):
            start = (batch * self.num_processes + self.process_index) * self.batch_size
            yield list(range(start, start + self.batch_size))


def flip(image: torch.Tensor, mirrored: bool) -> torch.Tensor:
    """A picture (C, H, W), or its mirror image."""
    return image.flip(-1) if mirrored else image
