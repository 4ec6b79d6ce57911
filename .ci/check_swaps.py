"""Checks swaps: `check_swaps.py SOURCE TARGET RESULT...`; RESULT.json holds what `faces --json RESULT` printed."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from faceswap_diffusion import FaceSwapper
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.provenance.save import read_provenance

LEAST_LIKENESS = 0.4  # SFace's cosine; its authors call two faces one person from 0.363 on


def pixels_of(path: str) -> np.ndarray:
    """A picture as (H, W, 3) RGB."""
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def check_place(target_path: str, result_path: str) -> float:
    """That the face was repainted, and nothing far from it; the share of its box that was."""
    target, result = pixels_of(target_path), pixels_of(result_path)
    assert result.shape == target.shape, f"the result is {result.shape}, the target {target.shape}"
    (face,) = json.loads(Path(f"{result_path}.json").read_text())["faces"]
    left, top, right, bottom = (round(edge) for edge in face["bbox"])
    changed = np.abs(result - target).max(2) > 8
    inside = changed[max(top, 0) : bottom, max(left, 0) : right].mean()
    assert inside > 0.2, f"only {inside:.0%} of the face was repainted"
    rows, columns = np.nonzero(changed)
    margins = (left - columns.min(), top - rows.min(), columns.max() - right, rows.max() - bottom)
    assert max(margins) < right - left, f"pixels far from the face were changed: {margins} px beyond its box"
    return inside


def check_provenance(result_path: str) -> None:
    """That the metadata says what made the picture."""
    provenance = read_provenance(result_path)
    assert provenance is not None, "the metadata does not say that AI made the picture"
    assert provenance["digital_source_type"].endswith("/compositeWithTrainedAlgorithmicMedia"), provenance
    assert provenance["software"].startswith("faceswap-diffusion "), provenance


source_path, target_path, *result_paths = sys.argv[1:]
swapper = FaceSwapper.from_pretrained(device="cpu")
source_id, target_id, *result_ids = (
    swapper.encode_source([load_photo(path)]).identity_embeds[0] for path in (source_path, target_path, *result_paths)
)
for result_path, result_id in zip(result_paths, result_ids, strict=True):
    inside = check_place(target_path, result_path)
    before, after = float(source_id @ target_id), float(source_id @ result_id)
    change = f"the likeness to the source went from {before:.2f} to {after:.2f}"
    assert before < LEAST_LIKENESS < after, f"{change}, and has to pass {LEAST_LIKENESS}"
    check_provenance(result_path)
    print(f"{result_path}: {inside:.0%} of the face was repainted; {change}")
