"""REFace's reduced checkpoint, once a session, and a disk that is soon full."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.parity.reduced import lightning_file, reduced_weights


@pytest.fixture(scope="session")
def weights() -> dict[str, torch.Tensor]:
    weights = reduced_weights()
    turned = weights["proj_out_source.weight"].t().contiguous().t()  # CLIP's projections were once saved like this
    return {**weights, "proj_out_source.weight": turned}


@pytest.fixture(scope="session")
def checkpoint(weights, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reface") / "last.ckpt"
    torch.save(lightning_file(weights), path)
    return path


@pytest.fixture
def full_disk() -> Iterator[None]:
    """No file can become larger than a megabyte."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
