"""Drawn things in front of faces: they lie where they belong, and say what they hide."""

import numpy as np
import pytest

from faceswap_diffusion.occluders.drawing import Layers, Scene, rounded
from faceswap_diffusion.occluders.kinds import KINDS, UNSEEN_KINDS, draw_any
from tests.canonical_face import canonical_face

SIZE = 160
EYES, NOSE, MOUTH, CHIN, FOREHEAD = (468, 473), 4, 13, 199, 151
DRAWINGS = {name: draw for name, (draw, _) in KINDS.items()} | UNSEEN_KINDS


@pytest.fixture(scope="module")
def scene() -> Scene:
    noise = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3), dtype=np.uint8)
    return Scene(np.full_like(noise[0], 150), canonical_face(side=SIZE, height=100).landmarks, noise[1])


def draw(scene: Scene, name: str, seed: int):
    return DRAWINGS[name](scene, np.random.default_rng(seed))


def at(plane: np.ndarray, scene: Scene, point: int) -> float:
    x, y = np.round(scene.landmarks[point]).astype(int)
    return float(plane[y, x])


@pytest.mark.parametrize("name", DRAWINGS)
def test_what_is_drawn_is_in_range_and_changes_nothing_else(scene: Scene, name: str):
    for seed in range(4):
        occluder, again = draw(scene, name, seed), draw(scene, name, seed)
        for plane in (occluder.alpha, occluder.covered, occluder.shadow):
            assert plane.shape == (SIZE, SIZE)
            assert 0 <= plane.min() <= plane.max() <= 1.001
        covered = occluder.over(scene.pixels)
        assert np.array_equal(covered, again.over(scene.pixels))
        untouched = (occluder.alpha == 0) & (occluder.shadow == 0)
        assert (covered == scene.pixels)[untouched].all()


def test_lenses_of_eyeglasses_are_clear_and_those_of_sunglasses_hide_the_eyes(scene: Scene):
    clear = [draw(scene, "eyeglasses", seed) for seed in range(20)]
    hidden = [np.mean([at(glasses.covered, scene, eye) for eye in EYES]) for glasses in clear]
    assert np.mean(np.array(hidden) < 0.1) > 0.7  # but for reflections
    assert all(glasses.covered.max() > 0.25 for glasses in clear)
    assert all(at(draw(scene, "sunglasses", seed).covered, scene, eye) > 0.9 for seed in range(10) for eye in EYES)


@pytest.mark.parametrize(
    ("name", "hides", "leaves"),
    [("medical mask", (MOUTH, CHIN), EYES), ("scarf", (CHIN,), EYES), ("hat", (10,), (MOUTH, CHIN, NOSE))],
)
def test_things_are_worn_where_they_belong(scene: Scene, name: str, hides: tuple[int, ...], leaves: tuple[int, ...]):
    for seed in range(8):
        covered = draw(scene, name, seed).covered
        assert min(at(covered, scene, point) for point in hides) > 0.9
        assert max(at(covered, scene, point) for point in leaves) < 0.1


def test_a_straw_begins_in_the_mouth(scene: Scene):
    x, y = np.round(scene.landmarks[14]).astype(int)
    for seed in range(8):
        assert draw(scene, "straw", seed).covered[y - 3 : y + 4, x - 3 : x + 4].max() > 0.5


def test_layers_are_laid_one_over_the_other():
    layers, half = Layers(2), np.full((2, 2), 0.5, np.float32)
    layers.add(np.ones((2, 2), np.float32), (100, 0, 0))
    layers.add(half, (0, 100, 0))
    assert np.allclose(layers.pixels, [50, 50, 0])
    assert (layers.alpha == 1).all()
    alone = Layers(2)
    alone.add(half, (0, 100, 0))
    assert np.allclose(alone.pixels, [0, 100, 0])  # colours are not multiplied by alpha
    assert (alone.alpha == 0.5).all()


def test_a_round_body_is_darker_at_its_edge():
    disc = np.pad(np.ones((21, 21), np.float32), 3)
    brightness = rounded(disc, 10, dark=0.5)[..., 0]
    assert brightness[13, 13] == pytest.approx(1, abs=0.01)
    assert 0.5 < brightness[13, 3] < 0.8


def test_any_kind_of_training_comes_up_but_none_that_is_kept_for_measuring(scene: Scene):
    assert not set(KINDS) & set(UNSEEN_KINDS)
    rng = np.random.default_rng(0)
    assert all(draw_any(scene, rng).alpha.max() > 0 for _ in range(5))
