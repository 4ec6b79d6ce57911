"""Distances between two sets of features: Frechet distance (FID, CLIP-FD) and kernel distance (KID).

Both read features in blocks, so (N, D) arrays may be memory maps of any size.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import eigh, svdvals

BLOCK = 512
SUBSET_SIZE = 1000
NUM_SUBSETS = 100
NEGLIGIBLE_VARIANCE = 1e-12  # relative to the largest; smaller ones are rounding errors


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution fitted to features.

    Args:
        mean (`np.ndarray`): (D,) float64.
        covariance (`np.ndarray`): (D, D) float64, unbiased (N - 1).
        count (`int`): Number of rows, N.
    """

    mean: np.ndarray
    covariance: np.ndarray
    count: int


def fit_gaussian(features: np.ndarray) -> Gaussian:
    """Fits a Gaussian to features (N, D) in two passes over blocks of rows.

    Raises:
        ValueError: If there are fewer than two rows.
    """
    count, dim = features.shape
    if count < 2:
        raise ValueError(f"{count} feature rows: a Gaussian needs at least 2")
    mean = np.zeros(dim)
    for start in range(0, count, BLOCK):
        mean += features[start : start + BLOCK].astype(np.float64).sum(axis=0) / count
    covariance = np.zeros((dim, dim))
    for start in range(0, count, BLOCK):
        centred = features[start : start + BLOCK].astype(np.float64) - mean
        covariance += centred.T @ centred
    return Gaussian(mean, covariance / (count - 1), count)


def frechet_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Frechet (2-Wasserstein) distance between two Gaussians (Dowson and Landau 1982; Heusel and others 2017).

    |m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^1/2). With C = A A^T the trace of the root is the sum of the singular values
    of A1^T A2. Unlike the root itself, this is exact for singular covariances, as of few pictures.
    """
    roots = np.sum(svdvals(_root(first.covariance).T @ _root(second.covariance)))
    traces = np.trace(first.covariance) + np.trace(second.covariance)
    return float(max(0.0, np.sum((first.mean - second.mean) ** 2) + traces - 2 * roots))


def _root(covariance: np.ndarray) -> np.ndarray:
    """A factor (D, R) of a covariance of rank R: its product with its transpose is the covariance."""
    variances, axes = eigh(covariance)
    kept = variances > NEGLIGIBLE_VARIANCE * max(variances[-1], np.finfo(float).tiny)
    return axes[:, kept] * np.sqrt(variances[kept])


def kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Kernel Inception distance (Binkowski and others 2018): unbiased squared MMD with the kernel (x.y / D + 1)^3.

    It is the mean over 100 random subsets of 1000 rows, or, if both sets are not larger than that, the value of the
    whole sets.

    Args:
        first (`np.ndarray`): (N, D).
        second (`np.ndarray`): (M, D).
    """
    size = min(len(first), len(second), SUBSET_SIZE)
    if max(len(first), len(second)) <= SUBSET_SIZE:
        return squared_mmd(first.astype(np.float64), second.astype(np.float64))
    generator = np.random.default_rng(0)
    values = []
    for _ in range(NUM_SUBSETS):
        rows = [np.sort(generator.choice(len(features), size, replace=False)) for features in (first, second)]
        values.append(squared_mmd(first[rows[0]].astype(np.float64), second[rows[1]].astype(np.float64)))
    return float(np.mean(values))


def squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """Unbiased squared maximum mean discrepancy (Gretton and others 2012, equation 3) of (N, D) and (M, D)."""

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x @ y.T / x.shape[1] + 1) ** 3

    def mean_off_diagonal(x: np.ndarray) -> float:
        values = kernel(x, x)
        return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))

    return float(mean_off_diagonal(first) + mean_off_diagonal(second) - 2 * kernel(first, second).mean())
