"""Faces that overlap: each keeps its own pixels."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap_diffusion import SwapResult, load_photo
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.mesh_topology import FACE_OVAL_478
from faceswap_diffusion.masks.outlines import face_outline
from faceswap_diffusion.swapping.overlap import AROUND, in_front, outline_distance, own_pixels
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, BACK, FRONT = (IMAGES / name for name in ("p001_portrait.jpg", "p005_portrait.jpg", "p006_portrait.jpg"))


@pytest.fixture(scope="module")
def swapper() -> FaceSwapper:
    return FaceSwapper(tiny_pipeline(crop_size=64, hidden_fill="reference"), name="tiny")


def one_over_another(share: float) -> np.ndarray:
    """A photo in which the head of `FRONT` is pasted over that of `BACK`, a share of its width over the face."""
    analyzer = MeshFaceAnalyzer()
    back, front = (load_photo(path).rgb for path in (BACK, FRONT))
    below, above = (analyzer.analyze(photo)[0] for photo in (back, front))
    height, width = np.ptp(above.landmarks[:, 1]), np.ptp(below.landmarks[:, 0])
    middle = np.int32(above.landmarks.mean(axis=0) - [0, 0.15 * height]).tolist()
    head = np.zeros(front.shape[:2], np.uint8)
    cv2.ellipse(head, middle, np.int32([0.4 * height, 0.66 * height]).tolist(), 0, 0, 360, 255, -1)
    scale = np.ptp(below.landmarks[:, 1]) / height
    goal = below.landmarks.mean(axis=0) + np.array([(1 - share) * width, 0])
    place = np.column_stack([scale * np.eye(2), goal - scale * above.landmarks.mean(axis=0)])
    photo = cv2.copyMakeBorder(back, 0, 0, 0, 200, cv2.BORDER_REPLICATE)
    moved, head = (cv2.warpAffine(plane, place, photo.shape[1::-1]) for plane in (front, head))
    return np.where(head[..., None] > 127, moved, photo)


def inside(face: Face, shape: tuple[int, ...], grown: float = 0.0) -> np.ndarray:
    """The face's outline, filled and grown by a share of its height, (H, W) bool."""
    outline = face_outline(face.landmarks)
    filled = cv2.fillConvexPoly(np.zeros(shape[:2], np.uint8), cv2.convexHull(np.int32(outline.round())), 1)
    radius = round(grown * np.ptp(outline[:, 1]))
    return cv2.dilate(filled, np.ones((2 * radius + 1,) * 2)) > 0


def changed(result: SwapResult, rgb: np.ndarray) -> np.ndarray:
    return (np.asarray(result.image) != rgb).any(axis=2)


@pytest.mark.parametrize(("share", "mirrored"), [(0.15, True), (0.3, False)])
def test_each_face_keeps_its_pixels(swapper: FaceSwapper, share: float, mirrored: bool):
    rgb = np.ascontiguousarray(one_over_another(share)[:, :: -1 if mirrored else 1])
    alone = [swapper.swap(WOMAN, rgb, target_face=which, watermark=False) for which in (0, 1)]
    both = swapper.swap(WOMAN, rgb, target_face="all", watermark=False)
    (back, behind), (front, before) = list(zip(both.faces, alone, strict=True))[:: -1 if mirrored else 1]
    assert in_front(front, back)
    assert not changed(behind, rgb)[inside(front, rgb.shape)].any()
    assert not changed(before, rgb)[inside(back, rgb.shape) & ~inside(front, rgb.shape, 0.15)].any()
    assert changed(behind, rgb)[inside(back, rgb.shape) & ~inside(front, rgb.shape, 0.15)].mean() > 0.6
    differences = [differences_inside(both, swapped) for swapped in (before, behind)]
    assert differences[0].max() <= 1
    assert (differences[1] > 1).mean() < 0.02  # next to the front face, which is painted last


def differences_inside(both: SwapResult, alone: SwapResult) -> np.ndarray:
    """How far two swaps differ where a face was wholly repainted, (N,)."""
    core = np.asarray(alone.mask) == 255
    assert core.sum() > 2_000
    return np.abs(np.asarray(both.image)[core].astype(int) - np.asarray(alone.image)[core]).max(axis=1)


def test_a_mask_of_the_users_spares_other_faces_too(swapper: FaceSwapper):
    rgb = one_over_another(0.3)
    made = swapper.swap(WOMAN, rgb, target_face=0, mask_image=np.ones(rgb.shape[:2], np.float32))
    assert not changed(made, rgb)[inside(made.faces[1], rgb.shape)].any()


def square_face(left: float, score: float) -> Face:
    """A face whose outline is a square of 20 x 20 pixels, 10 below the upper edge."""
    landmarks = np.zeros((478, 2))
    landmarks[:] = [left + 10, 20]
    outline = list(FACE_OVAL_478)
    corners = np.array([[left, 10], [left + 20, 10], [left + 20, 30], [left, 30]])
    landmarks[outline] = corners[np.arange(len(outline)) % 4]
    return Face(np.array([left, 10, left + 20, 30]), score, np.zeros((5, 2)), landmarks, np.zeros((68, 2)))


def test_pixels_of_two_squares_by_hand():
    identity = np.eye(2, 3)
    left, right = square_face(10, 0.9), square_face(26, 0.8)  # 10 to 30 and 26 to 46
    distance = outline_distance(left, identity, 60)
    np.testing.assert_allclose(distance[20, [0, 10, 20, 30, 40]], [0.5, 0, -0.5, 0, 0.5], atol=1e-6)
    of_left, of_right = own_pixels(left, [right], identity, 60), own_pixels(right, [left], identity, 60)
    np.testing.assert_array_equal(of_left + of_right, 1)
    edge = int(30 + AROUND * 20)
    assert (of_left[20, :edge] == 1).all()  # in front: all of it, and what is close around
    assert (of_right[20, edge + 1 : 60] == 1).all()
    # Turned round, the right one has what is in both, and the left one keeps what only it covers.
    of_right = own_pixels(replace(right, score=0.95), [left], identity, 60)
    assert (of_right[20, 25:] == 1).all()
    assert (of_right[20, :24] == 0).all()
    assert own_pixels(left, [square_face(200, 0.8)], identity, 60) is None  # out of the crop


def test_a_face_without_neighbours_has_its_whole_crop(swapper: FaceSwapper):
    rgb = load_photo(WOMAN).rgb
    (face,) = swapper.find_faces(rgb)
    assert swapper.align(rgb, face, [face]).own is None
