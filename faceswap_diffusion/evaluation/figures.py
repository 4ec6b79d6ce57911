"""Names, units, goals and order of the figures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

PERCENT, DEGREES, RATIO, NUMBER, SECONDS, COUNT, DECIBELS, MEGABYTES = (
    "{:.1%}", "{:.1f}°", "{:.2f}", "{:.3f}", "{:.2f} s", "{:.0f}", "{:.1f} dB", "{:.0f} MB",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One figure of the report.

    Args:
        key (`str`): Name in JSON and CSV.
        label (`str`): Name in tables.
        form (`str`): Format of the value.
        better (`str`): "higher", "lower", or "" if neither is better.
        goal (`str`): What a released model should reach.
    """

    key: str
    label: str
    form: str
    better: str = ""
    goal: str = ""


GOALS = {
    "sface_closer_to_source": ">= 80 %",
    "w600k_closer_to_source": ">= 60 %",
    "sface_retrieves_source": ">= 30 % (london)",
}
IDENTITY_ROWS = (
    Row("closer_to_source", "closer to the source than to the target", PERCENT, "higher"),
    Row("retrieves_source", "nearest face of the gallery is the source (top-1)", PERCENT, "higher"),
    Row("top5_source", "the source is among the five nearest (top-5)", PERCENT, "higher"),
    Row("retrieves_target", "nearest face of the gallery is the target", PERCENT, "lower"),
    Row("cosine_to_source", "mean cosine to the source", NUMBER, "higher"),
    Row("cosine_to_target", "mean cosine to the target (leak)", NUMBER, "lower"),
    Row("cosine_source_to_target", "mean cosine of source and target", NUMBER),
)
OTHER_ROWS = (
    Row("pose_error", "head pose error (mesh), mean", DEGREES, "lower", "<= 6° (turned)"),
    Row("pose_within_goal", "head pose within 6°", PERCENT, "higher"),
    Row("yaw_error", "yaw error, mean", DEGREES, "lower"),
    Row("pose_distance_source_to_target", "head poses of source and target, mean distance", DEGREES),
    Row("6drepnet_pose_error", "head pose error (6DRepNet360, angle of rotation)", DEGREES, "lower"),
    Row("expression_closer_to_target", "blendshapes closer to the target's than to the source's", PERCENT, "higher",
        ">= 75 %"),
    Row("expression_error", "expression error (L1 of 51 blendshapes)", NUMBER, "lower"),
    Row("gaze_error", "gaze error (L1 of 8 blendshapes)", NUMBER, "lower"),
    Row("mouth_opening_error", "mouth opening error / eye distance", NUMBER, "lower"),
    Row("landmark_error", "landmark error / eye distance", NUMBER, "lower"),
    Row("light_angle", "direction of the light, error", DEGREES, "lower"),
    Row("light_energy_error", "strength of the shading, error", NUMBER, "lower"),
    Row("skin_tone_to_target", "skin tone, distance to the target's (CIELAB)", RATIO, "lower"),
    Row("skin_tone_to_source", "skin tone, distance to the source's (CIELAB)", RATIO),
    Row("sharpness_crop", "sharpness, swap / target, at crop resolution", RATIO, "", ">= 0.5"),
    Row("sharpness_photo", "sharpness, swap / target, at photo resolution", RATIO, "", ">= 0.5"),
    Row("border_step", "colour step at the border, swap / target", RATIO, "lower", "<= 1.5"),
    Row("unpainted_identical", "identical to the bit outside the method's own mask", PERCENT, "higher", "100 %"),
    Row("background_identical", "background (outside the target's face) identical to the bit", PERCENT, "higher"),
    Row("background_psnr", "background PSNR (100 dB: identical)", DECIBELS, "higher"),
    Row("background_ssim", "background SSIM", NUMBER, "higher"),
    Row("background_lpips", "background LPIPS (VGG16)", NUMBER, "lower"),
    Row("occluder_unchanged", "things in front of the face left as they were (within 4 of 255)", PERCENT, "higher",
        ">= 97 %"),
    Row("free_left_alone", "face with nothing in front of it left alone", PERCENT, "lower", "<= 4 %"),
    Row("occlusion_iou", "mask of what is in front, IoU with what was drawn", NUMBER, "higher", ">= 0.90"),
    Row("bare_covered", "share of bare faces taken for covered", PERCENT, "lower", "<= 1 %"),
    Row("face_psnr", "face PSNR against the target, which is the truth (100 dB: identical)", DECIBELS, "higher"),
    Row("face_lpips", "face LPIPS (VGG16) against the target, which is the truth", NUMBER, "lower"),
    Row("fid", "FID (Inception, 2048)", RATIO, "lower"),
    Row("kid", "KID (Inception, x 1000)", RATIO, "lower"),
    Row("clip_fd", "CLIP-FD (ViT-B/32, 512)", NUMBER, "lower"),
    Row("seconds", "seconds per swap, median", SECONDS, "lower", "<= 3 s"),
    Row("peak_memory_mb", "peak memory, measuring networks included", MEGABYTES, "lower"),
)  # fmt: skip
SCALES = {"kid": 1000.0}
REFACE_ROWS = (
    Row("ir_se50_masked_retrieves_source", "ID retrieval top-1 (IR-SE50, masked)", PERCENT, "higher"),
    Row("ir_se50_masked_top5_source", "ID retrieval top-5 (IR-SE50, masked)", PERCENT, "higher"),
    Row("ir_se50_masked_cosine_to_source", "ID cosine (IR-SE50, masked)", NUMBER, "higher"),
    Row("hopenet_pose_error", "Pose (HopeNet, L2)", RATIO, "lower"),
    Row("deep3dfacerecon_expression_error", "Expression (Deep3DFaceRecon, L2 of 64)", RATIO, "lower"),
    Row("clip_fd", '"FID" (in truth CLIP-FD, ViT-B/32, 512)', RATIO, "lower"),
)
REFACE_NETWORKS = {
    "ir_se50_masked_retrieves_source": "ir_se50",
    "ir_se50_masked_top5_source": "ir_se50",
    "ir_se50_masked_cosine_to_source": "ir_se50",
    "hopenet_pose_error": "hopenet",
    "deep3dfacerecon_expression_error": "deep3dfacerecon",
    "clip_fd": "clip",
}
NEVER_AVAILABLE = {
    "hopenet": "not available: REFace's hopenet_robust_alpha1.pkl is in no package, and we do not know its SHA-256",
    "deep3dfacerecon": "not available: REFace's Deep3DFaceRecon needs the Basel Face Model, which is available on "
    "application only",
}


def figure_rows(recognizers: Sequence[str]) -> list[Row]:
    """All rows of the report in order, including those of each recogniser with and without mask."""
    rows = [Row("pairs", "swaps", COUNT), Row("detected", "face detected in the swap", PERCENT, "higher", "100 %")]
    for name in recognizers:
        for suffix, note in (("", ""), ("_masked", ", masked")):
            for row in IDENTITY_ROWS:
                key = f"{name}{suffix}_{row.key}"
                rows.append(Row(key, f"{name}{note}: {row.label}", row.form, row.better, GOALS.get(key, "")))
    return [*rows, *OTHER_ROWS]


def show(row: Row, value: float | None) -> str:
    """A figure with its unit; a dash if there is none."""
    if value is None or math.isnan(value):
        return "-"
    return row.form.format(value * SCALES.get(row.key, 1.0))
