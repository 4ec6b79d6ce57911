"""Compares the records of swaps, sources and targets: one value for each metric and pair."""

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
    "occluder_unchanged", "free_left_alone", "occlusion_iou", "bare_covered",
)  # fmt: skip
"""Metrics that are stored in a swap's record."""


@dataclass(frozen=True)
class PairRecords:
    """Records of several pairs, in the same order.

    Args:
        swap, source, target (`Sequence[Record]`): One record for each pair.
    """

    swap: Sequence[Record]
    source: Sequence[Record]
    target: Sequence[Record]

    def stacked(self, name: str, *shape: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Stacks an array of swaps, sources and targets to (N, *shape) each; NaN if a record lacks it."""

        def rows(records: Sequence[Record]) -> np.ndarray:
            stacked = stack(records, name)
            return np.full((len(records), *shape), np.nan) if stacked is None else stacked

        return rows(self.swap), rows(self.source), rows(self.target)


def compare(records: PairRecords, galleries: dict[str, np.ndarray], people: np.ndarray) -> dict[str, np.ndarray]:
    """Computes every metric of several pairs.

    Args:
        records ([`PairRecords`]): Records of N pairs.
        galleries (`dict[str, np.ndarray]`): Gallery (M, D) for each recogniser and `{recogniser}_masked`.
        people (`np.ndarray`): (N, 2) int, gallery rows of source and target.

    Returns:
        `dict[str, np.ndarray]`: (N,) float for each metric; rates are 0 or 1, and 0 if no face was found.
    """
    values = {"detected": np.array([float(record["detected"]) for record in records.swap])}
    for name, gallery in galleries.items():
        values |= {f"{name}_{key}": value for key, value in identity_metrics(records, name, gallery, people).items()}
    values |= pose_metrics(records) | expression_metrics(records) | color_metrics(records)
    for name in MEASURED:
        rows = stack(records.swap, name)
        if rows is not None:
            values[name] = rows
    return values


def identity_metrics(
    records: PairRecords, recognizer: str, gallery: np.ndarray, people: np.ndarray
) -> dict[str, np.ndarray]:
    """Identity metrics of one recogniser.

    If source and target are the same person, comparing the distances to both is meaningless: these metrics are NaN,
    and left out if this holds for all pairs.
    """
    swap, source, target = records.stacked(recognizer, gallery.shape[1])
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


def pose_metrics(records: PairRecords) -> dict[str, np.ndarray]:
    """Errors of the head pose."""
    swap, source, target = records.stacked("head_pose", 3)
    errors = metrics.pose_errors(swap, target)
    values = {
        "pose_error": errors,
        "pose_within_goal": (errors <= POSE_GOAL_DEGREES).astype(float),
        "yaw_error": np.abs(swap - target)[:, 0],
        "pose_distance_source_to_target": metrics.pose_errors(source, target),
    }
    if any("rotation" in record for record in records.target):
        rotation, _, wanted = records.stacked("rotation", 3, 3)
        values["6drepnet_pose_error"] = metrics.rotation_angles(rotation, wanted)
    return values


def expression_metrics(records: PairRecords) -> dict[str, np.ndarray]:
    """Errors of expression, gaze, mouth and landmarks."""
    swap, source, target = records.stacked("blendshapes", 52)
    landmarks, _, wanted = records.stacked("landmarks68", 68, 2)
    return {
        "expression_error": metrics.mean_absolute_difference(swap, target, metrics.EXPRESSION),
        "expression_closer_to_target": metrics.expression_closer_to_target(swap, source, target).astype(float),
        "gaze_error": metrics.mean_absolute_difference(swap, target, metrics.GAZE),
        "mouth_opening_error": metrics.mouth_opening_errors(landmarks, wanted),
        "landmark_error": metrics.landmark_errors(landmarks, wanted),
    }


def color_metrics(records: PairRecords) -> dict[str, np.ndarray]:
    """Errors of light and skin tone."""
    light, _, target_light = records.stacked("light", 9)
    skin, source_skin, target_skin = records.stacked("skin", 3)
    return {
        "light_angle": light_angles(light, target_light),
        "light_energy_error": light_energy_errors(light, target_light),
        "skin_tone_to_target": metrics.color_differences(skin, target_skin),
        "skin_tone_to_source": metrics.color_differences(skin, source_skin),
    }
