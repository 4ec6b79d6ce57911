"""Checks a swap: `check_swap.py TARGET RESULT FACES`, where FACES holds what `faces --json RESULT` printed."""

import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from faceswap_diffusion.provenance import read_provenance

target_path, result_path, faces_path = sys.argv[1:]
target, result = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (target_path, result_path))
assert result.shape == target.shape, f"the result is {result.shape}, the target {target.shape}"

(face,) = json.loads(Path(faces_path).read_text())["faces"]
left, top, right, bottom = (round(edge) for edge in face["bbox"])
changed = np.abs(result - target).max(2) > 8
inside = changed[max(top, 0) : bottom, max(left, 0) : right].mean()
assert inside > 0.2, f"only {inside:.0%} of the face was repainted"
rows, columns = np.nonzero(changed)
margins = (left - columns.min(), top - rows.min(), columns.max() - right, rows.max() - bottom)
assert max(margins) < right - left, f"pixels far from the face were changed: {margins} px beyond its box"

provenance = read_provenance(result_path)
assert provenance is not None, "the metadata does not say that AI made the picture"
assert provenance["digital_source_type"].endswith("/compositeWithTrainedAlgorithmicMedia"), provenance
assert provenance["software"].startswith("faceswap-diffusion "), provenance
