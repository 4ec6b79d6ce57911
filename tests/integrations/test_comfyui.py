"""The nodes for ComfyUI as classes, and its example workflow, run node by node as ComfyUI does."""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from faceswap_diffusion import FaceSwapper, read_provenance
from tests.tiny import tiny_pipeline

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comfyui")


@pytest.fixture(scope="module")
def nodes(home: Path) -> Iterator[dict[str, type]]:
    """The nodes, and as much of ComfyUI's `folder_paths` as they use."""
    paths: Any = ModuleType("folder_paths")
    paths.models_dir = str(home / "models")
    paths.get_output_directory = lambda: str(home)
    paths.get_save_image_path = lambda prefix, folder, width, height: (folder, prefix, 7, "", prefix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "folder_paths", paths)
        spec = importlib.util.spec_from_file_location("nodes_of_ours", FOLDER / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        package = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, "nodes_of_ours", package)
        spec.loader.exec_module(package)
        assert package.NODE_DISPLAY_NAME_MAPPINGS.keys() == package.NODE_CLASS_MAPPINGS.keys()
        yield package.NODE_CLASS_MAPPINGS


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    swapper = FaceSwapper(tiny_pipeline(crop_size=64), name="tiny")
    swapper.pipeline.set_progress_bar_config(disable=True)
    return swapper


def as_image(path: Path) -> torch.Tensor:
    """An IMAGE (1, H, W, 3) as ComfyUI's `LoadImage` gives it, 256 pixels high."""
    photo = Image.open(path).convert("RGB")
    return torch.from_numpy(np.asarray(photo.resize((256 * photo.width // photo.height, 256)))).float()[None] / 255


def outputs_of(workflow: dict[str, Any], nodes: dict[str, type], given: dict[str, tuple]) -> dict[str, Any]:
    """Runs a workflow in the order of its numbers; outputs of nodes that are not ours are given."""
    done: dict[str, Any] = {}
    for number, node in sorted(workflow.items()):
        if number in given or node["class_type"] not in nodes:
            done[number] = given.get(number)
            continue
        cls: Any = nodes[node["class_type"]]
        known = {name for kind in cls.INPUT_TYPES().values() for name in kind}
        inputs = {
            name: done[value[0]][value[1]] if isinstance(value, list) else value
            for name, value in node["inputs"].items()
        }
        assert inputs.keys() <= known
        done[number] = getattr(cls(), cls.FUNCTION)(**inputs)
    return done


def test_the_example_workflow_swaps_and_saves(nodes, swapper: FaceSwapper, home: Path, example_images: Path):
    workflow = json.loads((FOLDER / "workflow.json").read_text(encoding="utf-8"))
    target = as_image(example_images / "p010_selfie.jpg")
    given = {"1": (swapper,), "2": (as_image(example_images / "p001_portrait.jpg"),), "3": (target,)}
    done = outputs_of(workflow, nodes, given)
    image, mask, facts = done["6"]
    assert (image.dtype, image.shape, mask.shape) == (torch.float32, target.shape, target.shape[:3])
    assert torch.equal(image[mask == 0], target[mask == 0])
    assert 0.02 < mask.mean() < 0.5
    assert done["7"]["ui"]["images"] == [{"filename": "swapped_00007_.png", "subfolder": "", "type": "output"}]
    saved = home / "swapped_00007_.png"
    assert (read_provenance(saved) or {})["checkpoint"] == facts[0]["checkpoint"] == "tiny"
    assert np.array_equal(np.asarray(Image.open(saved)), (image[0] * 255).round().byte().numpy())
    loader: Any = nodes["FaceSwapLoadFaceModel"]
    assert loader.INPUT_TYPES()["required"]["name"] == (["somebody.safetensors"],)
    (loaded,) = loader().load("somebody.safetensors")
    assert loaded.digest() == done["4"][0].digest()
    assert len(loader.IS_CHANGED("somebody.safetensors")) == 64


def test_a_mask_takes_the_place_of_the_region_in_every_picture(nodes, swapper: FaceSwapper, example_images: Path):
    target = as_image(example_images / "p010_selfie.jpg").repeat(2, 1, 1, 1)
    (model,) = nodes["FaceSwapEncodeFace"]().encode(swapper, as_image(example_images / "p001_portrait.jpg"), "face")
    left = torch.zeros(1, *target.shape[1:3])
    left[..., : target.shape[2] // 2] = 1
    image, mask, _ = nodes["FaceSwapSwapFaces"]().swap(
        swapper, model, target, "0", "face", "", True, 1, 3, "both agreed", left
    )
    assert torch.equal(image[0], image[1])
    assert not mask[..., target.shape[2] // 2 + 1 :].any()
    assert (image != target)[..., : target.shape[2] // 2, :].any()


def test_names_lead_to_no_other_folder(nodes):
    for name in ("../outside", "/etc/passwd", "a/b", "", ".hidden"):
        with pytest.raises(ValueError, match="give a plain name without folders"):
            nodes["FaceSwapLoadFaceModel"]().load(name)
