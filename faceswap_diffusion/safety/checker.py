"""The safety checker: a component of the pipeline that refuses explicit pictures, and faces like a minor's."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin

from faceswap_diffusion.safety.age import AgeEstimator
from faceswap_diffusion.safety.nsfw import NSFWNet, nsfw_input
from faceswap_diffusion.safety.refusal import RefusedError

if TYPE_CHECKING:
    from typing_extensions import Self

NSFW_THRESHOLD = 0.8
"""Score from which on its authors call a picture explicit."""

MIN_AGE = 15.0
"""Apparent age in years below which a face is refused; see docs/guides/safety.md for how it was chosen."""


class SafetyChecker(ModelMixin, ConfigMixin):
    """Finds explicit pictures, and faces that look like a minor's.

    The weights of its networks are constants of the package, checked by SHA-256; a checkpoint holds the thresholds and
    the age probe. It computes in float32 whatever the other components do.

    Args:
        nsfw_threshold (`float`): Score in [0, 1] from which on a picture is explicit.
        min_age (`float`): Apparent age in years that a face needs.

    Raises:
        ModelFileError: When a file of weights is missing or altered.
    """

    @register_to_config
    def __init__(self, nsfw_threshold: float = NSFW_THRESHOLD, min_age: float = MIN_AGE):
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # what is drawn here is overwritten, and no seed's meaning may change
            self.nsfw = NSFWNet()
            self.age = AgeEstimator()

    def to(self, *args: Any, **kwargs: Any) -> "Self":
        """Moves it to a device; the precision stays, since half of it is many times slower on most CPUs."""
        device, *_ = torch._C._nn._parse_to(*args, **kwargs)  # pyright: ignore[reportAttributeAccessIssue]
        return self if device is None else super().to(device)

    @torch.no_grad()
    def nsfw_scores(self, images: Sequence[np.ndarray]) -> list[float]:
        """How likely pictures are explicit.

        Args:
            images (`Sequence[np.ndarray]`): (H, W, 3) uint8 RGB each, of any size.

        Returns:
            `list[float]`: Probabilities.
        """
        pixel_values = torch.cat([nsfw_input(image) for image in images])
        return self.nsfw(pixel_values.to(self.age.probe_weight.device)).tolist()

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, list[bool]]:
        """Blackens explicit pictures, as Diffusers' own checker does.

        Args:
            images (`torch.Tensor` of shape `(B, 3, H, W)`): RGB in [-1, 1].

        Returns:
            `tuple[torch.Tensor, list[bool]]`: The pictures, black where they are explicit, and whether each is.
        """
        pixels = ((images.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        explicit = [self.is_explicit(score) for score in self.nsfw_scores(list(pixels))]
        black = torch.tensor(explicit, device=images.device)[:, None, None, None]
        return torch.where(black, torch.full_like(images, -1), images), explicit

    def is_explicit(self, score: float) -> bool:
        """Whether a score is that of an explicit picture; what is not a number is."""
        return not score < self.config["nsfw_threshold"]

    def check_picture(self, image: np.ndarray, name: str) -> None:
        """Refuses an explicit picture.

        Args:
            image (`np.ndarray`): (H, W, 3) uint8 RGB.
            name (`str`): What to call it.

        Raises:
            RefusedError: If it is one.
        """
        (score,) = self.nsfw_scores([image])
        if self.is_explicit(score):
            raise RefusedError(f"refused: {name} seems to be explicit (score {score:.2f}); choose another picture")

    def check_age(self, years: float, name: str) -> None:
        """Refuses a face that looks like a minor's.

        Args:
            years (`float`): From `age`.
            name (`str`): What to call the face.

        Raises:
            RefusedError: If it is below `min_age`, or not a number.
        """
        if not years >= self.config["min_age"]:
            raise RefusedError(
                f"refused: {name} seems to be a minor (apparent age {years:.0f}); choose a picture of an adult"
            )


# Diffusers resolves a component's class and its base classes on the module that the class names.
SafetyChecker.__module__ = "faceswap_diffusion"
