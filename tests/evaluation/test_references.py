"""Swaps without a model, on pictures where their outcome is known."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from faceswap_diffusion.evaluation import references
from faceswap_diffusion.faces.analyzer import Face, MeshFaceAnalyzer

IMAGES = Path(__file__).parents[2] / "examples" / "images"


def load(name: str, scale: float = 1.0) -> np.ndarray:
    picture = Image.open(IMAGES / name).convert("RGB")
    return np.asarray(picture.resize((round(picture.width * scale), round(picture.height * scale))))


@pytest.fixture(scope="module")
def pictures() -> dict[str, tuple[np.ndarray, Face]]:
    analyzer = MeshFaceAnalyzer()
    found = {}
    for name, scale in (("source", 0.5), ("target", 0.6)):
        rgb = load({"source": "p005_portrait.jpg", "target": "p010_selfie.jpg"}[name], scale)
        found[name] = (rgb, analyzer.analyze(rgb)[0])
    return found


def test_a_similarity_is_found_again():
    points = np.random.default_rng(0).normal(size=(68, 2)) * 50
    matrix = np.array([[1.2, -0.5, 30.0], [0.5, 1.2, -7.0]])
    np.testing.assert_allclose(references.similarity(points, points @ matrix[:, :2].T + matrix[:, 2]), matrix)


@pytest.mark.parametrize("swap", [references.pasted_source, references.classical_swap])
def test_the_target_put_into_itself_stays_as_it_is(swap, pictures):
    target, face = pictures["target"]
    difference = np.abs(swap(target, face, target, face).astype(int) - target)
    assert difference.mean() < 1
    assert np.percentile(difference, 99) <= 6


@pytest.mark.parametrize("swap", [references.pasted_source, references.classical_swap])
def test_only_the_face_changes(swap, pictures):
    (source, source_face), (target, face) = pictures["source"], pictures["target"]
    result = swap(source, source_face, target, face)
    oval = references.face_oval(face, target.shape)
    assert result.shape == target.shape
    assert np.abs(result[oval].astype(int) - target[oval]).mean() > 10
    assert np.abs(result[~oval].astype(int) - target[~oval]).mean() < 0.3


def test_a_mark_on_the_sources_cheek_lands_where_it_should(pictures):
    (source, source_face), (target, face) = pictures["source"], pictures["target"]
    cheek = 50  # of the mesh
    x, y = np.round(source_face.landmarks[cheek]).astype(int)
    marked = source.copy()
    marked[y - 6 : y + 7, x - 6 : x + 7] = (0, 255, 0)
    matrix = references.similarity(source_face.landmarks68, face.landmarks68)
    column, row = np.round(matrix[:, :2] @ (x, y) + matrix[:, 2]).astype(int)
    pasted = references.pasted_source(marked, source_face, target, face)
    np.testing.assert_allclose(pasted[row, column].astype(int), (0, 255, 0), atol=8)
    warped = references.warp_mesh(marked, source_face.landmarks, target, face.landmarks)
    column, row = np.round(face.landmarks[cheek]).astype(int)
    np.testing.assert_allclose(warped[row, column].astype(int), (0, 255, 0), atol=8)


def test_what_faces_away_is_not_drawn(pictures):
    target, face = pictures["target"]
    mirrored = face.landmarks * [-1, 1] + [2 * face.landmarks[:, 0].mean(), 0]  # every triangle is turned round
    black = np.zeros_like(target)
    warped = references.warp_mesh(black, face.landmarks, target, mirrored)
    assert (warped != target).any(-1).mean() < 0.01
