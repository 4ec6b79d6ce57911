"""Rewrites SFace's int8 ONNX file as the safetensors file that the package ships.

    python tools/convert_sface.py face_recognition_sface_2021dec_int8bq.onnx sface_int8.safetensors

The weights stay int8. Each batch normalisation is folded, in float64, into scales and bias of the layer before it.
"""

import argparse
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper
from safetensors.numpy import save_file

CONV_EPSILON = 1e-3
HEAD_EPSILON = 2e-5  # the two batch normalisations around the fully connected layer


def batch_norm_affine(weights: dict[str, np.ndarray], name: str, epsilon: float) -> tuple[np.ndarray, np.ndarray]:
    """Gain and offset of a batch normalisation in inference."""
    gamma, beta, mean, variance = (
        weights[f"{name}_{part}"].astype(np.float64) for part in ("gamma", "beta", "moving_mean", "moving_var")
    )
    gain = gamma / np.sqrt(variance + epsilon)
    return gain, beta - gain * mean


def convert(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    converted = {}
    names = sorted(
        name.removesuffix("_conv2d_weight_quantized") for name in weights if name.endswith("_conv2d_weight_quantized")
    )
    for name in names:
        gain, offset = batch_norm_affine(weights, f"{name}_batchnorm", CONV_EPSILON)
        converted[f"{name}.weight"] = weights[f"{name}_conv2d_weight_quantized"]
        converted[f"{name}.zero_point"] = weights[f"{name}_conv2d_weight_zero_point"]
        converted[f"{name}.scale"] = (weights[f"{name}_conv2d_weight_scales"] * gain[:, None]).astype(np.float32)
        converted[f"{name}.bias"] = offset.astype(np.float32)
        converted[f"{name}.slope"] = weights[f"{name}_relu_gamma"].reshape(-1)
    gain, offset = batch_norm_affine(weights, "bn1", HEAD_EPSILON)
    converted["norm.scale"], converted["norm.bias"] = gain.astype(np.float32), offset.astype(np.float32)
    gain, offset = batch_norm_affine(weights, "fc1", HEAD_EPSILON)
    bias_steps = weights["pre_fc1_bias_quantized"] - np.repeat(weights["pre_fc1_bias_zero_point"], 64).astype(
        np.float64
    )
    bias = bias_steps * np.repeat(weights["pre_fc1_bias_scales"], 64)
    converted["head.weight"] = weights["pre_fc1_weight_quantized"]
    converted["head.zero_point"] = weights["pre_fc1_weight_zero_point"]
    converted["head.scale"] = (weights["pre_fc1_weight_scales"] * gain[:, None]).astype(np.float32)
    converted["head.bias"] = (gain * bias + offset).astype(np.float32)
    return converted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("onnx_file", type=Path)
    parser.add_argument("output", type=Path)
    args = parser.parse_args()
    initializers = onnx.load(args.onnx_file).graph.initializer
    save_file(convert({tensor.name: numpy_helper.to_array(tensor) for tensor in initializers}), args.output)


if __name__ == "__main__":
    main()
