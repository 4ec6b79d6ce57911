"""The reference alone: everything of a swap but the diffusion."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.conditioning.reference import Reference
from faceswap_diffusion.evaluation.methods import (
    CheckpointMethod,
    Method,
    ReferenceAlone,
    UnchangedTarget,
    reference_methods,
)
from faceswap_diffusion.evaluation.protocol import Pair
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import CROP_SIZE, tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(folder: Path) -> CheckpointMethod:
    return CheckpointMethod(str(folder), "cpu")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("p005_portrait", "p010_portrait"):
        Image.open(IMAGES / f"{name}.jpg").convert("RGB").resize((192, 192)).save(folder / f"{name}.png")
    return Pair(folder / "p005_portrait.png", folder / "p010_portrait.png", 0, 1)


def target_of(pair: Pair) -> np.ndarray:
    return np.asarray(Image.open(pair.target))


def test_filled_with_the_target_itself_the_target_stays(checkpoint: CheckpointMethod, pair: Pair):
    calls = []
    unet = checkpoint.swapper.pipeline.unet
    handle = unet.register_forward_pre_hook(lambda *_: calls.append("diffusion"))

    def fill(
        swapper: FaceSwapper,
        face: AlignedFace,
        mask: np.ndarray,
        identity: SourceIdentity,
        reference: Reference | None,
    ) -> np.ndarray:
        calls.append((swapper.pipeline is checkpoint.swapper.pipeline, mask.shape, identity.identity_embeds.shape))
        return face.pixels

    swap = ReferenceAlone(checkpoint, fill).swap(0, pair, 0, {"num_inference_steps": 7, "watermark": False})
    handle.remove()
    assert calls == [(True, (CROP_SIZE, CROP_SIZE), (1, 128))]
    assert swap.mask is not None
    skin = swap.mask > 0.9  # most of it is skin, where the photo's own texture makes up for the coarse crop
    assert np.median(np.abs(swap.rgb[skin].astype(int) - target_of(pair)[skin])) <= 1
    assert swap.seconds > 0


def test_it_is_pasted_by_a_swaps_own_mask(checkpoint: CheckpointMethod, pair: Pair):
    def fill(
        swapper: FaceSwapper,
        face: AlignedFace,
        mask: np.ndarray,
        identity: SourceIdentity,
        reference: Reference | None,
    ) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, face.pixels.shape, np.uint8)

    filled, painted = (method.swap(0, pair, 0, {}) for method in (ReferenceAlone(checkpoint, fill), checkpoint))
    assert filled.mask is not None
    np.testing.assert_array_equal(filled.mask, painted.mask)
    target = target_of(pair)
    np.testing.assert_array_equal(filled.rgb[filled.mask == 0], target[filled.mask == 0])
    assert np.abs(filled.rgb[filled.mask > 0.9].astype(int) - target[filled.mask > 0.9]).mean() > 10


def test_it_is_a_row_where_a_checkpoint_is_shown_a_reference(checkpoint: CheckpointMethod, folder: Path):
    def names(compared: list[Method]) -> list[str]:
        return [method.name for method in reference_methods(MeshFaceAnalyzer(), compared)]

    without = ["the target itself", "source pasted", "classical warp"]
    assert names([checkpoint, UnchangedTarget()]) == without
    guided = CheckpointMethod(str(folder), "cpu")
    guided.swapper.pipeline.register_to_config(hidden_fill="reference")
    assert names([checkpoint, guided, guided]) == [*without, "reference alone"]
    assert names([]) == without
    facts = reference_methods(MeshFaceAnalyzer(), [guided])[-1].facts
    assert facts == {name: guided.facts[name] for name in ("checkpoint", "weights", "crop_size")}


def test_a_checkpoint_at_other_steps_leaves_the_first_as_it_was(checkpoint: CheckpointMethod, pair: Pair):
    before = checkpoint.swap(0, pair, 0, {"num_inference_steps": 1})
    other = checkpoint.at_steps(3)
    assert (other.name, other.facts["steps"]) == ("tiny at 3 steps", 3)
    assert (checkpoint.name, checkpoint.facts["steps"]) == ("tiny", 2)
    changed = other.swap(0, pair, 0, {"num_inference_steps": 1})  # a protocol's number of steps does not count
    assert (changed.rgb != before.rgb).any()
    np.testing.assert_array_equal(checkpoint.swap(0, pair, 0, {"num_inference_steps": 1}).rgb, before.rgb)
    np.testing.assert_array_equal(checkpoint.swap(0, pair, 0, {"num_inference_steps": 3}).rgb, changed.rgb)
