"""Measures swaps: their faces, and the differences between their pixels and the target's."""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import torch

from faceswap_diffusion.evaluation.description import CROP_SIZE, FaceMask, Networks, measure_face
from faceswap_diffusion.evaluation.methods import Swap
from faceswap_diffusion.evaluation.records import Record
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix
from faceswap_diffusion.memory import peak_memory
from faceswap_diffusion.metrics import faces as metrics

BACKGROUND_MARGIN = 6  # pixels of the 256 px crop between the face's mask and what counts as background


def measure_swaps(
    networks: Networks, swaps: Sequence[Swap], targets: Sequence[np.ndarray], described: Sequence[Record], size: int
) -> list[dict[str, Any]]:
    """Measures a batch of swaps.

    Args:
        networks ([`Networks`]): The networks that measure.
        swaps (`Sequence[Swap]`): Results of a method.
        targets (`Sequence[np.ndarray]`): Pixels of the targets, (H, W, 3) uint8 RGB.
        described (`Sequence[Record]`): Records of the targets, from `description.measure_face`.
        size (`int`): Side in pixels of the crop in which `sharpness_crop` is measured.

    Returns:
        `list[dict[str, Any]]`: A record for each swap: that of `measure_face`, `sharpness_crop`, `sharpness_photo`
        and `border_step` (swap over target), `background_*`, features for distributions, `seconds`,
        `peak_memory_mb` and the conditions as `condition_*`.
    """
    records = [
        measure_one(networks, swap, target, known, size)
        for swap, target, known in zip(swaps, targets, described, strict=True)
    ]
    for name, network in networks.feature_networks.items():
        for record, features in zip(records, network([swap.rgb for swap in swaps]), strict=True):
            record[name] = features
    add_background_lpips(networks.lpips, records, swaps, targets, described)
    return records


def measure_one(networks: Networks, swap: Swap, target: np.ndarray, known: Record, size: int) -> dict[str, Any]:
    """The record of a swap, except for what networks compute in batches."""
    mask = recorded_mask(known)
    record = measure_face(networks, swap.rgb, mask)
    record |= {f"condition_{name}": value for name, value in swap.conditions.items()}
    record |= {"seconds": swap.seconds, "peak_memory_mb": peak_memory_megabytes()}
    if mask is None:
        return record
    changed = mask.on_photo(target.shape).astype(np.float32) if swap.mask is None else swap.mask
    face = mask.on_photo(target.shape, BACKGROUND_MARGIN)
    record |= {
        "background_psnr": metrics.background_psnr(swap.rgb, target, face),
        "background_ssim": metrics.background_ssim(swap.rgb, target, face),
        "background_identical": np.array_equal(metrics.with_target_inside(swap.rgb, target, face), target),
    }
    if swap.mask is not None:
        record["unpainted_identical"] = np.array_equal(swap.rgb[swap.mask == 0], target[swap.mask == 0])
    return record | sharpness_and_border(swap.rgb, target, changed, ffhq_matrix(known["landmarks68"], size), size)


def sharpness_and_border(
    rgb: np.ndarray, target: np.ndarray, mask: np.ndarray, matrix: np.ndarray, size: int
) -> dict[str, Any]:
    """Sharpness inside the mask of the swap and the colour step at its border, relative to the target.

    Args:
        rgb (`np.ndarray`): (H, W, 3) uint8 RGB, the swap.
        target (`np.ndarray`): (H, W, 3) uint8 RGB.
        mask (`np.ndarray`): (H, W) float in [0, 1].
        matrix (`np.ndarray`): (2, 3), photo pixels to the pixels of a crop of `size`.
        size (`int`): Side of that crop.
    """
    crops = [crop(picture, matrix, size) for picture in (rgb, target, mask)]
    ratios = {
        "sharpness_crop": (metrics.sharpness, crops),
        "sharpness_photo": (metrics.sharpness, [rgb, target, mask]),
        "border_step": (metrics.border_colour_step, [rgb, target, mask]),
    }
    return {name: ratio(metric, *pictures) for name, (metric, pictures) in ratios.items()}


def ratio(metric: Callable[..., float], rgb: np.ndarray, target: np.ndarray, mask: np.ndarray) -> float:
    """A metric of the swap relative to the target; NaN if the mask is empty or borderless, or the target is flat."""
    try:
        return metric(rgb, mask) / metric(target, mask)
    except (ValueError, ZeroDivisionError):
        return float("nan")


def recorded_mask(record: Record) -> FaceMask | None:
    """The mask in a picture's record; `None` if no face was found."""
    return FaceMask(record["mask"], record["matrix"]) if record["detected"] else None


def add_background_lpips(
    lpips: Callable[..., np.ndarray] | None,
    records: Sequence[dict[str, Any]],
    swaps: Sequence[Swap],
    targets: Sequence[np.ndarray],
    described: Sequence[Record],
) -> None:
    """Adds LPIPS outside the face's mask, in the aligned crop; it is 0 for equal pixels."""
    if lpips is None:
        return
    changed = []
    for record, swap, target, known in zip(records, swaps, targets, described, strict=True):
        if "background_identical" not in record:
            continue
        record["background_lpips"] = 0.0
        mask = recorded_mask(known)
        if not record["background_identical"] and mask is not None:
            seen = metrics.with_target_inside(swap.rgb, target, mask.on_photo(target.shape, BACKGROUND_MARGIN))
            changed.append((record, *(crop(picture, mask.matrix, CROP_SIZE) for picture in (seen, target))))
    if changed:
        distances = lpips([seen for _, seen, _ in changed], [target for _, _, target in changed])
        for (record, _, _), distance in zip(changed, distances, strict=True):
            record["background_lpips"] = distance


def add_face_distances(
    lpips: Callable[..., np.ndarray] | None,
    records: Sequence[dict[str, Any]],
    swaps: Sequence[Swap],
    targets: Sequence[np.ndarray],
    described: Sequence[Record],
) -> None:
    """Adds PSNR and LPIPS between the faces of swap and target, for pairs of one person: the target is ground truth.

    Both are computed in the target's aligned crop of 256 px, inside the mask of the target's face. This region does
    not depend on what a method changed, so methods are comparable. LPIPS (VGG16) needs whole squares; outside the mask
    both pictures have the target's pixels.
    """
    faces = []
    for record, swap, target, known in zip(records, swaps, targets, described, strict=True):
        mask = recorded_mask(known)
        if mask is None:
            continue
        swapped, wanted = (crop(picture, mask.matrix, CROP_SIZE) for picture in (swap.rgb, target))
        record["face_psnr"] = metrics.psnr(swapped, wanted, mask.mask)
        faces.append((record, np.where(mask.mask[..., None], swapped, wanted), wanted))
    if lpips is not None and faces:
        distances = lpips([seen for _, seen, _ in faces], [wanted for _, _, wanted in faces])
        for (record, _, _), distance in zip(faces, distances, strict=True):
            record["face_lpips"] = distance


def peak_memory_megabytes() -> float:
    """Peak memory of this process so far, including the measuring networks; GPU memory if a GPU was used."""
    on_gpu = torch.cuda.is_available() and torch.cuda.max_memory_allocated() > 0
    return peak_memory(torch.device("cuda" if on_gpu else "cpu")) / (1 << 20)


def preview(rgb: np.ndarray, height: int = 192) -> np.ndarray:
    """A small copy (height, W, 3) of a picture for the report."""
    width = max(1, round(rgb.shape[1] * height / rgb.shape[0]))
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
