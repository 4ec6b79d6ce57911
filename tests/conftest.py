"""What holds for every test: no network, and one thread, which on a busy machine is the fastest for tiny networks."""

import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import pytest
import torch

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope="session")
def example_images() -> Path:
    return Path(__file__).parent.parent / "examples" / "images"
