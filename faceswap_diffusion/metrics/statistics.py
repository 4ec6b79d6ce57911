"""Figures over a set of swaps: means with bootstrap intervals, and the spread over seeds."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import bootstrap

NUM_RESAMPLES = 2000
CONFIDENCE = 0.95
MOST_DRAWN_AT_ONCE = 1_000_000  # limits the memory of the bootstrap


@dataclass(frozen=True)
class Figure:
    """One figure of one method on one set.

    Args:
        value (`float`): NaN if it is undefined for all swaps.
        low, high (`float`): 95 % interval; NaN if there is none.
        count (`int`): Number of swaps that `value` was computed from; swaps without a detected face are missing.
        seed_spread (`float`): Standard deviation of the figure over seeds; NaN with a single one.
    """

    value: float
    low: float = float("nan")
    high: float = float("nan")
    count: int = 0
    seed_spread: float = float("nan")


def figure_of(values: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean) -> Figure:
    """Aggregates one metric.

    The interval is over the choice of pairs: values are averaged over the seeds of a pair, and pairs are resampled.

    Args:
        values (`np.ndarray`): (S, N), seeds and pairs; NaN where the metric is undefined.
        statistic (`Callable`): `np.mean` or `np.median`.
    """
    known = ~np.isnan(values)
    pairs = known.any(axis=0)
    if not pairs.any():
        return Figure(float("nan"))
    of_pairs = np.nanmean(values[:, pairs], axis=0)
    of_seeds = [statistic(row[~np.isnan(row)]) for row in values if not np.isnan(row).all()]
    low, high = bootstrap_interval(of_pairs, statistic)
    return Figure(float(statistic(of_pairs)), low, high, int(known.sum()), spread(of_seeds))


def spread(of_seeds: list[float] | list[np.ndarray]) -> float:
    """Standard deviation of a figure over seeds (with N - 1); NaN with a single one."""
    return float(np.std(of_seeds, ddof=1)) if len(of_seeds) > 1 else float("nan")


def bootstrap_interval(values: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean) -> tuple[float, float]:
    """95 % percentile bootstrap interval (Efron 1979) with a fixed seed.

    Args:
        values (`np.ndarray`): (N,).
        statistic (`Callable`): Takes an array and `axis`.

    Returns:
        `tuple[float, float]`: The ends; both are the value itself if N = 1.
    """
    if len(values) == 1:
        return float(values[0]), float(values[0])
    interval = bootstrap(
        (values,),
        statistic,
        n_resamples=NUM_RESAMPLES,
        batch=max(1, MOST_DRAWN_AT_ONCE // len(values)),
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(interval.low), float(interval.high)
