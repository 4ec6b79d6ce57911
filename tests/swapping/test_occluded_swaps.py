"""Swaps of faces with something in front of them: the target's stays, the source's does not travel."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from faceswap_diffusion.cli import main as cli
from faceswap_diffusion.faces.alignment import crop
from faceswap_diffusion.masks.bisenet import BiSeNet
from faceswap_diffusion.masks.occlusion import CHECKPOINT, load_occlusion_network
from faceswap_diffusion.masks.outlines import above_brows, around_eyes, brow_masks, region_mask_from_landmarks
from faceswap_diffusion.masks.parsing import LABELS
from faceswap_diffusion.masks.regions import region_mask
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.pipelines.loading import load_occlusion
from faceswap_diffusion.swapping.aligned_face import AlignedFace
from faceswap_diffusion.swapping.result import SwapResult
from faceswap_diffusion.swapping.source_identity import SourceIdentity, average_identities, take_texture
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, SELFIE = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=128, hidden_fill="reference"), name="tiny")


@pytest.fixture(scope="module")
def blind(swapper: FaceSwapper) -> FaceSwapper:
    return FaceSwapper(swapper.pipeline, swapper.analyzer, "tiny", occlusion="off")


def barred(swapper: FaceSwapper, path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A photo with a bar across the mouth, and the inner part of the bar (H, W) bool."""
    rgb = load_photo(path).rgb
    (face,) = swapper.analyzer.analyze(rgb)
    start, end = (np.round(face.landmarks[point]).astype(int).tolist() for point in (58, 288))
    width = round(0.1 * np.ptp(face.landmarks[:, 1]))
    bar, core = (cv2.line(np.zeros(rgb.shape[:2], np.uint8), start, end, 1, line) > 0 for line in (width, width // 2))
    return np.where(bar[..., None], np.uint8([30, 60, 140]), rgb), core


def aligned(swapper: FaceSwapper, rgb: np.ndarray) -> AlignedFace:
    (face,) = swapper.analyzer.analyze(rgb)
    return swapper.align(rgb, face)


def test_a_bar_before_the_target_stays(swapper: FaceSwapper, blind: FaceSwapper):
    target, core = barred(swapper, SELFIE)

    def changed(result: SwapResult) -> np.ndarray:
        return np.abs(np.asarray(result.image).astype(int) - target).max(axis=2)[core] > 4

    left = swapper.swap(WOMAN, target)
    assert changed(left).mean() <= 0.03
    assert 0.03 < left.covered[0] < 0.4
    assert left.occlusion is not None
    assert left.occlusion.size == left.image.size
    found = np.asarray(left.occlusion) > 127
    assert found[core].mean() > 0.97
    assert found.mean() < 0.2
    for painted in (blind.swap(WOMAN, target), swapper.swap(WOMAN, target, occlusion="off")):
        assert changed(painted).mean() > 0.5
        assert painted.covered == [0.0]
        assert painted.occlusion is None
    added = swapper.swap(WOMAN, target, add_mask_image=core)
    assert changed(added).mean() > 0.5


def test_a_bare_face_is_swapped_as_if_nobody_had_looked(swapper: FaceSwapper, blind: FaceSwapper):
    looked, unseen = swapper.swap(WOMAN, SELFIE), blind.swap(WOMAN, SELFIE)
    assert looked.covered[0] <= 0.04
    masks = [np.asarray(result.mask).astype(float) / 255 for result in (looked, unseen)]
    assert np.abs(masks[0] - masks[1]).sum() < 0.06 * masks[1].sum()


def test_hair_in_front_is_no_obstacle_where_hair_is_repainted(swapper: FaceSwapper):
    face = aligned(swapper, load_photo(WOMAN).rgb)
    face = replace(face, covered=np.full(face.labels.shape, 0.75, np.float32))
    hair = face.labels == LABELS.index("hair")
    assert hair.any()
    assert (face.free("face") == 0.25).all()
    assert (face.free("head")[hair] == 1).all()
    assert (face.free("head")[~hair] == 0.25).all()


def test_a_mask_of_the_users_is_taken_as_it_is(swapper: FaceSwapper):
    target, core = barred(swapper, SELFIE)
    result = swapper.swap(WOMAN, target, mask_image=np.ones(target.shape[:2], np.float32))
    assert result.covered == [0.0]
    assert (np.asarray(result.mask)[core] > 200).all()


def test_a_checkpoint_with_its_own_parser_keeps_its_own_masks(swapper: FaceSwapper):
    parser = BiSeNet().eval()
    assert FaceSwapper(swapper.pipeline, swapper.analyzer, parser=parser).occlusion is None
    network = load_occlusion_network()
    assert FaceSwapper(swapper.pipeline, swapper.analyzer, parser=parser, occlusion=network).occlusion is network


def framed(swapper: FaceSwapper, rgb: np.ndarray) -> tuple[np.ndarray, AlignedFace]:
    """A photo with dark frames around the eyes, and its face with these frames as what covers it."""
    bare, drawn = aligned(swapper, rgb), rgb.copy()
    (face,) = swapper.analyzer.analyze(rgb)
    frames = np.zeros(rgb.shape[:2], np.uint8)
    radius = round(0.24 * np.linalg.norm(face.landmarks68[45] - face.landmarks68[36]))
    for eye in (face.landmarks68[36:42], face.landmarks68[42:48]):
        cv2.circle(frames, np.round(eye.mean(0)).astype(int).tolist(), radius, 1, max(2, radius // 8))
    drawn[frames > 0] = (20, 20, 25)
    size = len(bare.pixels)
    covered = np.clip(crop(frames.astype(np.float32), bare.matrix, size) * 2, 0, 1)
    pixels = crop(drawn, bare.matrix, size)
    return drawn, replace(bare, pixels=pixels, covered=cv2.dilate(covered, np.ones((3, 3))))


def test_frames_of_a_source_do_not_travel(swapper: FaceSwapper):
    rgb = load_photo(WOMAN).rgb
    drawn, face = framed(swapper, rgb)
    wanted = take_texture(rgb, replace(face, pixels=aligned(swapper, rgb).pixels, covered=None))
    naive = take_texture(drawn, replace(face, covered=None))
    mended = take_texture(drawn, face)
    dark = np.abs(naive.pixels - wanted.pixels).mean(axis=2) > 40
    dark &= np.minimum(naive.confidence, wanted.confidence) > 0
    assert dark.sum() > 200
    errors = [np.abs(texture.pixels - wanted.pixels).mean(axis=2)[dark].mean() for texture in (naive, mended)]
    assert errors[1] < 0.4 * errors[0]
    assert mended.shown > 0.9 * naive.shown


def test_the_command_line_writes_identities_without_what_covers_them(swapper: FaceSwapper, blind, tmp_path: Path):
    covered, _ = barred(swapper, WOMAN)
    Image.fromarray(covered).save(tmp_path / "barred.png")
    swapper.pipeline.save_pretrained(tmp_path / "tiny")
    line = ["identity", tmp_path / "barred.png", "-o", tmp_path / "me.safetensors", "--checkpoint", tmp_path / "tiny"]
    assert cli.main([*map(str, line), "--device", "cpu", "--quiet"]) == 0
    written = SourceIdentity.load(tmp_path / "me.safetensors").texture
    wanted, unmended = (each.encode_source([covered]).texture for each in (swapper, blind))
    assert written is not None
    assert wanted is not None
    assert unmended is not None
    np.testing.assert_array_equal(written.pixels, wanted.pixels)
    assert not np.array_equal(wanted.pixels, unmended.pixels)


def test_a_target_keeps_its_brows_where_the_source_hides_them(swapper: FaceSwapper):
    source = aligned(swapper, load_photo(WOMAN).rgb)
    identity = swapper.encode_face(load_photo(WOMAN).rgb, source)
    target = aligned(swapper, load_photo(SELFIE).rgb)
    brows = cv2.erode(region_mask_from_landmarks(target.landmarks, len(target.pixels), "brows"), np.ones((3, 3))) > 0
    assert identity.texture is not None
    hidden = replace(identity.texture, confidence=identity.texture.confidence.copy(), skin=None)
    hidden.confidence[: len(hidden.confidence) // 2] = 0
    kept = swapper.draw_reference(target, replace(identity, texture=hidden, head=None))
    replaced = swapper.draw_reference(target, identity)
    assert kept is not None
    assert replaced is not None
    assert np.abs(kept.pixels - target.pixels)[brows].mean() < 3
    assert kept.coverage[brows].mean() > 0.9
    assert np.abs(replaced.pixels - target.pixels)[brows].mean() > 6


def test_brows_behind_a_frame_are_not_mended_into_skin(swapper: FaceSwapper):
    rgb = load_photo(WOMAN).rgb
    bare = aligned(swapper, rgb)
    brows = brow_masks(bare.landmarks, len(bare.pixels))
    framed_brows = [replace(bare, covered=covered) for covered in (np.maximum(*brows), 0.3 * brows[0])]
    hidden, seen = (swapper.encode_face(rgb, face) for face in framed_brows)
    target = aligned(swapper, load_photo(SELFIE).rgb)
    kept, replaced = (swapper.draw_reference(target, identity) for identity in (hidden, seen))
    assert kept is not None
    assert replaced is not None
    inside = cv2.erode(np.maximum(*brow_masks(target.landmarks, len(target.pixels))), np.ones((3, 3))) > 0
    differences = [np.abs(drawn.pixels - target.pixels)[inside].mean() for drawn in (kept, replaced)]
    assert differences[0] < 6
    assert differences[1] > 40


@pytest.mark.parametrize("region", ["face", "head"])
def test_a_target_keeps_its_forehead_where_the_source_shows_none(swapper: FaceSwapper, region: str):
    source = aligned(swapper, load_photo(WOMAN).rgb)
    identity = swapper.encode_face(load_photo(WOMAN).rgb, source, region)
    assert identity.texture is not None
    bare = replace(identity, head=None)  # nothing of it is known beyond the mesh
    target = aligned(swapper, load_photo(SELFIE).rgb)
    size = len(target.pixels)
    skin = region_mask(target.labels, "skin") * above_brows(target.landmarks, size)
    above = cv2.erode(skin * (1 - region_mask_from_landmarks(target.landmarks, size)), np.ones((5, 5))) > 0
    assert above.sum() > 50
    drawn = swapper.draw_reference(target, bare)
    assert drawn is not None
    if region == "head":
        assert drawn.coverage[above].max() == 0  # hair will be painted there
    else:
        assert drawn.coverage[above].mean() > 0.8
        assert np.abs(drawn.pixels - target.pixels)[above].mean() < 3


def test_a_target_keeps_its_eyes_where_the_source_wears_sunglasses(swapper: FaceSwapper):
    rgb = load_photo(WOMAN).rgb
    bare = aligned(swapper, rgb)
    dark = replace(bare, covered=around_eyes(bare.landmarks, len(bare.pixels)))
    seen, hidden = (swapper.encode_face(rgb, face) for face in (bare, dark))
    assert not seen.eyes_hidden
    assert hidden.eyes_hidden
    assert not average_identities([seen, hidden]).eyes_hidden
    target = aligned(swapper, load_photo(SELFIE).rgb)
    eyes = cv2.erode(around_eyes(target.landmarks, len(target.pixels)), np.ones((7, 7))) > 0
    kept, replaced = (swapper.draw_reference(target, identity) for identity in (hidden, seen))
    assert kept is not None
    assert replaced is not None
    assert np.abs(kept.pixels - target.pixels)[eyes].mean() < 3
    assert np.abs(replaced.pixels - target.pixels)[eyes].mean() > 8


def test_networks_are_had_by_name_or_folder():
    assert load_occlusion() is load_occlusion_network()
    assert load_occlusion("off") is None
    loaded = load_occlusion(CHECKPOINT)
    assert loaded is not None
    assert loaded is not load_occlusion_network()
    for name, value in load_occlusion_network().state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    with pytest.raises(ValueError, match="'auto', 'off', or the folder"):
        load_occlusion("nowhere")
