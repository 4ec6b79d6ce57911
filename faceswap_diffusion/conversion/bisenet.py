"""Converts the published file of REFace's face parser to a folder in Diffusers' layout."""

from pathlib import Path

import torch

from faceswap_diffusion.conversion.torch_files import read_checkpoint
from faceswap_diffusion.conversion.weights import check_weights, fill, shapes_of
from faceswap_diffusion.masks.bisenet import BiSeNet

LEFT_OUT = {
    "conv_out16.": "an output for training only",
    "conv_out32.": "an output for training only",
}


def convert_bisenet(checkpoint: str | Path, folder: str | Path) -> None:
    """Converts `79999_iter.pth` to a folder that `BiSeNet.from_pretrained` loads. Names of weights do not change.

    Args:
        checkpoint (`str` or `Path`): The file.
        folder (`str` or `Path`): To write.

    Raises:
        ValueError: If the file is not that parser.
    """
    source = read_checkpoint(checkpoint)
    with torch.device("meta"):
        parser = BiSeNet()
    shapes = shapes_of(parser)
    check_weights(source, "the face parser 79999_iter.pth", shapes, LEFT_OUT)
    fill(parser, {name: name for name in shapes}, source.weights, dtype=None)
    parser.save_pretrained(folder)
