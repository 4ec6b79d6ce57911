"""The mesh as a surface: how its triangles lie in the texture, and what a raster of two triangles shows by hand."""

import numpy as np
import pytest

from faceswap_diffusion.faces.mesh_topology import EYES_478, FACE_OVAL_478, IRISES_478
from faceswap_diffusion.faces.surface import (
    NOTHING,
    eye_triangles,
    face_surface,
    interpolate,
    rasterize,
    signed_areas,
    surrounding_ring,
    vertex_normals,
)
from tests.canonical_face import canonical_face

# A square of 10 pixels, cut from its upper left to its lower right corner; facing triangles turn like 0, 1, 2.
SQUARE = np.array([[0.0, 0], [0, 10], [10, 10], [10, 0]])
LOWER_LEFT, UPPER_RIGHT = [0, 1, 2], [0, 2, 3]


def polygon_area(points: np.ndarray) -> float:
    """Area of a polygon (N, 2) by the shoelace formula."""
    x, y = points.T
    return 0.5 * abs(x @ np.roll(y, -1) - y @ np.roll(x, -1))


class TestSurface:
    def test_every_triangle_faces_the_viewer_of_the_texture(self):
        surface = face_surface()
        areas = signed_areas(surface.uv[surface.triangles])
        assert surface.triangles.shape == (910, 3)  # 898 of the canonical face, of which 28 are in the eyes, and 40
        assert (areas < 0).all()
        assert 0.6 < -areas.sum() / 2 < 0.8  # of the texture's square

    def test_the_triangles_cover_the_outline_without_overlap(self):
        surface = face_surface()
        areas = -signed_areas(surface.uv[surface.triangles]) / 2
        assert areas.sum() == pytest.approx(polygon_area(surface.uv[list(FACE_OVAL_478)]), rel=1e-6)

    def test_texture_coordinates_are_a_mirror_image_of_themselves(self):
        uv = face_surface().uv
        for left, right in ((33, 263), (61, 291), (234, 454), (468, 473), (471, 474), (469, 476)):
            assert uv[left, 0] + uv[right, 0] == pytest.approx(1, abs=2e-3)
            assert uv[left, 1] == pytest.approx(uv[right, 1], abs=2e-3)
        assert uv[33, 0] < 0.5 < uv[263, 0]  # u to the viewer's right
        assert uv[10, 1] < uv[152, 1]  # v down, from forehead to chin

    def test_eyes_mouth_and_skin_are_told_apart(self):
        surface = face_surface()
        assert surface.eyes.sum() == 40
        assert surface.mouth.sum() == 18  # a polygon of 20 points has 18 triangles
        assert not (surface.skin & (surface.eyes | surface.mouth)).any()
        assert not (surface.eyes & surface.mouth).any()
        lips_and_irises = [0, 13, 14, 17, 468, 473]
        assert not np.isin(surface.triangles[surface.skin], lips_and_irises).any()


@pytest.mark.parametrize(("outline", "iris"), zip(EYES_478, IRISES_478, strict=True))
class TestEyes:
    def test_triangles_between_lids_and_iris_fill_the_eye_once(self, outline: tuple, iris: tuple):
        uv, triangles = face_surface().uv, eye_triangles(outline, iris)
        areas = signed_areas(uv[triangles])
        assert triangles.shape == (20, 3)
        assert (areas < 0).all()
        assert -areas.sum() / 2 == pytest.approx(polygon_area(uv[list(outline)]), rel=1e-9)
        assert set(triangles.ravel()) == {*outline, *iris}

    def test_the_iris_lies_in_the_middle_of_the_eye(self, outline: tuple, iris: tuple):
        uv = face_surface().uv
        left, centre, right = uv[list(iris)]
        np.testing.assert_allclose(centre, uv[list(outline)].mean(axis=0))
        np.testing.assert_allclose((left + right) / 2, centre)
        assert right[0] - left[0] == pytest.approx(0.43 * np.ptp(uv[list(outline), 0]))
        seen = rasterize(uv * 1000, eye_triangles(outline, iris), (1000, 1000))
        for point in (left, centre, right):
            assert seen[tuple(np.round(point * 1000).astype(int)[::-1])] != NOTHING


class TestRaster:
    def test_two_triangles_divide_a_square(self):
        seen = rasterize(SQUARE, np.array([LOWER_LEFT, UPPER_RIGHT]), (13, 12))
        assert seen.shape == (12, 13)
        assert seen[7, 3] == 0
        assert seen[3, 7] == 1
        assert (seen[11] == NOTHING).all()
        assert (seen[:, 11:] == NOTHING).all()

    def test_triangles_that_look_away_are_not_drawn(self):
        away = np.array([LOWER_LEFT[::-1], UPPER_RIGHT])
        seen = rasterize(SQUARE, away, (11, 11))
        assert seen[7, 3] == NOTHING
        assert seen[3, 7] == 1

    @pytest.mark.parametrize(("depth", "nearest"), [((5.0, 1.0), 1), ((1.0, 5.0), 0)])
    def test_the_nearer_triangle_is_drawn_last(self, depth: tuple, nearest: int):
        points = np.concatenate([SQUARE[:3], SQUARE[:3] + np.array([2, 0])])
        depths = np.repeat(depth, 3)
        seen = rasterize(points, np.array([[0, 1, 2], [3, 4, 5]]), (14, 12), depths)
        assert seen[8, 4] == nearest  # both cover it
        assert seen[8, 1] == 0
        assert seen[10, 12] == 1

    def test_values_are_interpolated_as_by_hand(self):
        triangles = np.array([LOWER_LEFT, UPPER_RIGHT])
        values = np.array([[0.0, 1], [10, 1], [30, 1], [20, 1]])  # 0, 10, 30 and 20 at the corners: x * 2 + y
        seen = rasterize(SQUARE, triangles, (13, 12))
        drawn = interpolate(seen, SQUARE, triangles, values)
        assert drawn.dtype == np.float32
        for x, y in ((0, 0), (0, 10), (10, 10), (10, 0), (3, 7), (7, 3), (5, 5)):
            assert drawn[y, x] == pytest.approx([2 * x + y, 1], abs=1e-4)
        assert (drawn[seen == NOTHING] == 0).all()

    def test_each_triangle_has_a_plane_of_its_own(self):
        triangles = np.array([LOWER_LEFT, UPPER_RIGHT])
        values = np.array([[0.0], [0], [0], [10]])  # a fold along the diagonal
        drawn = interpolate(rasterize(SQUARE, triangles, (11, 11)), SQUARE, triangles, values)[..., 0]
        assert drawn[7, 3] == pytest.approx(0, abs=1e-5)
        assert drawn[3, 7] == pytest.approx(4, abs=1e-4)  # x - y

    def test_values_stay_between_those_of_the_corners(self):
        """At the outline of a turned head triangles are slivers, and a pixel's centre lies beside its triangle."""
        surface, face = face_surface(), canonical_face(yaw=50)
        seen = rasterize(face.landmarks, surface.triangles, (256, 256), face.depth)
        drawn = interpolate(seen, face.landmarks, surface.triangles, surface.uv)
        corners = surface.uv[surface.triangles][seen[seen != NOTHING]]
        assert (drawn[seen != NOTHING] >= corners.min(axis=1) - 1e-6).all()
        assert (drawn[seen != NOTHING] <= corners.max(axis=1) + 1e-6).all()

    def test_points_far_outside_leave_the_picture_alone(self):
        far = np.array([[-1e7, -1e7], [-1e7, 1e7], [-1e6, 0]])
        assert (rasterize(far, np.array([[0, 1, 2]]), (8, 8)) == NOTHING).all()


def test_normals_point_out_of_the_head():
    points = np.array([[0.0, 0, 0], [0, 4, 0], [4, 4, 0], [9, 9, 9]])  # in the plane of the picture, and a stray point
    normals = vertex_normals(points, np.array([LOWER_LEFT]))
    np.testing.assert_allclose(normals, [[0, 0, 1]] * 3 + [[0, 0, 0]])
    face = canonical_face()
    normals = vertex_normals(np.column_stack([face.landmarks, face.depth]), face_surface().triangles)
    assert normals[4, 2] > 0.9  # the tip of the nose
    assert normals[10, 1] > 0.3  # the top of the forehead, y up
    assert normals[234, 0] < -0.8  # the outlines, x to the viewer's right
    assert normals[454, 0] > 0.8
    np.testing.assert_allclose(np.linalg.norm(normals, axis=1), 1)


@pytest.mark.parametrize("reach", [0.9, 1.5, 2.0])
def test_a_ring_scales_the_outline_about_its_middle(reach: float):
    landmarks = canonical_face().landmarks
    points, triangles = surrounding_ring(landmarks, reach)
    outline = landmarks[list(FACE_OVAL_478)]
    assert points.shape == (72, 2)
    assert triangles.shape == (72, 3)
    np.testing.assert_array_equal(points[:36], outline)
    np.testing.assert_allclose(points[36:].mean(axis=0), outline.mean(axis=0))
    np.testing.assert_allclose(points[36:] - outline.mean(axis=0), reach * (outline - outline.mean(axis=0)))
    areas = signed_areas(points[triangles])
    assert (np.sign(areas) == (-1 if reach > 1 else 1)).all()
    assert abs(areas).sum() / 2 == pytest.approx(abs(reach**2 - 1) * polygon_area(outline), rel=1e-6)
