"""Training samples of the swap model: drawn from measured faces, target and source as tensors."""

from dataclasses import dataclass, replace

import torch

from faceswap_diffusion.conditioning.geometry import exchange_geometry, fit_geometry, identity_geometry
from faceswap_diffusion.training.augmentation import augment_sources, soften, thin_plate_basis, warp_masks
from faceswap_diffusion.training.measurements import MIRRORED_DLIB68


@dataclass
class SwapBatch:
    """B samples. The first `num_cross` have a source of another person, the others source and target in one picture.

    Args:
        pixels (`torch.Tensor`): (B, 3, S, S), targets, RGB in [-1, 1].
        latents (`torch.Tensor`): (B, 4, h, w), of the targets, unscaled.
        mask (`torch.Tensor`): (B, 1, S, S), 1 = repaint.
        landmarks (`torch.Tensor`): (B, 68, 2), of the targets, in pixels.
        source_pixels (`torch.Tensor`): (B, 3, S, S), augmented.
        source_mask (`torch.Tensor`): (B, 1, S, S), 1 = shown.
        identity_embeds (`torch.Tensor`): (B, 128), of the sources.
        num_cross (`int`): Samples whose source is another person.
    """

    pixels: torch.Tensor
    latents: torch.Tensor
    mask: torch.Tensor
    landmarks: torch.Tensor
    source_pixels: torch.Tensor
    source_mask: torch.Tensor
    identity_embeds: torch.Tensor
    num_cross: int

    def to(self, device: torch.device | str) -> "SwapBatch":
        """The same samples on a device."""
        tensors = {name: value for name, value in vars(self).items() if isinstance(value, torch.Tensor)}
        return replace(self, **{name: tensor.to(device) for name, tensor in tensors.items()})


class SwapSampler:
    """Draws training batches.

    Args:
        measured (`dict[str, torch.Tensor]`): As `measure_faces` returns them.
        latents (`torch.Tensor`): (N, 2, 4, h, w), unscaled, of every picture and of its mirror image.
        head_share (`float`): Share of the samples whose hair is hidden with the face.
        identity_noise (`float`): Standard deviation added to each coordinate of an identity embedding: two photos of
            one person lie about that far apart.
        landmark_noise (`float`): Standard deviation in pixels: what detectors disagree by.
        geometry_share (`float`): Up to which share somebody else's geometry replaces the target's in its landmarks:
            the source's, or that of anybody where source and target are one.
    """

    def __init__(
        self,
        measured: dict[str, torch.Tensor],
        latents: torch.Tensor,
        head_share: float = 0.35,
        identity_noise: float = 0.025,
        landmark_noise: float = 0.4,
        geometry_share: float = 0.8,
    ):
        self.measured = measured
        self.latents = latents
        self.head_share = head_share
        self.identity_noise = identity_noise
        self.landmark_noise = landmark_noise
        self.geometry_share = geometry_share
        explained = measured["landmarks"], measured["head_pose"], measured["blendshapes"]
        self.geometry = identity_geometry(*explained, fit_geometry(*explained))
        self.size = measured["pixels"].shape[1]
        self.basis = thin_plate_basis(self.size)

    def __len__(self) -> int:
        """Number of faces."""
        return len(self.measured["pixels"])

    def draw(self, rows: torch.Tensor, num_cross: int) -> SwapBatch:
        """Makes a batch whose targets are `rows`; the first `num_cross` get the source of the sample after them."""
        sources = rows.clone()
        sources[:num_cross] = rows[:num_cross].roll(1)
        mirrored = torch.rand(len(rows)) < 0.5
        source_mirrored = torch.rand(len(rows)) < 0.5
        head = torch.rand(len(rows)) < self.head_share
        shown = torch.cat([self._pixels(sources, source_mirrored), self._region(sources, source_mirrored, head)], 1)
        augmented = augment_sources(shown)
        others = torch.randint(len(self), (len(rows),))
        others[:num_cross] = sources[:num_cross]
        return SwapBatch(
            pixels=self._pixels(rows, mirrored),
            latents=self.latents[rows, mirrored.long()].float(),
            mask=self._hidden(rows, mirrored, head),
            landmarks=self._landmarks(rows, others, mirrored),
            source_pixels=augmented[:, :3],
            source_mask=augmented[:, 3:],
            identity_embeds=self._identity(sources, source_mirrored),
            num_cross=num_cross,
        )

    def _pixels(self, rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        return self._flip(self.measured["pixels"][rows].permute(0, 3, 1, 2).float() / 127.5 - 1, mirrored)

    def _mask(self, name: str, rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        return self._flip(self.measured[name][rows].float()[:, None] / 255, mirrored)

    def _flip(self, images: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        return torch.where(mirrored[:, None, None, None], images.flip(-1), images)

    def _region(self, rows: torch.Tensor, mirrored: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        """Masks (B, 1, S, S) of the head where `head` (B,) says so, of the face elsewhere."""
        return torch.where(
            head[:, None, None, None], self._mask("head_mask", rows, mirrored), self._mask("face_mask", rows, mirrored)
        )

    def _hidden(self, rows: torch.Tensor, mirrored: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
        masks = self._region(rows, mirrored, head)
        return soften(torch.maximum(masks, warp_masks(masks, self.basis)), max_sigma=2.0)

    def _landmarks(self, rows: torch.Tensor, others: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        share = self.geometry_share * torch.rand(len(rows), 1, 1)
        landmarks = self.measured["landmarks"][rows]
        landmarks = exchange_geometry(landmarks, self.geometry[rows], self.geometry[others], share)
        flipped = landmarks[:, MIRRORED_DLIB68] * torch.tensor([-1.0, 1.0]) + torch.tensor([self.size - 1.0, 0.0])
        chosen = torch.where(mirrored[:, None, None], flipped, landmarks)
        return chosen + self.landmark_noise * torch.randn_like(chosen)

    def _identity(self, rows: torch.Tensor, mirrored: torch.Tensor) -> torch.Tensor:
        embeds = self.measured["identity_embeds"][rows, mirrored.long()]
        return torch.nn.functional.normalize(embeds + self.identity_noise * torch.randn_like(embeds))
