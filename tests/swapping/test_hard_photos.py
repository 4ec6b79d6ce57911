"""Photos that are hard: what becomes of each kind is told in docs/guides/hard_photographs.md."""

import io
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.faces.alignment import transform_points
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, MAN, SELFIE = (IMAGES / name for name in ("p001_portrait.jpg", "p005_portrait.jpg", "p010_selfie.jpg"))


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference"), name="tiny", occlusion="off")


def resized(path: Path, scale: float) -> np.ndarray:
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(load_photo(path).rgb, None, fx=scale, fy=scale, interpolation=interpolation)


class FromTheSide(MeshFaceAnalyzer):
    """An analyzer that says of all faces that they are turned."""

    def analyze(self, image: np.ndarray) -> list[Face]:
        return [replace(face, head_pose=np.array([-72.0, 0, 0])) for face in super().analyze(image)]


def changed(result, rgb: np.ndarray) -> np.ndarray:
    return (np.asarray(result.image) != rgb).any(axis=2)


@pytest.mark.parametrize("degrees", range(30, 360, 30))
def test_faces_are_found_at_any_roll(swapper: FaceSwapper, degrees: int):
    rgb = resized(MAN, 0.5)
    upright = swapper.survey(rgb).faces[0]
    side = len(rgb)
    turn = cv2.getRotationMatrix2D(((side - 1) / 2,) * 2, -degrees, 1)  # clockwise, as roll is
    turned = cv2.warpAffine(rgb, turn, (side, side), borderMode=cv2.BORDER_REPLICATE)
    found = swapper.survey(turned)
    assert found.dropped == []
    (face,) = found.faces
    assert face.head_pose is not None
    assert upright.head_pose is not None
    assert (face.head_pose[2] - upright.head_pose[2] - degrees + 180) % 360 - 180 == pytest.approx(0, abs=4)
    errors = np.linalg.norm(face.landmarks - transform_points(upright.landmarks, turn), axis=1)
    assert errors.mean() < 0.02 * np.ptp(upright.landmarks[:, 1])


@pytest.mark.parametrize("width", [24, 40])
def test_small_faces_are_swapped(swapper: FaceSwapper, width: int):
    (large,) = swapper.find_faces(load_photo(SELFIE).rgb)
    rgb = resized(SELFIE, width / np.ptp(large.bbox[[0, 2]]))
    result = swapper.swap(WOMAN, rgb)
    (face,) = result.faces
    assert np.ptp(face.bbox[[0, 2]]) == pytest.approx(width, abs=4)
    left, top, right, bottom = face.bbox.round().astype(int)
    inside = changed(result, rgb)[top:bottom, left:right]
    assert inside.mean() > 0.5
    assert changed(result, rgb).sum() < 2 * inside.size


@pytest.mark.slow
def test_a_face_of_4000_pixels_is_swapped(swapper: FaceSwapper):
    (small,) = swapper.find_faces(load_photo(SELFIE).rgb)
    rgb = resized(SELFIE, 4000 / np.ptp(small.bbox[[1, 3]]))
    result = swapper.swap(WOMAN, rgb)
    (face,) = result.faces
    assert np.ptp(face.bbox[[1, 3]]) == pytest.approx(4000, rel=0.1)
    assert result.image.size == rgb.shape[1::-1]
    assert changed(result, rgb).sum() > 4000 * 2000 / 2


@pytest.mark.parametrize(("side", "share"), [("left", 0.3), ("right", 0.3), ("top", 0.3), ("bottom", 0.2)])
def test_faces_cut_by_the_edge_are_swapped_up_to_it(swapper: FaceSwapper, side: str, share: float):
    rgb = resized(WOMAN, 0.5)
    (face,) = swapper.find_faces(rgb)
    low, high = face.landmarks.min(axis=0), face.landmarks.max(axis=0)
    left, top = (low + share * (high - low)).astype(int)
    right, bottom = (high - share * (high - low)).astype(int)
    parts = {"left": np.s_[:, left:], "right": np.s_[:, :right], "top": np.s_[top:], "bottom": np.s_[:bottom]}
    cut = np.ascontiguousarray(rgb[parts[side]])
    result = swapper.swap(SELFIE, cut)
    (found,) = result.faces
    offset = {"left": [left, 0], "top": [0, top]}.get(side, [0, 0])
    eyes = found.keypoints[:2] + offset
    if side != "top":
        assert np.abs(eyes - face.keypoints[:2]).max() < 0.12 * (high - low)[1]
    edge = {"left": np.s_[:, :2], "right": np.s_[:, -2:], "top": np.s_[:2], "bottom": np.s_[-2:]}[side]
    assert changed(result, cut)[edge].mean() > 0.1


def test_a_source_cut_by_the_edge_gives_what_it_shows(swapper: FaceSwapper):
    rgb = load_photo(WOMAN).rgb
    (face,) = swapper.find_faces(rgb)
    middle = int(face.keypoints[2, 0])
    whole, half = (swapper.encode_source([photo]) for photo in (rgb, np.ascontiguousarray(rgb[:, middle:])))
    assert whole.texture is not None
    assert half.texture is not None
    assert half.texture.shown < 0.75 * whole.texture.shown


def test_heavily_compressed_photos_have_the_same_faces(swapper: FaceSwapper):
    for path in (WOMAN, MAN, SELFIE):
        file = io.BytesIO()
        Image.open(path).save(file, "JPEG", quality=10)
        found = swapper.survey(load_photo(file).rgb)
        (clean,) = swapper.find_faces(load_photo(path).rgb)
        (face,) = found.faces
        assert found.dropped == []
        assert np.linalg.norm(face.landmarks - clean.landmarks, axis=1).mean() < 0.03 * np.ptp(clean.landmarks[:, 1])


@pytest.mark.parametrize("noise", [0, 2])
def test_a_photo_that_is_nearly_black_shows_its_face(swapper: FaceSwapper, noise: float):
    grain = np.random.default_rng(0).normal(0, noise, load_photo(SELFIE).rgb.shape)
    rgb = np.clip(load_photo(SELFIE).rgb * 0.05 + grain, 0, 255).round().astype(np.uint8)
    (face,) = swapper.find_faces(rgb)
    (bright,) = swapper.find_faces(load_photo(SELFIE).rgb)
    assert np.linalg.norm(face.landmarks - bright.landmarks, axis=1).mean() < 0.05 * np.ptp(bright.landmarks[:, 1])


def test_a_target_from_the_side_is_swapped_with_a_warning(swapper: FaceSwapper, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("faceswap_diffusion"), "propagate", True)
    turned = FaceSwapper(swapper.pipeline, FromTheSide(), occlusion="off")
    rgb = resized(SELFIE, 0.4)
    source = swapper.encode_source([WOMAN])
    swapper.swap(source, rgb)
    assert "from the side" not in caplog.text
    result = turned.swap(source, rgb)
    assert result.swapped == [0]
    assert "face 0 of target is seen from the side (yaw -72 degrees): above 60 degrees" in caplog.text
