"""The demo as it is served, with the model in the package, and small photos for it."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import gradio as gr
import pytest
from PIL import Image

from faceswap_diffusion.demo.limits import Limits
from faceswap_diffusion.demo.server import served
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.processes import free_port

LIMITS = Limits(megabytes=1, megapixels=0.6)


@pytest.fixture(scope="session")
def page(embedded_swapper: FaceSwapper) -> Iterator[gr.Blocks]:
    # Imported when first used, in the server's thread; with pytest's rewriting of the source that fails at times.
    assert anyio.open_file
    with served(embedded_swapper, port=free_port(), limits=LIMITS) as page:
        yield page


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory, example_images: Path) -> Path:
    """source.jpg, target.jpg and group.jpg, 256 pixels high at most, and what cannot be swapped."""
    folder = tmp_path_factory.mktemp("photos")
    for name, example in {"source": "p001_portrait", "target": "p010_selfie", "group": "group"}.items():
        photo = Image.open(example_images / f"{example}.jpg")
        photo.resize((256 * photo.width // photo.height, 256)).save(folder / f"{name}.jpg", quality=95)
    Image.new("RGB", (64, 64)).save(folder / "wall.png")
    Image.new("1", (1000, 1000)).save(folder / "large.png")
    (folder / "text.jpg").write_text("no picture")
    return folder
