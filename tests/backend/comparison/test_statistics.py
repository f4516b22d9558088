from __future__ import annotations

import numpy as np
import pytest

from napari_backsplit.backend.comparison.statistics import (
    Bootstrap,
    over_draws,
    paired_difference,
    read_interval,
)
from napari_backsplit.backend.errors import InputError


def names(count):
    return [f"patient_{k}" for k in range(count)]


def test_a_constant_gain_has_no_width():
    result = paired_difference(np.zeros(8), np.full(8, 0.25), names(8))
    assert (result.baseline, result.arm) == (0, 0.25)
    assert (result.value, result.low, result.high) == (0.25, 0.25, 0.25)
    assert (result.pairs, result.patients, result.reading) == (8, 8, "better")


def test_less_is_better_where_it_is():
    result = paired_difference(np.ones(8), np.zeros(8), names(8), higher_is_better=False)
    assert (result.value, result.reading) == (-1, "better")


def test_equal_arms_are_not_shown_to_differ():
    values = np.linspace(0, 1, 9)
    assert paired_difference(values, values, names(9)).reading == "not shown to differ"


def test_below_six_patients_there_is_no_reading():
    assert paired_difference(np.zeros(5), np.ones(5), names(5)).reading == "too few to judge"
    same_patient = paired_difference(np.zeros(20), np.ones(20), names(2) * 10)
    assert (same_patient.pairs, same_patient.patients) == (20, 2)
    assert same_patient.reading == "too few to judge"


def test_undefined_pairs_are_left_out():
    result = paired_difference([np.nan, 0, 0], [1, np.nan, 0.5], names(3))
    assert (result.pairs, result.value, result.baseline, result.arm) == (1, 0.5, 0, 0.5)


def test_no_pair_is_not_a_number():
    result = paired_difference([], [], [])
    assert np.isnan([result.value, result.low, result.high]).all()
    assert (result.pairs, result.reading) == (0, "too few to judge")


def test_weights_pool():
    """2 of 4 lesions against 1 of 4, over two cases of one and three lesions."""
    result = paired_difference([0, 1], [1, 1], names(2), weights=[1, 3])
    assert (result.baseline, result.arm, result.value) == (0.25, 0.5, 0.25)


def test_the_seed_decides_the_interval():
    rng = np.random.default_rng(1)
    arm = rng.normal(size=30)
    draw = [
        paired_difference(np.zeros(30), arm, names(30), settings=Bootstrap(seed=s))
        for s in (1, 1, 2)
    ]
    assert draw[0] == draw[1]
    assert draw[0].low != draw[2].low


def test_cases_of_one_patient_are_drawn_together():
    rng = np.random.default_rng(2)
    shift = np.repeat(rng.normal(size=12), 10)
    alone = paired_difference(np.zeros(120), shift, names(120))
    together = paired_difference(np.zeros(120), shift, [f"p{k // 10}" for k in range(120)])
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    settings = Bootstrap(resamples=1000)
    inside = 0
    for _ in range(400):
        result = paired_difference(
            np.zeros(30), rng.normal(0.2, 1, 30), names(30), settings=settings
        )
        inside += result.low <= 0.2 <= result.high
    assert 0.90 <= inside / 400 <= 0.975


def test_many_patients_are_drawn_in_blocks():
    rng = np.random.default_rng(4)
    arm = rng.normal(0.5, 1, 3000)
    result = paired_difference(np.zeros(3000), arm, names(3000))
    half = 1.96 * arm.std() / np.sqrt(3000)
    assert result.high - result.low == pytest.approx(2 * half, rel=0.06)


@pytest.mark.parametrize(
    ("low", "high", "reading"),
    [(0, 1, "not shown to differ"), (0.1, 1, "better"), (-1, -0.1, "worse")],
)
def test_an_interval_that_touches_zero_shows_nothing(low, high, reading):
    assert read_interval(low, high) == reading


def test_draws():
    draws = over_draws([0.1, 0.3, -0.1])
    assert (draws.mean, draws.deviation) == (pytest.approx(0.1), pytest.approx(0.2))
    assert (draws.count, draws.positive, draws.negative) == (3, 2, 1)
    half = 4.302653 * 0.2 / np.sqrt(3)  # Student's t, 2 degrees of freedom, 97.5 %
    assert (draws.low, draws.high) == (pytest.approx(0.1 - half), pytest.approx(0.1 + half))
    one = over_draws([1.0])
    assert one.mean == 1
    assert np.isnan([one.deviation, one.low, one.high]).all()
    same = over_draws([0.5, 0.5])
    assert (same.low, same.high) == (0.5, 0.5)
    with pytest.raises(InputError):
        over_draws([])
