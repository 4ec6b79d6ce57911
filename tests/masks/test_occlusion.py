"""The occlusion network that ships, on real photos with a drawn bar; its window, planes and contract."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.mesh_topology import dlib68
from faceswap_diffusion.masks.occlusion import (
    CHECKPOINT,
    PLANES,
    OcclusionNetwork,
    cover_mask,
    face_planes,
    load_occlusion_network,
    mend_thin,
    near_face,
    network_input,
    window_matrix,
)
from faceswap_diffusion.masks.outlines import region_mask_from_landmarks
from faceswap_diffusion.photos.loading import load_photo
from tests.canonical_face import canonical_face

IMAGES = Path(__file__).parents[2] / "examples" / "images"
PORTRAITS = ("p001_portrait.jpg", "p005_portrait.jpg", "p006_portrait.jpg", "p010_selfie.jpg")
BEARDED = "p005_portrait.jpg"


@pytest.fixture(scope="module")
def analyzer() -> MeshFaceAnalyzer:
    return MeshFaceAnalyzer()


def aligned(analyzer: MeshFaceAnalyzer, name: str, size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """The largest face of an example, cropped to `size`, and its 478 landmarks in the crop."""
    rgb = load_photo(IMAGES / name).rgb
    face = max(analyzer.analyze(rgb), key=lambda face: np.prod(face.bbox[2:] - face.bbox[:2]))
    matrix = ffhq_matrix(face.landmarks68, size)
    return crop(rgb, matrix, size), transform_points(face.landmarks, matrix)


def with_bar(picture: np.ndarray, landmarks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A blue bar from a cheek across the mouth, and where it is (S, S) bool."""
    start, end = (np.round(landmarks[point]).astype(int).tolist() for point in (123, 288))
    bar = cv2.line(np.zeros(picture.shape[:2], np.uint8), start, end, 1, len(picture) // 12) > 0
    return np.where(bar[..., None], np.uint8([30, 60, 140]), picture), bar


def test_the_shipped_network_is_small_and_in_float32_in_use():
    network = load_occlusion_network()
    assert network is load_occlusion_network()
    assert not network.training
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
    assert sum(file.stat().st_size for file in CHECKPOINT.glob("*.safetensors")) < 1_500_000
    assert not list(CHECKPOINT.glob("*.bin"))


@pytest.mark.parametrize("name", PORTRAITS)
def test_a_bare_face_is_not_called_covered(analyzer, name):
    picture, landmarks = aligned(analyzer, name)
    face = region_mask_from_landmarks(landmarks, len(picture)) > 0
    found = load_occlusion_network().find(picture, landmarks)
    assert found.shape == (256, 256)
    assert found.dtype == np.float32
    assert (found[face] > 0.5).mean() <= 0.02
    assert not found[:20].any()


@pytest.mark.parametrize("name", PORTRAITS)
def test_a_bar_across_a_face_is_found(analyzer, name):
    picture, landmarks = aligned(analyzer, name)
    held, bar = with_bar(picture, landmarks)
    face = region_mask_from_landmarks(landmarks, len(picture)) > 0
    found = load_occlusion_network().find(held, landmarks) > 0.5
    least = 0.6 if name == BEARDED else 0.8  # a part of that bar is taken for his dark beard
    assert (found & bar & face).sum() / ((found | bar) & face).sum() > least
    assert (
        cover_mask(found.astype(np.float32))[cv2.erode(bar.astype(np.uint8), np.ones((5, 5))) * face > 0].mean() > 0.95
    )


def test_crops_of_any_size_and_both_kinds_of_landmarks_give_about_the_same(analyzer):
    picture, landmarks = aligned(analyzer, PORTRAITS[0], 512)
    held, bar = with_bar(picture, landmarks)
    face = region_mask_from_landmarks(landmarks, 512) > 0
    small = cv2.resize(held, (128, 128), interpolation=cv2.INTER_AREA)
    coarse = load_occlusion_network().find(small, (landmarks + 0.5) / 4 - 0.5)
    for found in (load_occlusion_network().find(held, dlib68(landmarks)), cv2.resize(coarse, (512, 512))):
        assert found[bar & face].mean() > 0.7
        assert found[~bar & face].mean() < 0.1


def test_the_window_is_square_around_the_face_whatever_the_crop():
    face = canonical_face(side=256, height=130)
    matrix = window_matrix(face.landmarks, 256, 96)
    moved = transform_points(face.landmarks, matrix)
    low, high = moved.min(axis=0), moved.max(axis=0)
    assert matrix[0, 0] == matrix[1, 1]
    assert np.allclose((low + high) / 2, 47.5, atol=0.5)
    assert (high - low).max() == pytest.approx(96 / 1.3, abs=1)


def test_planes_and_input():
    face = canonical_face(side=96, height=70)
    planes = face_planes(face.landmarks, 96)
    assert planes.shape == (len(PLANES), 96, 96)
    assert set(np.unique(planes)) == {0, 1}
    nose, mouth, eye, chin = (np.round(face.landmarks[point]).astype(int) for point in (4, 13, 159, 199))
    assert [planes[:, y, x].tolist() for x, y in (nose, mouth, eye, chin)] == [
        [1, 0, 1],
        [1, 1, 0],
        [1, 1, 0],
        [1, 0, 0],
    ]
    inputs = network_input(np.full((1, 96, 96, 3), 255, np.uint8), planes[None])
    assert inputs.shape == (1, 6, 96, 96)
    assert (inputs[:, :3] == 1).all()
    assert inputs[0, 3, 0, 0] == -1


def test_cover_mask_keeps_a_thin_line_whole_and_forgets_doubts():
    probability = np.zeros((256, 256), np.float32)
    probability[:, 100] = 0.6
    probability[:, 200] = 0.15
    covered = cover_mask(probability)
    assert covered[128, 99:102].min() > 0.7
    assert 0 < covered[128, 97] < 0.6
    assert max(covered[128, :96].max(), covered[128, 105:].max()) < 0.01


def test_a_face_is_continued_over_thin_things_and_not_over_broad_ones():
    pixels = np.full((256, 256, 3), (200, 150, 120), np.uint8)
    covered = np.zeros((256, 256), np.float32)
    covered[:, 60:66], covered[100:160, 120:180] = 1, 1
    pixels[covered > 0] = 10
    mended, thin, broad = mend_thin(pixels, covered)
    assert np.abs(mended[5:-5, 60:66].astype(int) - (200, 150, 120)).max() <= 2
    assert thin[128, 62] == 1
    assert broad[128, 62] == thin[128, 150] == 0
    assert broad[128, 150] == 1
    assert (mended[110:150, 130:170] == 10).all()


def test_find_refuses_what_is_no_square_rgb_crop():
    landmarks = canonical_face().landmarks
    for crop_array in (np.zeros((8, 9, 3), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3))):
        with pytest.raises(ValueError, match="square RGB crop"):
            load_occlusion_network().find(crop_array, landmarks)


def test_saving_and_loading_gives_the_same_logits(tmp_path):
    torch.manual_seed(0)
    network = OcclusionNetwork(sample_size=32, block_out_channels=(4, 8, 8, 8), layers_per_block=1).eval()
    network.save_pretrained(tmp_path)
    inputs = torch.rand(2, 6, 32, 32) * 2 - 1
    with torch.no_grad():
        logits = network(inputs)
        assert logits.shape == (2, 1, 32, 32)
        assert torch.equal(OcclusionNetwork.from_pretrained(tmp_path).eval()(inputs), logits)
        assert torch.allclose(network(inputs[:1]), logits[:1], atol=1e-5)


def test_only_the_forehead_beyond_the_mesh_counts():
    face = np.zeros((64, 64), np.float32)
    face[20:50, 20:45] = 1
    near = near_face(face)
    assert near[20:50, 20:45].all()
    rows, columns = np.nonzero(near)
    assert (columns.min(), columns.max(), rows.max()) == (20, 44, 49)
    assert rows.min() == 20 - round(0.06 * np.sqrt(face.sum()))
