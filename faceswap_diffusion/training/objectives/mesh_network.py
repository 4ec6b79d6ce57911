# pyright: reportOptionalMemberAccess=false, reportAttributeAccessIssue=false
# What tflite reads of a file may be missing, by its annotations; a file of another digest is refused before.
"""MediaPipe's landmark network in torch: as `FaceMesh` runs it in LiteRT, but differentiable.

The weights are read from the same file. Its format is TensorFlow Lite's, described by the package `tflite`.
"""

import zipfile
from typing import Any

import numpy as np
import tflite
import torch
import torch.nn.functional as F
from torch import nn

from faceswap_diffusion.weights.registry import model_path

NUM_POINTS = 478

_TENSOR_TYPES = {tflite.TensorType.FLOAT32: np.float32, tflite.TensorType.FLOAT16: np.float16}


class MeshNetwork(nn.Module):
    """The landmark network; frozen, in float32.

    Raises:
        ModelFileError: When the network's file is missing or altered.
    """

    def __init__(self):
        super().__init__()
        with zipfile.ZipFile(model_path("face_landmarker")) as task:
            model = tflite.Model.GetRootAsModel(task.read("face_landmarks_detector.tflite"), 0)
        graph = model.Subgraphs(0)
        constants = _read_constants(model, graph)
        self.input, self.output = int(graph.Inputs(0)), int(graph.Outputs(0))
        self.layers = nn.ModuleDict()
        self.wiring: list[tuple[str, list[int], int]] = []
        for index in range(graph.OperatorsLength()):
            operator = graph.Operators(index)
            name = tflite.opcode2name(model.OperatorCodes(operator.OpcodeIndex()).BuiltinCode())
            inputs, output = operator.InputsAsNumpy().tolist(), int(operator.Outputs(0))
            if name == "DEQUANTIZE":
                constants[output] = constants[inputs[0]]
                continue
            self.layers[str(output)] = _LAYERS[name](operator, [constants[i] for i in inputs if i in constants])
            self.wiring.append((str(output), [i for i in inputs if i not in constants], output))
            if output == self.output:
                break  # the confidence follows
        self.requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Fits the mesh.

        Args:
            images (`torch.Tensor`): (B, 3, 256, 256), RGB in [0, 1]: upright faces in squares 1.5 times their size.

        Returns:
            `torch.Tensor`: (B, 478, 3): x and y in pixels of `images`, and depth on the same scale.
        """
        values = {self.input: images}
        for name, inputs, output in self.wiring:
            values[output] = self.layers[name](*(values[index] for index in inputs))
        return values[self.output].flatten(1).unflatten(1, (NUM_POINTS, 3))


class _Convolution(nn.Module):
    """A convolution whose input is padded as TensorFlow pads: the odd pixel comes last."""

    def __init__(self, operator: Any, weight: torch.Tensor, bias: torch.Tensor, options: Any, groups: int):
        super().__init__()
        options = _options(operator, options)
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.groups = options.StrideW(), groups
        total = max(weight.shape[-1] - self.stride, 0) if options.Padding() == tflite.Padding.SAME else 0
        self.padding = [total // 2, total - total // 2] * 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.conv2d(F.pad(x, self.padding), self.weight, self.bias, self.stride, groups=self.groups)


class _Add(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def _convolution(operator: Any, constants: list[np.ndarray]) -> nn.Module:
    weight, bias = map(torch.from_numpy, constants)
    return _Convolution(operator, weight.permute(0, 3, 1, 2).contiguous(), bias, tflite.Conv2DOptions, groups=1)


def _depthwise_convolution(operator: Any, constants: list[np.ndarray]) -> nn.Module:
    weight, bias = map(torch.from_numpy, constants)
    weight = weight.permute(3, 0, 1, 2).contiguous()
    return _Convolution(operator, weight, bias, tflite.DepthwiseConv2DOptions, groups=len(weight))


def _prelu(operator: Any, constants: list[np.ndarray]) -> nn.Module:
    layer = nn.PReLU(constants[0].size)
    layer.weight.data = torch.from_numpy(constants[0].reshape(-1))
    return layer


def _max_pool(operator: Any, constants: list[np.ndarray]) -> nn.Module:
    options = _options(operator, tflite.Pool2DOptions)
    return nn.MaxPool2d(options.FilterWidth(), options.StrideW())


def _pad(operator: Any, constants: list[np.ndarray]) -> nn.Module:
    """Of (N, H, W, C) in the file, of (N, C, H, W) here: only channels are added."""
    return nn.ConstantPad3d((0, 0, 0, 0, *constants[0][3].tolist()), 0.0)


_LAYERS = {
    "CONV_2D": _convolution,
    "DEPTHWISE_CONV_2D": _depthwise_convolution,
    "PRELU": _prelu,
    "ADD": lambda operator, constants: _Add(),
    "MAX_POOL_2D": _max_pool,
    "PAD": _pad,
}


def _options(operator: Any, kind: Any) -> Any:
    options, table = kind(), operator.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    return options


def _read_constants(model: Any, graph: Any) -> dict[int, np.ndarray]:
    """Weights of the file, by the number of their tensor; floats in float32."""
    constants = {}
    for index in range(graph.TensorsLength()):
        tensor = graph.Tensors(index)
        buffer = model.Buffers(tensor.Buffer())
        if buffer.DataLength():
            dtype = _TENSOR_TYPES.get(tensor.Type(), np.int32)
            values = np.frombuffer(buffer.DataAsNumpy().tobytes(), dtype).reshape(tensor.ShapeAsNumpy())
            constants[index] = values.astype(np.float32) if tensor.Type() in _TENSOR_TYPES else values
    return constants
