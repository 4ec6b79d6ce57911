"""From the records of swaps, sources and targets to one value for each metric and pair."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from faceswap_diffusion.evaluation.records import Record, stack
from faceswap_diffusion.faces.lighting import light_angles, light_energy_errors
from faceswap_diffusion.metrics import faces as metrics

POSE_GOAL_DEGREES = 6.0
TOP = 5
MEASURED = (
    "sharpness_crop", "sharpness_photo", "border_step", "seconds", "peak_memory_mb",
    "background_psnr", "background_ssim", "background_lpips", "background_identical",
    "unpainted_identical", "face_psnr", "face_lpips",
)  # fmt: skip
"""Figures that a swap's record holds as they are."""


@dataclass(frozen=True)
class Roles:
    """Records of some pairs, row by row.

    Args:
        swap, source, target (`Sequence[Record]`): Of each pair.
    """

    swap: Sequence[Record]
    source: Sequence[Record]
    target: Sequence[Record]

    def stacked(self, name: str, *shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One array of `shape` of swaps, sources and targets, (N, *shape) each; NaN where a record lacks it."""

        def rows(records: Sequence[Record]) -> np.ndarray:
            stacked = stack(records, name)
            return np.full((len(records), *shape), np.nan) if stacked is None else stacked

        return rows(self.swap), rows(self.source), rows(self.target)


def compare(roles: Roles, galleries: dict[str, np.ndarray], people: np.ndarray) -> dict[str, np.ndarray]:
    """Every metric of some pairs.

    Args:
        roles ([`Roles`]): Records of N pairs.
        galleries (`dict[str, np.ndarray]`): For each recogniser (and `{recogniser}_masked`) (M, D).
        people (`np.ndarray`): (N, 2) int, rows of the gallery that show source and target.

    Returns:
        `dict[str, np.ndarray]`: (N,) float for each metric; rates are 0 or 1, and 0 where no face was found.
    """
    values = {"detected": np.array([float(record["detected"]) for record in roles.swap])}
    for name, gallery in galleries.items():
        values |= {f"{name}_{key}": value for key, value in identity_values(roles, name, gallery, people).items()}
    values |= pose_values(roles) | expression_values(roles) | color_values(roles)
    for name in MEASURED:
        rows = stack(roles.swap, name)
        if rows is not None:
            values[name] = rows
    return values


def identity_values(roles: Roles, recognizer: str, gallery: np.ndarray, people: np.ndarray) -> dict[str, np.ndarray]:
    """What one recogniser says: whose face the swaps show.

    Where a pair's source and target are one person, whom the swap is closer to says nothing: that is NaN, and left out
    if all pairs are such.
    """
    swap, source, target = roles.stacked(recognizer, gallery.shape[1])
    to_source, to_target = metrics.cosines(swap, source), metrics.cosines(swap, target)
    source_rank = metrics.rank_in_gallery(swap, gallery, people[:, 0])
    target_rank = metrics.rank_in_gallery(swap, gallery, people[:, 1])
    values = {
        "retrieves_source": (source_rank == 0).astype(float),
        "top5_source": (source_rank < TOP).astype(float),
        "cosine_to_source": to_source,
        "cosine_to_target": to_target,
        "cosine_source_to_target": metrics.cosines(source, target),
    }
    one_person = people[:, 0] == people[:, 1]
    if not one_person.all():
        values["closer_to_source"] = np.where(one_person, np.nan, to_source > to_target)
        values["retrieves_target"] = np.where(one_person | (people[:, 1] < 0), np.nan, target_rank == 0)
    return values


def pose_values(roles: Roles) -> dict[str, np.ndarray]:
    """Whether the swaps hold their heads as the targets do."""
    swap, source, target = roles.stacked("head_pose", 3)
    errors = metrics.pose_errors(swap, target)
    values = {
        "pose_error": errors,
        "pose_within_goal": (errors <= POSE_GOAL_DEGREES).astype(float),
        "yaw_error": np.abs(swap - target)[:, 0],
        "pose_distance_source_to_target": metrics.pose_errors(source, target),
    }
    if any("rotation" in record for record in roles.target):
        rotation, _, wanted = roles.stacked("rotation", 3, 3)
        values["6drepnet_pose_error"] = metrics.rotation_angles(rotation, wanted)
    return values


def expression_values(roles: Roles) -> dict[str, np.ndarray]:
    """Whether the swaps look as the targets do."""
    swap, source, target = roles.stacked("blendshapes", 52)
    landmarks, _, wanted = roles.stacked("landmarks68", 68, 2)
    return {
        "expression_error": metrics.mean_absolute_difference(swap, target, metrics.EXPRESSION),
        "expression_closer_to_target": metrics.expression_closer_to_target(swap, source, target).astype(float),
        "gaze_error": metrics.mean_absolute_difference(swap, target, metrics.GAZE),
        "mouth_opening_error": metrics.mouth_opening_errors(landmarks, wanted),
        "landmark_error": metrics.landmark_errors(landmarks, wanted),
    }


def color_values(roles: Roles) -> dict[str, np.ndarray]:
    """Whether light and skin are the target's."""
    light, _, target_light = roles.stacked("light", 9)
    skin, source_skin, target_skin = roles.stacked("skin", 3)
    return {
        "light_angle": light_angles(light, target_light),
        "light_energy_error": light_energy_errors(light, target_light),
        "skin_tone_to_target": metrics.color_differences(skin, target_skin),
        "skin_tone_to_source": metrics.color_differences(skin, source_skin),
    }
