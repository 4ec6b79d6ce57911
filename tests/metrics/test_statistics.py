"""Means, their intervals and their spread over seeds."""

import numpy as np
import pytest

from faceswap_diffusion.metrics.statistics import bootstrap_interval, figure_of

NAN = np.nan


def test_the_interval_of_a_mean_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).normal(3, 2, 400)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)
    assert bootstrap_interval(values) == (low, high)


def test_the_interval_of_a_rate_comes_from_the_binomial_distribution():
    low, high = bootstrap_interval(np.array([1.0] * 20 + [0.0] * 80))
    assert (low, high) == (pytest.approx(0.13, abs=0.011), pytest.approx(0.28, abs=0.011))  # 2.5 % and 97.5 %


def test_a_single_value_and_equal_values_have_no_width():
    assert bootstrap_interval(np.array([0.5])) == (0.5, 0.5)
    assert bootstrap_interval(np.full(7, 0.5)) == (0.5, 0.5)


def test_seeds_are_averaged_pair_by_pair_and_their_means_spread():
    figure = figure_of(np.array([[1.0, 2.0, 3.0], [3.0, 4.0, 5.0]]))
    assert figure.value == 3.0  # of the pairs' means 2, 3, 4
    assert figure.seed_spread == pytest.approx(np.sqrt(2))  # of 2 and 4
    assert figure.count == 6
    assert 2 <= figure.low < 3 < figure.high <= 4


def test_what_could_not_be_told_is_left_out_and_counted():
    figure = figure_of(np.array([[1.0, NAN, 3.0], [NAN, NAN, 5.0]]))
    assert (figure.value, figure.count) == (2.5, 3)
    assert figure.seed_spread == pytest.approx(np.std([2, 5], ddof=1))
    nothing = figure_of(np.full((1, 3), NAN))
    assert nothing.count == 0
    assert np.isnan([nothing.value, nothing.low, nothing.high, nothing.seed_spread]).all()


def test_a_median_is_not_a_mean():
    figure = figure_of(np.array([[1.0, 1.0, 1.0, 1.0, 96.0]]), np.median)
    assert (figure.value, figure.low) == (1.0, 1.0)
    assert np.isnan(figure.seed_spread)
