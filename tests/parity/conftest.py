"""REFace's reduced checkpoint, converted as a user would, for every parity test."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from faceswap_diffusion.conversion.reface import convert_reface
from faceswap_diffusion.pipelines.faceswap_inpaint import FaceSwapInpaintPipeline
from tests.parity.reduced import HERE, REDUCED_MODE, lightning_file, reduced_weights


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reface")
    torch.save(lightning_file(reduced_weights()), folder / "last.ckpt")
    convert_reface(folder / "last.ckpt", folder / "converted", architecture=REDUCED_MODE)
    return folder / "converted"


@pytest.fixture(scope="session")
def pipe(converted: Path) -> FaceSwapInpaintPipeline:
    pipe = FaceSwapInpaintPipeline.from_pretrained(converted)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    return load_file(HERE / "golden.safetensors")
