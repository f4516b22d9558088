from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import bootstrap

from napari_backsplit.backend.comparison.intervals import Bootstrap, Method, interval
from napari_backsplit.backend.errors import InputError

METHODS = get_args(Method)
MANY = 20_000


def mean(values, method, **options):
    values = np.asarray(values, float)
    return interval(values, np.ones(len(values)), Bootstrap(method=method, **options))


@pytest.fixture(scope="module")
def skewed():
    return np.random.default_rng(5).lognormal(0, 0.8, 30)


@pytest.fixture(scope="module")
def lesions():
    """Lesions of 25 patients, and how many more of them an arm finds."""
    rng = np.random.default_rng(6)
    weight = 1.0 + rng.poisson(2, 25)
    return rng.integers(-1, 3, 25) * (weight > 1.0), weight


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_a_mean_is_as_scipys_bootstrap_has_it(skewed, method):
    expected = bootstrap(
        (skewed,), np.mean, n_resamples=MANY, method=method, rng=np.random.default_rng(1)
    ).confidence_interval
    width = expected.high - expected.low
    assert mean(skewed, method, resamples=MANY) == pytest.approx(tuple(expected), abs=0.03 * width)


@pytest.mark.parametrize("method", ["BCa", "percentile"])
def test_a_pooled_share_is_as_scipys_bootstrap_has_it(lesions, method):
    change, weight = lesions

    def ratio(above, below, axis):
        return above.sum(axis=axis) / below.sum(axis=axis)

    expected = bootstrap(
        (change, weight),
        ratio,
        paired=True,
        vectorized=True,
        n_resamples=MANY,
        method=method,
        rng=np.random.default_rng(1),
    ).confidence_interval
    width = expected.high - expected.low
    ours = interval(change, weight, Bootstrap(resamples=MANY, method=method))
    assert ours == pytest.approx(tuple(expected), abs=0.03 * width)


def studentised_by_hand(change, weight, resamples):
    """Draw patients one draw at a time; the error of each draw from its own residuals."""

    def figure(above, below):
        ratio = above.sum() / below.sum()
        return ratio, np.sqrt(((above - ratio * below) ** 2).sum()) / below.sum()

    ratio, error = figure(change, weight)
    rng = np.random.default_rng(2)
    pivots = []
    for _ in range(resamples):
        drawn = rng.integers(0, len(change), len(change))
        there, spread = figure(change[drawn], weight[drawn])
        if spread > 1e-9 * error:
            pivots.append((there - ratio) / spread)
    half = error * np.quantile(np.abs(pivots), 0.95)
    low, high = np.quantile(pivots, [0.025, 0.975])
    return (ratio - half, ratio + half), (ratio - error * high, ratio - error * low)


def test_the_studentised_intervals_are_what_a_loop_over_draws_gives(lesions):
    symmetric, equal = studentised_by_hand(*lesions, MANY)
    width = symmetric[1] - symmetric[0]
    for method, expected in (("studentised", symmetric), ("studentised, equal tails", equal)):
        found = interval(*lesions, Bootstrap(resamples=MANY, method=method))
        assert found == pytest.approx(expected, abs=0.03 * width)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("values", [[0.25] * 9, [0.0] * 9])
def test_without_spread_there_is_no_width(method, values):
    assert mean(values, method) == (values[0], values[0])


@pytest.mark.parametrize("method", METHODS)
def test_below_two_patients_and_without_a_lesion_there_is_none(method):
    assert np.isnan(mean([], method)).all()
    assert np.isnan(mean([0.3], method)).all()
    assert np.isnan(interval(np.zeros(5), np.zeros(5), Bootstrap(method=method))).all()


@pytest.mark.parametrize("method", METHODS)
@given(
    values=st.lists(st.integers(-5, 5), min_size=2, max_size=12),
    scale=st.sampled_from([0.5, 2.0, 8.0]),
)
def test_units_and_signs_do_not_matter(method, values, scale):
    """In other units the interval is in other units; the other way round it is turned round."""
    low, high = mean(values, method, resamples=200)
    assert low <= high or (len(values) == 2 and np.isnan([low, high]).all())
    assert mean(np.multiply(values, scale), method, resamples=200) == pytest.approx(
        (scale * low, scale * high), nan_ok=True
    )
    if method != "BCa":  # its bias correction counts ties half, but quantiles interpolate
        assert mean(np.negative(values), method, resamples=200) == pytest.approx(
            (-high, -low), nan_ok=True
        )


@pytest.mark.parametrize("method", METHODS)
def test_one_change_among_many_zeros_has_finite_ends(method):
    low, high = mean([1.0] + [0.0] * 11, method)
    assert np.isfinite([low, high]).all()
    assert low <= 1 / 12 <= high


def test_many_patients_are_drawn_in_blocks_as_wide_as_theory_has_it():
    values = np.random.default_rng(4).normal(0.5, 1, 3000)
    half = 1.96 * values.std() / np.sqrt(3000)
    for method in METHODS:
        low, high = mean(values, method, resamples=2000)
        assert high - low == pytest.approx(2 * half, rel=0.08)


@pytest.mark.parametrize("wrong", [{"method": "normal"}, {"level": 95.0}, {"resamples": 10}])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(InputError):
        Bootstrap(**wrong)


@pytest.mark.parametrize("method", METHODS)
def test_no_interval_of_patients_that_differ_is_without_width(method):
    """Of two, every draw with spread is the sample itself and tells a studentised one nothing."""
    low, high = mean([0.1, 0.3], method)
    assert high > low or np.isnan([low, high]).all()
    assert mean([0.2, 0.2], method) == (0.2, 0.2)
