"""Distances of distributions: known Gaussians, the definition of the root, and hand-computed kernels."""

import numpy as np
import pytest
from scipy.linalg import sqrtm

from faceswap_diffusion.metrics import frechet
from faceswap_diffusion.metrics.frechet import Gaussian, fit_gaussian, frechet_distance, kernel_distance


def test_gaussians_with_diagonal_covariances_by_hand():
    # |(3, 4)|^2 + (1 - 2)^2 + (3 - 5)^2
    first = Gaussian(np.zeros(2), np.diag([1.0, 9.0]), 10)
    second = Gaussian(np.array([3.0, 4.0]), np.diag([4.0, 25.0]), 10)
    assert frechet_distance(first, second) == pytest.approx(25 + 1 + 4)
    assert frechet_distance(first, first) == pytest.approx(0, abs=1e-12)


def test_it_is_the_formula_with_the_root_of_the_product():
    generator = np.random.default_rng(0)
    gaussians = []
    for _ in range(2):
        factor = generator.normal(size=(12, 12))
        gaussians.append(Gaussian(generator.normal(size=12), factor @ factor.T, 99))
    first, second = gaussians
    root = sqrtm(first.covariance @ second.covariance)
    trace = np.trace(first.covariance + second.covariance - 2 * np.real(root))
    expected = np.sum((first.mean - second.mean) ** 2) + trace
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(second, first) == pytest.approx(expected, rel=1e-9)


def test_fewer_pictures_than_dimensions_are_exact_too():
    # Both lie on a line of a space of 50 dimensions: the distance is that of two normal distributions on it.
    axis = np.random.default_rng(0).normal(size=50)
    axis /= np.linalg.norm(axis)
    first = fit_gaussian(np.outer([-1.0, 0.0, 1.0], axis))  # mean 0, variance 1
    second = fit_gaussian(np.outer([3.0, 5.0, 7.0], axis))  # mean 5, variance 4
    assert frechet_distance(first, second) == pytest.approx(25 + 1, rel=1e-9)


def test_a_gaussian_is_fitted_in_blocks(monkeypatch: pytest.MonkeyPatch):
    features = np.random.default_rng(0).normal(1000, 1, (53, 5)).astype(np.float32)
    monkeypatch.setattr(frechet, "BLOCK", 8)
    fitted = fit_gaussian(features)
    np.testing.assert_allclose(fitted.mean, features.astype(np.float64).mean(0))
    np.testing.assert_allclose(fitted.covariance, np.cov(features.astype(np.float64), rowvar=False), atol=1e-9)
    with pytest.raises(ValueError, match="at least 2"):
        fit_gaussian(features[:1])


def test_samples_of_known_gaussians_come_near_the_distance_of_the_gaussians():
    generator = np.random.default_rng(0)
    first, second = generator.normal(0, 1, (40_000, 3)), generator.normal(0.5, 2, (40_000, 3))
    assert frechet_distance(fit_gaussian(first), fit_gaussian(second)) == pytest.approx(3 * (0.25 + 1), rel=0.03)


def test_the_kernel_distance_by_hand():
    # D = 1: k(1, 2) = 27 in the first, k(0, 0) = 1 in the second, and all across are k(x, 0) = 1.
    assert kernel_distance(np.array([[1.0], [2.0]]), np.array([[0.0], [0.0]])) == pytest.approx(27 + 1 - 2)


def test_the_kernel_distance_over_subsets_is_unbiased(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(frechet, "SUBSET_SIZE", 200)
    monkeypatch.setattr(frechet, "NUM_SUBSETS", 30)
    generator = np.random.default_rng(0)
    first, second = generator.normal(0, 1, (2, 1000, 1))
    # One dimension: E (xy + 1)^3 = 1 + 3 E xy + 3 E x^2 y^2 + E x^3 y^3, so that only means, squares and cubes enter.
    assert kernel_distance(first, second) == pytest.approx(0, abs=0.15)
    # Against normal variables of mean 1: 3 (0 - 1)^2 + 3 (1 - 2)^2 + (0 - 4)^2 = 22.
    assert kernel_distance(first, second + 1) == pytest.approx(22, rel=0.15)
