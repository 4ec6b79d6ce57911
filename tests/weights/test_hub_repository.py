"""Loading from and pushing to a Hub, imitated on the loopback: online, from the cache, offline."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from faceswap_diffusion import FaceSwapInpaintPipeline, FaceSwapper
from tests.tiny import tiny_inputs, tiny_pipeline
from tests.weights.imitation import HubImitation, list_files

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow  # each of two processes imports everything anew

ONLINE = """
import sys
from diffusers import DiffusionPipeline
from faceswap_diffusion import FaceSwapInpaintPipeline, FaceSwapper
from safetensors.torch import save_file
from tests.tiny import tiny_inputs

def swap(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe(**tiny_inputs()).images.contiguous()

online = FaceSwapInpaintPipeline.from_pretrained("owner/faces")
assert online.name_or_path == "owner/faces"
cached = FaceSwapInpaintPipeline.from_pretrained("owner/faces")
custom = DiffusionPipeline.from_pretrained("owner/faces", custom_pipeline="owner/faces", trust_remote_code=True)
assert isinstance(custom, FaceSwapInpaintPipeline)
snippet = DiffusionPipeline.from_pretrained("owner/faces", trust_remote_code=True)  # that the Hub itself shows
assert isinstance(snippet, FaceSwapInpaintPipeline)
url = online.push_to_hub("owner/copy", commit_message="A copy")
assert "/owner/copy/commit/" in url
copy = FaceSwapInpaintPipeline.from_pretrained("owner/copy")

place = {"subfolder": "inner", "revision": "next", "token": "hf_imitation", "cache_dir": sys.argv[1] + ".cache"}
swapper = FaceSwapper.from_pretrained("owner/halves", device="cpu", variant="fp16", **place)
again = FaceSwapper.from_pretrained("owner/halves", device="cpu", local_files_only=True, **place)
pipeline = FaceSwapInpaintPipeline.from_pretrained("owner/halves", variant="fp16", **place)

results = {"online": online, "cached": cached, "custom": custom, "snippet": snippet, "copy": copy}
results |= {"variant": swapper.pipeline, "variant local": again.pipeline, "variant pipeline": pipeline}
save_file({name: swap(pipe) for name, pipe in results.items()}, sys.argv[1])
"""

OFFLINE = """
import sys
from diffusers import DiffusionPipeline
from faceswap_diffusion import FaceSwapInpaintPipeline
from huggingface_hub import constants, hf_hub_download
from safetensors.torch import save_file
from tests.tiny import tiny_inputs

def swap(pipe=None):
    pipe = pipe or FaceSwapInpaintPipeline.from_pretrained("owner/faces")
    pipe.set_progress_bar_config(disable=True)
    return pipe(**tiny_inputs()).images.contiguous()

trust = {"trust_remote_code": True}
results = {"offline": swap()}
index = hf_hub_download("owner/faces", "model_index.json", local_files_only=True)
folder = index.rpartition("/")[0]  # diffusers asks the Hub about code of an id
results["custom"] = swap(DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, **trust))
results["snippet"] = swap(DiffusionPipeline.from_pretrained(folder, **trust))
try:
    FaceSwapInpaintPipeline.from_pretrained("owner/never-seen")
except ValueError as error:
    assert str(error).startswith("no pipeline with safetensors at owner/never-seen: "), error
    assert "\\n" not in str(error)
else:
    raise AssertionError("a repository that is not in the cache was loaded offline")
constants.HF_HUB_OFFLINE = False
results["refused"] = swap()
save_file(results, sys.argv[1])
"""


def run(script: str, result: Path, **environment: str) -> dict[str, torch.Tensor]:
    """Runs a script in a process of its own, since the Hub's address is read once, at import."""
    offline = dict.fromkeys(("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN"), "")
    environment = {**os.environ, **offline, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
    done = subprocess.run(
        [sys.executable, "-c", script, str(result)], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return load_file(result)


@pytest.fixture(scope="module")
def expected():
    return tiny_pipeline()(**tiny_inputs()).images


@pytest.fixture(scope="module")
def halves(tmp_path_factory):
    """A checkpoint in a subfolder, in float16 and, from another seed, in float32."""
    folder = tmp_path_factory.mktemp("halves")
    tiny_pipeline(seed=1).to(torch.float16).save_pretrained(folder / "inner", variant="fp16")
    tiny_pipeline(seed=2).save_pretrained(folder / "inner")
    return folder


@pytest.fixture(scope="module")
def hub(tmp_path_factory, halves):
    folder = tmp_path_factory.mktemp("faces")
    tiny_pipeline().save_pretrained(folder)
    hub = HubImitation()
    hub.repositories["owner/faces"] = list_files(folder)
    hub.repositories["owner/halves"] = {"README.md": b"main"}
    hub.repositories["owner/halves@next"] = {**list_files(halves), "outer/unet/w.safetensors": b"0"}
    yield hub
    hub.close()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def online(hub, home):
    """Swaps by pipelines that were loaded while the Hub was there."""
    return run(ONLINE, home / "online.safetensors", HF_ENDPOINT=hub.url, HF_HOME=str(home), HF_TOKEN="hf_imitation")


@pytest.mark.parametrize("way", ["online", "cached", "custom", "snippet", "copy"])
def test_every_way_of_loading_gives_the_same_swap(online, expected, way):
    assert torch.equal(online[way], expected)


def test_weights_are_fetched_once(online, hub):
    fetched = [request for request in hub.requests if request.startswith("GET") and "/owner/faces/resolve/" in request]
    weights = [request for request in fetched if request.endswith(".safetensors")]
    assert len(weights) == len(set(weights)) == 4


def test_a_pushed_repository_holds_what_a_saved_folder_holds(online, hub):
    assert set(hub.repositories["owner/copy"]) == set(hub.repositories["owner/faces"])
    for name, content in hub.repositories["owner/faces"].items():
        if name.endswith((".safetensors", ".py")):
            assert hub.repositories["owner/copy"][name] == content, name


def test_without_the_hub_the_cache_serves(online, home, expected):
    nowhere = "http://127.0.0.1:9"  # the port of "discard": connections are refused
    without = run(OFFLINE, home / "offline.safetensors", HF_HUB_OFFLINE="1", HF_ENDPOINT=nowhere, HF_HOME=str(home))
    for way in ("offline", "custom", "snippet", "refused"):
        assert torch.equal(without[way], expected), way


def test_of_a_repository_only_the_wanted_variant_of_the_wanted_place_is_fetched(online, halves, hub, home):
    here = FaceSwapInpaintPipeline.from_pretrained(halves / "inner", variant="fp16")
    assert torch.equal(online["variant pipeline"], here(**tiny_inputs()).images)
    swapper = FaceSwapper.from_pretrained(halves / "inner", device="cpu", variant="fp16")  # other memory layout
    expected = swapper.pipeline(**tiny_inputs()).images
    for way in ("variant", "variant local"):
        assert torch.equal(online[way], expected), way
    weights = [name for name in hub.requests if re.match("GET .*halves.*safetensors$", name)]
    fetched = {name.rpartition("/resolve/")[2].partition("/")[2] for name in weights}
    files = {"image_encoder": "model", **dict.fromkeys(("vae", "unet", "conditioner"), "diffusion_pytorch_model")}
    assert fetched == {f"inner/{part}/{file}.fp16.safetensors" for part, file in files.items()}
    assert not list((home / "hub").rglob("*.fp16.safetensors"))
