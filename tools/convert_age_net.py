"""Rewrites the age network of face-api.js as the safetensors file that the package ships.

    npm pack @vladmandic/face-api@1.7.15 && tar xzf vladmandic-face-api-1.7.15.tgz
    python tools/convert_age_net.py package/model/age_gender_model-weights_manifest.json age_net_uint8.safetensors

The weights stay uint8, as TensorFlow.js quantised them; the gender output is left out.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

# TensorFlow.js's names for a layer's parts, and what torch calls them. The order of axes differs, too.
PARTS = {
    "depthwise_filter": ("depthwise.weight", (2, 3, 0, 1)),
    "pointwise_filter": ("pointwise.weight", (3, 2, 0, 1)),
    "filters": ("weight", (3, 2, 0, 1)),
    "weights": ("weight", (1, 0)),
    "bias": ("bias", (0,)),
}


def torch_name(name: str) -> tuple[str, tuple[int, ...]]:
    """Name of a parameter of `AgeNet`, and where its axes are in the original."""
    _, *path, part = name.split("/")
    renamed, axes = PARTS[part]
    if part == "bias" and path[-1].startswith("separable"):
        renamed = "pointwise.bias"
    return ".".join([*path, renamed]), axes


def convert(entries: list[dict], data: bytes) -> dict[str, np.ndarray]:
    """Takes the tensors out of `data`, where they are stored one after the other as `entries` say."""
    converted, offset = {}, 0
    for entry in entries:
        quantization = entry.get("quantization")
        dtype = np.dtype(np.uint8 if quantization else np.float32)
        count = int(np.prod(entry["shape"]))
        values = np.frombuffer(data, dtype, count, offset).reshape(entry["shape"])
        offset += count * dtype.itemsize
        if entry["name"].startswith("fc/gender/"):
            continue
        name, axes = torch_name(entry["name"])
        converted[name] = np.ascontiguousarray(values.transpose(axes))
        if quantization:
            converted[f"{name}.affine"] = np.array([quantization["scale"], quantization["min"]], np.float32)
    if offset != len(data):
        raise ValueError(f"the manifest lists {offset} bytes, the file has {len(data)}: they do not belong together")
    return converted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    (group,) = json.loads(args.manifest.read_text())
    data = b"".join((args.manifest.parent / name).read_bytes() for name in group["paths"])
    save_file(convert(group["weights"], data), args.output)


if __name__ == "__main__":
    main()
