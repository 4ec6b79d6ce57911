"""Mask shuffling (arXiv 2409.07269, section 3.4): hidden and visible regions change from sample to sample."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import REGIONS, repaint_mask


@dataclass(frozen=True)
class MaskSet:
    """What a sample hides of its target and shows of its source.

    Args:
        hidden (`str`): Region of the target to repaint, a key of `masks.regions.REGIONS`.
        shown (`str`): Region of the source to see.
    """

    hidden: str
    shown: str


MASK_SETS = {
    "face": MaskSet(hidden="face", shown="face"),
    "head": MaskSet(hidden="head", shown="head"),
    "hair": MaskSet(hidden="hair", shown="hair"),
    "features": MaskSet(hidden="features", shown="face"),
    "accessories": MaskSet(hidden="accessories", shown="accessories"),
}
"""By name. REFace's released code trains on "face" alone, its paper on "face" and "head".

A part of the face is repainted while the whole face is shown, as in a swap.
"""

MINIMAL_SHARE = 1 / 256
"""A region that takes a smaller share of the crop counts as absent: of 32 x 32 latents it would hide less than 4."""


def parse_mask_sets(choices: Sequence[str]) -> dict[str, float]:
    """Reads how often each mask set is drawn.

    Args:
        choices (`Sequence[str]`): Each a key of `MASK_SETS`, with its weight after "=" or of weight 1:
            `["face=0.6", "head=0.4"]`.

    Returns:
        `dict[str, float]`: Shares that sum to 1, by name.

    Raises:
        ValueError: If there is none, a name is unknown, or a weight is no positive number.
    """
    if not choices:
        raise ValueError(f"got no mask set; choose at least one of {', '.join(MASK_SETS)}")
    weights = dict(_parse_mask_set(choice) for choice in choices)
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


def _parse_mask_set(choice: str) -> tuple[str, float]:
    name, _, number = choice.partition("=")
    if name not in MASK_SETS:
        raise ValueError(f"got mask set {name!r}; choose among {', '.join(MASK_SETS)}")
    try:
        weight = float(number or 1)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise ValueError(f"got mask set {choice!r}; its weight must be a positive number, as in {name}=0.5")
    return name, weight


def check_mask_sets(names: Iterable[str], label_names: Sequence[str]) -> None:
    """Makes sure that a face parser knows what the mask sets are about; they would fall back to the face otherwise.

    Args:
        names (`Iterable[str]`): Keys of `MASK_SETS`.
        label_names (`Sequence[str]`): Classes of the parser.

    Raises:
        ValueError: If it has none of the labels of a set.
    """
    for name in names:
        labels = REGIONS[MASK_SETS[name].hidden]
        if labels.isdisjoint(label_names):
            raise ValueError(
                f"got mask set {name!r}, but the masks have no {' or '.join(sorted(labels))}; leave it out, "
                "or prepare the faces with a parser that distinguishes them"
            )


def draw_mask_set(weights: Mapping[str, float], generator: torch.Generator, repaints_face: bool = False) -> MaskSet:
    """Draws a sample's mask set.

    Args:
        weights (`Mapping[str, float]`): As `parse_mask_sets` returns them.
        generator (`torch.Generator`): The sample's.
        repaints_face (`bool`): Draw only among sets that hide the whole face: a source of another person would
            otherwise change nothing that identifies a person.

    Raises:
        ValueError: If no set is left to draw from.
    """
    names = [name for name in weights if not repaints_face or REGIONS["face"] <= REGIONS[MASK_SETS[name].hidden]]
    if not names:
        raise ValueError(f"got mask sets {', '.join(weights)}; another person's face needs face or head among them")
    index = torch.multinomial(torch.tensor([weights[name] for name in names]), 1, generator=generator)
    return MASK_SETS[names[int(index)]]


def region_or_face(
    labels: np.ndarray, landmarks: np.ndarray, region: str, label_names: Sequence[str] = LABELS
) -> np.ndarray:
    """The mask of a region, or of the face where the picture lacks the region: a bald head, no glasses.

    Args:
        labels (`np.ndarray`): (S, S) uint8, indices into `label_names`.
        landmarks (`np.ndarray`): (478, 2) or (68, 2), x, y in crop pixels.
        region (`str`): A key of `masks.regions.REGIONS`.
        label_names (`Sequence[str]`): What the labels mean: those of our parser if left out.

    Returns:
        `np.ndarray`: (S, S) float32, 1 inside.
    """
    mask = repaint_mask(labels, landmarks, region, label_names)
    return mask if mask.mean() >= MINIMAL_SHARE else repaint_mask(labels, landmarks, "face", label_names)
