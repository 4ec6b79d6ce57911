"""The age probe's fit: it finds a linear rule, shrinks what noise suggests, and measures itself on people held out."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
import fit_age_probe as probe  # pyright: ignore[reportMissingImports]


def people(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings (count, 8), and ages that are 30 + 20 x their first number - 5 x their second."""
    embeddings = np.random.default_rng(0).normal(size=(count, 8))
    return embeddings, 30 + 20 * embeddings[:, 0] - 5 * embeddings[:, 1]


def test_a_linear_rule_is_found():
    weight, bias = probe.fit(*people(50), ridge=1e-9)
    assert weight == pytest.approx([20, -5, 0, 0, 0, 0, 0, 0], abs=1e-6)
    assert bias == pytest.approx(30)


def test_ridge_shrinks_the_weights_but_not_the_mean():
    # centred embeddings -1 and 1, ages 20 and 40: the weight is 20 / (2 + ridge)
    weight, bias = probe.fit(np.array([[1.0], [3.0]]), np.array([20.0, 40.0]), ridge=2.0)
    assert weight == pytest.approx([5.0])
    assert bias == pytest.approx(20.0)


def test_correlation_is_with_people_held_out():
    embeddings, ages = people(60)
    assert probe.held_out_correlation(embeddings, ages, 1e-9) == pytest.approx(1.0)
    shuffled = np.random.default_rng(1).permutation(ages)
    assert abs(probe.held_out_correlation(embeddings, shuffled, 1e-9)) < 0.4
