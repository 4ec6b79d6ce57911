"""What is taken for a face and is none."""

from pathlib import Path

import numpy as np
import pytest

from faceswap_diffusion.faces.alignment import keypoints_from_landmarks
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer
from faceswap_diffusion.faces.mesh_topology import dlib68
from faceswap_diffusion.faces.selection import NoFaceFoundError
from faceswap_diffusion.occluders.drawing import Scene
from faceswap_diffusion.occluders.kinds import draw_hand
from faceswap_diffusion.photos.loading import load_photo
from faceswap_diffusion.swapping.second_look import LEAST_PARTS, parts_seen
from faceswap_diffusion.swapping.swapper import FaceSwapper
from tests.tiny import tiny_pipeline

IMAGES = Path(__file__).parents[2] / "examples" / "images"
WOMAN, SELFIE = IMAGES / "p001_portrait.jpg", IMAGES / "p010_selfie.jpg"
LEFT_EAR, LIPS = 234, 13
KEYPOINTS = np.array([[-1, -1], [1, -1], [0, 0.2], [-0.8, 1.2], [0.8, 1.2]])
"""Of a face around the origin."""


class MistakenAnalyzer(MeshFaceAnalyzer):
    """An analyzer that takes an ear, or skin around the lips, for a face too, and is surer of it than of faces."""

    def __init__(self, point: int, with_face: bool = True):
        super().__init__()
        self.point, self.with_face = point, with_face

    def analyze(self, image: np.ndarray) -> list[Face]:
        faces = super().analyze(image)
        size = 0.06 * np.ptp(faces[0].landmarks[:, 1])
        mesh = self.mesh(image, faces[0].landmarks[self.point] + size * KEYPOINTS)
        assert mesh.confidence > 0.9  # the mesh is sure, too
        points = mesh.landmarks
        box = np.concatenate([points.min(axis=0), points.max(axis=0)])
        mistake = Face(
            box, 0.99, keypoints_from_landmarks(points), points, dlib68(points), head_pose=mesh.head_pose,
            blendshapes=mesh.blendshapes, depth=mesh.depth,
        )  # fmt: skip
        return [*(faces if self.with_face else []), mistake]


@pytest.mark.parametrize("point", [LEFT_EAR, LIPS])
def test_an_ear_or_skin_is_no_face(point: int):
    swapper = FaceSwapper(tiny_pipeline(crop_size=128), MistakenAnalyzer(point), "tiny")
    honest = FaceSwapper(swapper.pipeline, MeshFaceAnalyzer(), "tiny")
    source = honest.encode_source([SELFIE])
    result, wanted = (each.swap(source, WOMAN, target_face="all") for each in (swapper, honest))
    assert result.swapped == [0]
    assert len(result.faces) == 1
    (dropped,) = result.dropped
    assert dropped.face.score == 0.99
    assert dropped.reason.startswith("no eyes, nose and mouth in their places (agreement 0.")
    np.testing.assert_array_equal(np.asarray(result.image), np.asarray(wanted.image))
    assert wanted.dropped == []


def test_a_photo_that_shows_nothing_else_has_no_face():
    swapper = FaceSwapper(tiny_pipeline(crop_size=128), MistakenAnalyzer(LEFT_EAR, with_face=False), "tiny")
    assert swapper.find_faces(load_photo(WOMAN).rgb) == []
    told = r"no face found in .*: what looks like one \(score 0\.99, seen from a yaw of [+-]\d+ degrees\) has no eyes"
    with pytest.raises(NoFaceFoundError, match=told):
        swapper.encode_source([WOMAN])
    with pytest.raises(NoFaceFoundError, match=told):
        swapper.swap(SELFIE, WOMAN, target_face=0)


@pytest.mark.parametrize("crop_size", [32, 64, 128])
def test_faces_in_example_photos_are_faces_at_any_crop_size(crop_size: int):
    swapper = FaceSwapper(tiny_pipeline(crop_size=crop_size), occlusion="off")
    for path in sorted(IMAGES.glob("*.jpg")):
        found = swapper.survey(load_photo(path).rgb)
        assert found.dropped == []
        assert all(parts_seen(face) >= LEAST_PARTS for face in found.aligned) or crop_size < 64


@pytest.mark.parametrize("scale", [0.6, 1.0, 2.0])
def test_drawn_hands_are_no_faces(scale: float):
    swapper = FaceSwapper(tiny_pipeline(crop_size=64), occlusion="off")
    skin, other = (load_photo(path).rgb[192:448, 192:448] for path in (WOMAN, SELFIE))
    mesh = MeshFaceAnalyzer().analyze(load_photo(WOMAN).rgb)[0].landmarks
    mesh = (mesh - mesh.mean(axis=0)) * scale / 2 + 128
    for seed in range(4):
        hand = draw_hand(Scene(skin, mesh, other), np.random.default_rng(seed), where=np.array([128.0, 110]))
        wall = np.full((256, 256, 3), 60 * seed + 40, np.uint8)
        assert swapper.find_faces(hand.over(wall)) == []
