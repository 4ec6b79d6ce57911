"""From the measurements of a set of swaps to one table row: rates, means and their names."""

from collections.abc import Sequence

import numpy as np

from faceswap_diffusion.evaluation import metrics
from faceswap_diffusion.evaluation.measurement import FaceFeatures, SwapMeasurement

POSE_GOAL_DEGREES = 6.0
NUM_BLENDSHAPES = 52


def summarize(
    measurements: Sequence[SwapMeasurement], gallery: Sequence[FaceFeatures | None], recognizers: Sequence[str]
) -> dict[str, float]:
    """Aggregates a set. A face that was not found counts as a failure in every rate.

    Args:
        measurements (`Sequence[SwapMeasurement]`): Not empty.
        gallery (`Sequence[FaceFeatures | None]`): One picture of each person, indexed by the pairs.
        recognizers (`Sequence[str]`): Names of those that measured; each gives columns of its own.

    Returns:
        `dict[str, float]`: Named figures, rates in [0, 1].
    """
    summary: dict[str, float] = {
        "pairs": len(measurements),
        "detected": metrics.rate([measurement.swap is not None for measurement in measurements]),
    }
    for name in recognizers:
        summary |= {f"{name}_{key}": value for key, value in identity_summary(measurements, gallery, name).items()}
    return summary | pose_and_expression_summary(measurements) | picture_summary(measurements)


def identity_summary(
    measurements: Sequence[SwapMeasurement], gallery: Sequence[FaceFeatures | None], recognizer: str
) -> dict[str, float]:
    """What one recogniser says: whose face the swaps show."""

    def embeddings(faces: Sequence[FaceFeatures | None]) -> np.ndarray:
        return stack([None if face is None else face.embeddings[recognizer] for face in faces], dim)

    dim = next(len(face.embeddings[recognizer]) for face in gallery if face is not None)
    swap, source, target = (embeddings(faces_of(measurements, role)) for role in ("swap", "source", "target"))
    nearest = metrics.nearest_in_gallery(swap, embeddings(gallery))
    return {
        "closer_to_source": metrics.rate(metrics.closer_to_source(swap, source, target)),
        "retrieves_source": metrics.rate(nearest == [m.pair.source_person for m in measurements]),
        "retrieves_target": metrics.rate(nearest == [m.pair.target_person for m in measurements]),
        "cosine_to_source": metrics.mean_of_detected(metrics.cosines(swap, source)),
        "cosine_to_target": metrics.mean_of_detected(metrics.cosines(swap, target)),
        "cosine_source_to_target": metrics.mean_of_detected(metrics.cosines(source, target)),
    }


def pose_and_expression_summary(measurements: Sequence[SwapMeasurement]) -> dict[str, float]:
    """Whether the swaps hold their heads, and look, as the targets do."""
    poses, blendshapes = {}, {}
    for role in ("swap", "source", "target"):
        faces = faces_of(measurements, role)
        poses[role] = stack([None if face is None else face.head_pose for face in faces], 3)
        blendshapes[role] = stack([None if face is None else face.blendshapes for face in faces], NUM_BLENDSHAPES)
    errors = metrics.pose_errors(poses["swap"], poses["target"])
    like_target = metrics.expression_closer_to_target(
        blendshapes["swap"], blendshapes["source"], blendshapes["target"]
    )
    return {
        "pose_error": metrics.mean_of_detected(errors),
        "pose_within_goal": metrics.rate(errors <= POSE_GOAL_DEGREES),
        "yaw_error": metrics.mean_of_detected(np.abs(poses["swap"] - poses["target"])[:, 0]),
        "pose_distance_source_to_target": metrics.mean_of_detected(
            metrics.pose_errors(poses["source"], poses["target"])
        ),
        "expression_closer_to_target": metrics.rate(like_target),
    }


def picture_summary(measurements: Sequence[SwapMeasurement]) -> dict[str, float]:
    """How the swaps look, and how long they took."""
    return {
        "sharpness_crop": metrics.mean_of_detected(np.array([m.sharpness_crop for m in measurements])),
        "sharpness_photo": metrics.mean_of_detected(np.array([m.sharpness_photo for m in measurements])),
        "border_step": metrics.mean_of_detected(np.array([m.border_step for m in measurements])),
        "seconds": float(np.nanmedian([m.seconds for m in measurements])),
    }


def faces_of(measurements: Sequence[SwapMeasurement], role: str) -> list[FaceFeatures | None]:
    """The faces `"swap"`, `"source"` or `"target"` of some measurements."""
    return [getattr(measurement, role) for measurement in measurements]


def stack(vectors: Sequence[np.ndarray | None], dim: int) -> np.ndarray:
    """Vectors (dim,) as rows (N, dim); a row of NaN where there is none."""
    return np.stack([np.full(dim, np.nan) if vector is None else vector for vector in vectors])
