"""What holds for every test: no network, and one thread, which on a busy machine is the fastest for tiny networks."""

import multiprocessing
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"

import cv2
import pytest
import torch

torch.set_num_threads(1)
cv2.setNumThreads(1)


@pytest.fixture(scope="session", autouse=True)
def settings_folder(tmp_path_factory: pytest.TempPathFactory):
    """Keys for Content Credentials are not made in the home of whoever tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("settings")))
        yield


@pytest.fixture(scope="session")
def example_images() -> Path:
    return Path(__file__).parent.parent / "examples" / "images"


@pytest.fixture(scope="session")
def embedded_swapper():
    """The model in the package, for whoever changes nothing in it."""
    from faceswap_diffusion.swapping.swapper import FaceSwapper

    swapper = FaceSwapper.from_pretrained(device="cpu")
    swapper.pipeline.set_progress_bar_config(disable=True)
    return swapper


@pytest.fixture
def forked_processes(monkeypatch):
    """Processes that the code spawns are forked instead, from a server that has imported the libraries once."""
    from tests.processes import server_context

    monkeypatch.setattr(multiprocessing, "get_context", server_context)


@pytest.fixture(scope="session")
def prepared_faces(tmp_path_factory, example_images) -> Path:
    """Eight faces of five people who do not exist, prepared for training at 64 px; of three people there are two."""
    return prepare(sorted(example_images.glob("p0*.jpg")), tmp_path_factory.mktemp("prepared"))


@pytest.fixture(scope="session")
def one_person(tmp_path_factory, example_images) -> Path:
    """Two faces of one person, prepared for training at 64 px."""
    return prepare(sorted(example_images.glob("p001*.jpg")), tmp_path_factory.mktemp("one_person"))


def prepare(photos: list[Path], folder: Path) -> Path:
    """Prepares photos whose names begin with the person's."""
    from faceswap_diffusion.training.data.photo_sources import open_folders
    from faceswap_diffusion.training.data.preparation import PreparationSettings, prepare_faces

    for photo in photos:
        person = folder / "photos" / photo.name.split("_")[0]
        person.mkdir(parents=True, exist_ok=True)
        (person / photo.name).symlink_to(photo)
    source = open_folders([folder / "photos"], "folder", "folder")
    prepare_faces(source, folder / "faces", PreparationSettings(resolution=64))
    return folder / "faces"
