"""What a swap repaints: regions that users name, what they keep, and the masks that they paint."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.alignment import uncrop
from faceswap_diffusion.masks.regions import repaint_mask
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.options import SwapOptions
from faceswap_diffusion.swapping.painted import PaintedMasks
from faceswap_diffusion.swapping.source_identity import SourceIdentity
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, SELFIE = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference", masked_latents="mode"), name="tiny")


@pytest.fixture(scope="module")
def identity(swapper: FaceSwapper) -> SourceIdentity:
    return swapper.encode_source([WOMAN])


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return load_photo(SELFIE).rgb


@pytest.fixture(scope="module")
def masks(swapper: FaceSwapper, photo: np.ndarray) -> dict[str, np.ndarray]:
    """The inside of parts of the photo's face, without the last pixel of the crop, (H, W) bool."""
    (face,) = swapper.survey(photo).aligned
    parts = {name: repaint_mask(face.labels, face.landmarks, name, pixels=face.pixels) for name in ("mouth", "eyes")}
    cores = {name: cv2.erode(mask, np.ones((3, 3))) for name, mask in parts.items()}
    return {name: uncrop(mask, face.matrix, photo.shape[1::-1]) > 0.9 for name, mask in cores.items()}


def changed(image: Image.Image, photo: np.ndarray) -> np.ndarray:
    return (np.asarray(image) != photo).any(axis=2)


def test_what_is_kept_stays_to_the_byte_and_the_rest_is_swapped(swapper, identity, photo, masks):
    whole, kept = (swapper.swap(identity, photo, keep=keep) for keep in (None, "mouth+eyes"))
    for mask in masks.values():
        assert changed(whole.image, photo)[mask].mean() > 0.9
        assert not changed(kept.image, photo)[mask].any()
    elsewhere = (np.asarray(whole.mask) > 200) & ~masks["mouth"] & ~masks["eyes"]
    assert changed(kept.image, photo)[elsewhere].mean() > 0.6
    assert kept.provenance["keep"] == "mouth+eyes"
    assert whole.provenance["keep"] is None


def test_an_identity_for_the_face_serves_its_parts_and_their_unions(swapper, identity, photo, masks):
    result = swapper.swap(identity, photo, region="eyes + Lower_Face")
    assert changed(result.image, photo)[masks["eyes"]].mean() > 0.9
    assert changed(result.image, photo)[masks["mouth"]].mean() > 0.9
    with pytest.raises(ValueError, match=r"encoded for region 'face' and lacks what 'eyes\+hair' shows"):
        swapper.swap(identity, photo, region="eyes+hair")


def test_painted_masks_are_added_and_taken_away_to_the_pixel(swapper, identity, photo, masks, tmp_path: Path):
    added, kept = (np.zeros(photo.shape[:2], np.uint8) for _ in range(2))
    middle = int(np.nonzero(masks["mouth"])[1].mean())
    added[masks["mouth"]] = 255
    kept[:, :middle] = 255
    Image.fromarray(kept).save(tmp_path / "kept.png")
    result = swapper.swap(
        identity, photo, region="eyes", add_mask_image=added, keep_mask_image=str(tmp_path / "kept.png")
    )
    new = changed(result.image, photo)
    assert not new[kept > 0].any()
    right = masks["mouth"] & (kept == 0)
    assert new[right].mean() > 0.6
    assert new[masks["eyes"] & (kept == 0)].mean() > 0.6
    assert np.asarray(result.mask)[kept > 0].max() == 0
    assert result.provenance["region"] == "eyes+mask"
    assert result.provenance["keep"] == "mask"


def test_masks_that_take_the_regions_place_can_be_added_to_as_well(photo):
    half, dot = (np.zeros(photo.shape[:2], np.float32) for _ in range(2))
    half[:5], dot[9, 9] = 1, 1
    allowed = PaintedMasks(half, dot).allowed(photo.shape)
    assert allowed[:5].all()
    assert allowed[9, 9]
    assert allowed.sum() == half.sum() + 1
    assert not PaintedMasks(half, dot, kept=np.ones_like(half)).allowed(photo.shape).any()
    assert PaintedMasks(added=dot).allowed(photo.shape).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"keep": "ear"}, "got region 'ear'; choose one of face"),
        ({"region": "eyes+ear"}, "got region 'ear'; choose one of face"),
        ({"occlusion": "folder"}, "got occlusion 'folder'; a swap takes 'auto' or 'off'"),
    ],
)
def test_wrong_names_are_found_before_the_work(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        SwapOptions(**settings)


def test_keeping_all_is_refused(swapper, identity, photo):
    with pytest.raises(ValueError, match="nothing to repaint on face 0"):
        swapper.swap(identity, photo, region="mouth", keep="lower-face")
