"""References: a painted face on another mesh, by hand; and faces of real photos drawn on their own photos."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from faceswap_diffusion.conditioning.reference import (
    Reference,
    SourceHead,
    draw_reference,
    lay_over,
    render_surroundings,
    render_texture,
    ring_reach,
    shown_around,
)
from faceswap_diffusion.conditioning.tone import beardless_skin
from faceswap_diffusion.faces.alignment import crop, ffhq_matrix, transform_points
from faceswap_diffusion.faces.analyzer import MeshFaceAnalyzer
from faceswap_diffusion.faces.lighting import face_light, light_angles
from faceswap_diffusion.faces.mesh_topology import INNER_LIPS_478
from faceswap_diffusion.faces.surface import NOTHING, face_surface, rasterize
from faceswap_diffusion.faces.texture import FaceTexture, extract_texture, fill_by_mirror, mouth_width, to_lab
from faceswap_diffusion.masks.parsing import LABELS, load_face_parser
from faceswap_diffusion.masks.regions import region_mask, repaint_mask
from faceswap_diffusion.photos.loading import load_photo
from tests.canonical_face import GREY, SIDE, CanonicalFace, canonical_face, lit_face, paint, plain

SIZE = (SIDE, SIDE)
SKIN = (200, 165, 150)
IMAGES = Path(__file__).parents[2] / "examples" / "images"


def texture_of(face: CanonicalFace, picture: np.ndarray, visible: np.ndarray | None = None) -> FaceTexture:
    return extract_texture(picture, face.landmarks, face.depth, visible, size=SIDE, remove_light=False)


def covered_by(face: CanonicalFace, triangles: np.ndarray) -> np.ndarray:
    """Where a face shows some of its triangles."""
    surface = face_surface()
    seen = rasterize(face.landmarks, surface.triangles, SIZE, face.depth)
    return triangles[np.maximum(seen, 0)] & (seen != NOTHING)


def on_grey(drawn: Reference) -> np.ndarray:
    """A reference as a picture (H, W, 3) uint8, on the grey that painted faces have around them."""
    coverage = drawn.coverage[..., None]
    return np.round(coverage * drawn.pixels + (1 - coverage) * GREY).astype(np.uint8)


def well_inside(mask: np.ndarray) -> np.ndarray:
    return cv2.erode(mask.astype(np.uint8), np.ones((3, 3))) > 0


class TestRender:
    def test_a_face_on_its_own_mesh_is_itself(self):
        face = canonical_face()
        picture = paint(face, plain(*SKIN))
        drawn = render_texture(texture_of(face, picture), face.landmarks, face.depth, SIZE)
        inside = cv2.erode(covered_by(face, np.ones(910, bool)).astype(np.uint8), np.ones((9, 9))) > 0
        assert drawn.coverage[inside].mean() > 0.99
        assert (drawn.coverage[picture[..., 0] == 90] == 0).all()
        assert np.abs(drawn.pixels - picture)[inside & (drawn.coverage > 0.99)].max() < 8

    def test_sides_that_the_source_hides_are_not_covered(self):
        source, target = canonical_face(yaw=50), canonical_face(yaw=-30)
        texture = texture_of(source, paint(source, plain(*SKIN)))
        surface = face_surface()
        far = (surface.uv[surface.triangles][..., 0] > 0.85).all(axis=1)
        near = (surface.uv[surface.triangles][..., 0] < 0.4).all(axis=1)
        drawn = render_texture(texture, target.landmarks, target.depth, SIZE)
        filled = render_texture(fill_by_mirror(texture), target.landmarks, target.depth, SIZE)
        assert (drawn.coverage[well_inside(covered_by(target, far))] == 0).all()
        assert drawn.coverage[well_inside(covered_by(target, near))].mean() > 0.95
        assert (filled.coverage[well_inside(covered_by(target, far))] > 0.2).all()

    @pytest.mark.parametrize(("wider", "brighter"), [(-0.1, 0), (0.08, 0), (0.13, 5), (0.18, 10), (0.5, 10)])
    def test_folds_go_as_far_as_a_smile_does(self, wider: float, brighter: float):
        face = canonical_face()
        texture = texture_of(face, paint(face, plain(*SKIN)))
        folds = np.zeros_like(texture.pixels)
        folds[..., 0] = 10
        smiling = replace(texture, folds=folds, mouth_width=mouth_width(face.landmarks, face.depth) + wider)
        plainly, drawn = (render_texture(one, face.landmarks, face.depth, SIZE) for one in (texture, smiling))
        inside = cv2.erode(covered_by(face, np.ones(910, bool)).astype(np.uint8), np.ones((9, 9))) > 0
        difference = (to_lab(drawn.pixels) - to_lab(plainly.pixels))[inside & (drawn.coverage > 0.99)]
        np.testing.assert_allclose(np.median(difference, axis=0), [brighter, 0, 0], atol=0.3)

    def test_a_pupil_lies_where_the_target_looks(self):
        surface = face_surface()
        pupils = surface.uv[[468, 473]]
        radius = 0.175 * (surface.uv[469, 0] - surface.uv[471, 0])  # 0.35 of the iris

        def red_pupils(uv: np.ndarray) -> np.ndarray:
            near = np.linalg.norm(uv[:, None] - pupils, axis=2).min(axis=1) < radius
            return np.where(near[:, None], [230.0, 20, 20], [200.0, 180, 170])

        source, target = canonical_face(gaze=0.25), canonical_face(yaw=15, gaze=-0.25)
        drawn = render_texture(texture_of(source, paint(source, red_pupils)), target.landmarks, target.depth, SIZE)
        red = (drawn.pixels[..., 0] - drawn.pixels[..., 1] > 100) & (drawn.coverage > 0.5)
        count, _, _, centres = cv2.connectedComponentsWithStats(red.astype(np.uint8))
        assert count == 3  # with what is not red
        straight = canonical_face(yaw=15).landmarks[[468, 473]]
        moved = np.abs(target.landmarks[[468, 473]] - straight)[:, 0]
        assert moved.min() > 2.5  # pixels: an iris left behind would be seen
        np.testing.assert_allclose(sorted(centres[1:].tolist()), target.landmarks[[468, 473]], atol=1)

    def test_a_mouth_that_was_closed_does_not_show_its_inside(self):
        closed, ajar, wide = (canonical_face(mouth=drop) for drop in (-0.54, 0.3, 1.5))
        picture = paint(closed, plain(*SKIN))
        inside = well_inside(covered_by(wide, face_surface().mouth))
        assert inside.sum() > 200
        shut = texture_of(closed, picture)
        assert shut.mouth_opening < 0.01
        drawn = render_texture(shut, wide.landmarks, wide.depth, SIZE)
        assert (drawn.coverage[inside] == 0).all()
        lips = np.isin(face_surface().triangles, [*INNER_LIPS_478]).any(axis=1) & ~face_surface().mouth
        assert drawn.coverage[well_inside(covered_by(wide, lips))].mean() > 0.7
        # A mouth open as wide shows it, one that is ajar does not.
        same = render_texture(texture_of(wide, paint(wide, plain(*SKIN))), wide.landmarks, wide.depth, SIZE)
        less = render_texture(texture_of(ajar, paint(ajar, plain(*SKIN))), wide.landmarks, wide.depth, SIZE)
        assert same.coverage[inside].mean() > 0.9
        assert (less.coverage[inside] == 0).all()

    @pytest.mark.parametrize("height", [40, 100, 200])
    def test_a_texture_finer_than_the_drawing_is_averaged(self, height: int):
        """Stripes of a texel, of which two to sixteen fall on a pixel, come out grey and not as a pattern."""
        stripes = np.zeros((1024, 1024, 3), np.float32)
        stripes[:, ::2] = 255
        known = np.ones((1024, 1024), np.float32)
        texture = FaceTexture(stripes, known, 1.0, np.array([0.26, 0.26]), 0.11)
        face = canonical_face(height=height)
        drawn = render_texture(texture, face.landmarks, face.depth, SIZE)
        assert (drawn.coverage > 0.9).sum() > 0.5 * (height / 2) ** 2
        np.testing.assert_allclose(drawn.pixels[drawn.coverage > 0.9], 127.5, atol=0.1)

    @pytest.mark.parametrize("closed", [0, 1])
    def test_a_closed_eye_is_left_out_on_its_side_alone(self, closed: int):
        face = canonical_face()
        texture = texture_of(face, paint(face, plain(*SKIN)))
        assert texture.eye_opening == pytest.approx([0.2586, 0.2586], abs=1e-3)
        openings = texture.eye_opening.copy()
        openings[closed] *= 0.45
        drawn = render_texture(replace(texture, eye_opening=openings), face.landmarks, face.depth, SIZE)
        surface = face_surface()
        on_left = surface.uv[surface.triangles][..., 0].mean(axis=1) < 0.5
        left, right = (well_inside(covered_by(face, surface.eyes & side)) for side in (on_left, ~on_left))
        hidden, shown = (left, right) if closed == 0 else (right, left)
        assert (drawn.coverage[hidden] == 0).all()
        assert (drawn.coverage[shown] > 0.9).all()

    @pytest.mark.parametrize("yaw", [0, 30, -40])
    def test_what_is_in_front_of_the_source_never_appears(self, yaw: float):
        source, target = canonical_face(), canonical_face(yaw)
        picture, visible = paint(source, plain(90, 90, 200)), np.ones(SIZE, np.float32)
        picture[80:120, 60:200], visible[80:120, 60:200] = (255, 0, 255), 0  # glasses
        texture = texture_of(source, picture, visible)
        for known in (texture, fill_by_mirror(texture)):
            drawn = render_texture(known, target.landmarks, target.depth, SIZE)
            assert np.abs(drawn.pixels[..., 0] - 90)[drawn.coverage > 0].max() < 3
            assert 0.2 < (drawn.coverage > 0).mean() < 0.5

    @pytest.mark.parametrize("yaw", [0, 20, -30])
    def test_the_light_that_it_is_given_is_found_on_it(self, yaw: float):
        light = np.array([3.0, -0.1, 0.2, -0.6, 0, 0, 0, 0, 0])
        target, flat = canonical_face(yaw), canonical_face()
        texture = texture_of(flat, paint(flat, plain(150, 150, 150)))
        drawn = render_texture(fill_by_mirror(texture), target.landmarks, target.depth, SIZE, light)
        found = face_light(on_grey(drawn), target.landmarks, target.depth)
        wanted = face_light(lit_face(target, light), target.landmarks, target.depth)
        assert light_angles(found[None], wanted[None])[0] < 5

    def test_a_face_lit_from_one_side_is_drawn_as_lit_from_the_other(self):
        source, target = canonical_face(), canonical_face(yaw=10)
        right, left = (np.array([3.0, 0.2, 0.1, side, 0, 0, 0, 0, 0]) for side in (0.5, -0.5))
        texture = extract_texture(lit_face(source, right), source.landmarks, source.depth, size=SIDE)
        drawn = render_texture(fill_by_mirror(texture), target.landmarks, target.depth, SIZE, left)
        found = face_light(on_grey(drawn), target.landmarks, target.depth)
        wanted = face_light(lit_face(target, left), target.landmarks, target.depth)
        opposite = face_light(lit_face(target, right), target.landmarks, target.depth)
        assert light_angles(found[None], wanted[None])[0] < 8
        assert light_angles(wanted[None], opposite[None])[0] > 60


class TestOpenMouth:
    """A source whose mouth is closed, on a target that laughs with red teeth."""

    source, target = canonical_face(mouth=-0.54), canonical_face(mouth=1.5)

    def drawn(self, **settings) -> tuple[Reference, np.ndarray]:
        """The reference, and where the target shows the inside of its mouth."""
        inside = covered_by(self.target, face_surface().mouth)
        picture = paint(self.target, plain(*SKIN))
        picture[cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) > 0] = (250, 0, 0)
        texture = texture_of(self.source, paint(self.source, plain(*SKIN)))
        face, skin = self.target, beardless_skin(self.target.landmarks, SIZE)
        return draw_reference(texture, picture, face.landmarks, face.depth, skin, **settings), well_inside(inside)

    def test_it_keeps_the_targets_teeth(self):
        drawn, inside = self.drawn()
        assert (drawn.coverage[inside] > 0.9).all()
        np.testing.assert_allclose(drawn.pixels[inside].mean(axis=0), (250, 0, 0), atol=3)
        x, y = np.round(self.target.landmarks[17]).astype(int)  # below the lower lip
        np.testing.assert_allclose(drawn.pixels[y, x], SKIN, atol=8)

    def test_it_is_a_hole_if_told_so(self):
        drawn, inside = self.drawn(keep_mouth=False)
        assert (drawn.coverage[inside] == 0).all()

    @pytest.mark.parametrize(("source_teeth", "shown"), [((90, 20, 20), (240, 240, 240)), ((230, 230, 210),) * 2])
    def test_of_two_open_mouths_the_source_is_drawn_unless_it_is_darker(self, source_teeth: tuple, shown: tuple):
        target, inside = self.target, covered_by(self.target, face_surface().mouth)
        pictures = [paint(target, plain(*SKIN)) for _ in range(2)]
        for picture, teeth in zip(pictures, (source_teeth, (240, 240, 240)), strict=True):
            picture[cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) > 0] = teeth
        skin = beardless_skin(target.landmarks, SIZE)
        drawn = draw_reference(texture_of(target, pictures[0]), pictures[1], target.landmarks, target.depth, skin)
        np.testing.assert_allclose(drawn.pixels[well_inside(inside)].mean(axis=0), shown, atol=4)

    @pytest.mark.parametrize(
        ("source_yaw", "target_yaw", "kept"), [(0, 5, False), (30, 28, False), (30, 0, True), (25, -25, True)]
    )
    def test_teeth_seen_from_another_side_stay_the_targets(self, source_yaw: float, target_yaw: float, kept: bool):
        faces = [canonical_face(yaw, mouth=1.5) for yaw in (source_yaw, target_yaw)]
        insides = [covered_by(face, face_surface().mouth) for face in faces]
        pictures = [paint(face, plain(*SKIN)) for face in faces]
        for picture, inside, teeth in zip(pictures, insides, (230, 200), strict=True):
            picture[cv2.dilate(inside.astype(np.uint8), np.ones((5, 5))) > 0] = teeth
        source, target = faces
        skin = beardless_skin(target.landmarks, SIZE)
        texture = texture_of(source, pictures[0])
        drawn = draw_reference(texture, pictures[1], target.landmarks, target.depth, skin)
        shown = drawn.pixels[well_inside(insides[1])].mean()
        assert abs(shown - 200) < 4 if kept else shown > 215


def test_layers_by_hand():
    below = Reference(np.full((1, 4, 3), 100, np.float32), np.array([[1.0, 0.5, 0.5, 0]], np.float32))
    above = Reference(np.full((1, 4, 3), 200, np.float32), np.array([[0.0, 1.0, 0.5, 0]], np.float32))
    laid = lay_over(below, above)
    np.testing.assert_allclose(laid.coverage, [[1, 1, 0.75, 0]])
    # The last but one: 0.5 of the upper, 0.5 * 0.5 of the lower, over 0.75.
    np.testing.assert_allclose(laid.pixels[0, :3, 0], [100, 200, (0.5 * 200 + 0.25 * 100) / 0.75], rtol=1e-6)


class TestSurroundings:
    """A green head around a face in skin colour, carried onto a face twice as small."""

    @staticmethod
    def head(shown: np.ndarray, reach: float = 1.4) -> SourceHead:
        source = canonical_face()
        picture = paint(source, plain(*SKIN))
        picture[picture[..., 0] == 90] = SKIN
        return SourceHead(picture, source.landmarks, shown, reach)

    def test_skin_goes_on_around_the_face_in_the_faces_tone(self):
        target = canonical_face(height=100)
        face = Reference(
            paint(target, plain(120, 90, 80)).astype(np.float32),
            covered_by(target, np.ones(910, bool)).astype(np.float32),
        )
        around = render_surroundings(self.head(np.ones(SIZE, np.float32)), face, target.landmarks)
        ring = (around.coverage > 0.99) & (face.coverage == 0)
        assert 0.05 < ring.mean() < 0.3
        np.testing.assert_allclose(around.pixels[ring].mean(axis=0), (120, 90, 80), atol=3)
        y, x = np.nonzero(around.coverage)
        outline = target.landmarks
        assert x.min() >= outline[:, 0].min() - 0.4 * np.ptp(outline[:, 0]) - 1
        assert y.max() <= outline[:, 1].max() + 0.4 * np.ptp(outline[:, 1]) + 1

    def test_hair_around_a_brighter_face_stays_dark(self):
        target = canonical_face(height=100)
        head = self.head(np.ones(SIZE, np.float32))
        rows = np.arange(SIDE)[:, None] < canonical_face().landmarks[:, 1].min() - 4
        head.image[np.broadcast_to(rows, SIZE)] = (20, 18, 17)
        bright = paint(target, plain(250, 235, 225)).astype(np.float32)
        face = Reference(bright, covered_by(target, np.ones(910, bool)).astype(np.float32))
        around = render_surroundings(head, face, target.landmarks)
        hair = (around.coverage > 0.99) & (around.pixels.max(axis=2) < 100)
        assert hair.any()
        assert np.median(around.pixels[hair]) < 30  # a shift of L* by 23 would make it 66

    def test_what_the_source_does_not_show_there_is_a_hole(self):
        shown = np.ones(SIZE, np.float32)
        shown[:, :128] = 0
        head = self.head(shown)
        head.image[:, :126] = (255, 0, 255)
        target = canonical_face(height=100)
        face = Reference(np.full((*SIZE, 3), 100, np.float32), np.ones(SIZE, np.float32))
        around = render_surroundings(head, face, target.landmarks)
        assert (around.coverage[:, :127] == 0).all()
        assert (around.coverage[:, 129:] > 0.99).any()

    def test_the_reach_is_the_regions(self):
        assert [ring_reach(region) for region in ("face", "mouth", "head", "hair")] == [1.4, 1.4, 2.0, 2.0]
        face = canonical_face()
        labels = np.full(SIZE, LABELS.index("background"), np.uint8)
        labels[20:240, 30:226] = LABELS.index("hair")
        labels[covered_by(face, np.ones(910, bool))] = LABELS.index("skin")
        for region, hair in (("face", 0), ("head", 1)):
            shown = shown_around(labels, face.landmarks, region)
            assert shown[26, 128] == hair  # above the mesh
            assert shown[128, 128] == 1
            assert shown[10, 128] == 0

    def test_pixels_beside_hair_are_left_out(self):
        face = canonical_face()
        labels = np.full(SIZE, LABELS.index("skin"), np.uint8)
        labels[:60] = LABELS.index("hair")
        shown = shown_around(labels, face.landmarks, "face")
        np.testing.assert_array_equal(np.nonzero(shown[:, 128])[0][0], 60 + 3)  # 0.01 of 256 pixels


@pytest.fixture(scope="module")
def aligned():
    """Three portraits as (crop, landmarks, depth, labels), at 256 px."""
    analyzer, parser, found = MeshFaceAnalyzer(), load_face_parser(), {}
    for name in ("p001_portrait", "p005_portrait", "p010_portrait"):
        rgb = load_photo(IMAGES / f"{name}.jpg").rgb
        (face,) = analyzer.analyze(rgb)
        assert face.depth is not None
        matrix = ffhq_matrix(face.landmarks68, SIDE)
        pixels = crop(rgb, matrix, SIDE)
        depth = face.depth * np.sqrt(np.linalg.det(matrix[:, :2]))
        found[name] = pixels, transform_points(face.landmarks, matrix), depth, parser.parse(pixels)
    return found


@pytest.mark.parametrize("name", ["p001_portrait", "p005_portrait", "p010_portrait"])
def test_a_face_drawn_on_its_own_photo_is_the_photo(aligned, name: str):
    pixels, landmarks, depth, labels = aligned[name]
    visible, skin = repaint_mask(labels, landmarks), region_mask(labels, "skin")
    texture = fill_by_mirror(extract_texture(pixels, landmarks, depth, visible))
    head = SourceHead(pixels, landmarks, shown_around(labels, landmarks, "face"), ring_reach("face"))
    drawn = draw_reference(texture, pixels, landmarks, depth, skin, head)
    covered = drawn.coverage * visible
    difference = np.abs(drawn.pixels - pixels).mean(axis=2)
    inside = cv2.erode(visible, np.ones((11, 11)))  # beyond, it has some of the colour of hair
    assert (covered * inside).sum() > 0.97 * inside.sum()
    assert (covered * difference).sum() / covered.sum() < 2.5  # of 255; measured: 0.9 to 1.8
