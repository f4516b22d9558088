from __future__ import annotations

import operator
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata, wilcoxon

from napari_backsplit.backend.comparison.statistics import (
    Bootstrap,
    corrected,
    holm,
    over_draws,
    paired_difference,
    read_interval,
    signed_rank_p,
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


def test_below_eight_patients_there_is_no_reading():
    assert paired_difference(np.zeros(7), np.ones(7), names(7)).reading == "too few to judge"
    assert paired_difference(np.zeros(8), np.ones(8), names(8)).reading == "better"
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


def test_one_patient_has_a_difference_but_no_interval_and_no_test():
    one = paired_difference([0, 0], [0.5, 0.7], ["p", "p"])
    assert one.value == pytest.approx(0.6)
    assert (one.pairs, one.patients, one.method) == (2, 1, "")
    assert np.isnan([one.low, one.high, one.wilcoxon_p, one.coverage]).all()


@pytest.mark.parametrize(("patients", "hedged"), [(8, True), (49, True), (50, False)])
def test_below_fifty_patients_a_reading_is_hedged(patients, hedged):
    assert (
        paired_difference(np.zeros(patients), np.ones(patients), names(patients)).hedged is hedged
    )


def test_an_interval_of_a_share_ends_where_shares_do():
    arm = np.array([1, 1, 1, 1, 1, 1, 0.6, 0.9])
    wide = paired_difference(np.zeros(8), arm, names(8))
    assert wide.high > 1
    assert paired_difference(np.zeros(8), arm, names(8), bound=1.0).high == 1


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


# ---------------------------------------------------------------- signed ranks


def brute_force_p(differences):
    """Every pattern of signs, the ranks' sums compared one by one."""
    kept = [value for value in differences if value]
    ranks = rankdata(np.abs(kept))
    sums = [
        sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign)
        for signs in product((False, True), repeat=len(kept))
    ]
    found = sum(rank for rank, value in zip(ranks, kept, strict=True) if value > 0)
    low, high = (np.mean([op(each, found) for each in sums]) for op in (operator.le, operator.ge))
    return min(1.0, 2 * min(low, high))


@given(
    st.lists(st.integers(-400, 400), min_size=2, max_size=30, unique_by=abs).filter(
        lambda values: 0 not in values
    )
)
def test_the_signed_rank_test_is_scipys_exact_one(values):
    expected = wilcoxon(values, method="exact").pvalue
    assert signed_rank_p(values) == pytest.approx(expected)


@given(st.lists(st.integers(-3, 3), min_size=2, max_size=9).filter(any))
def test_ties_and_zeros_are_what_every_pattern_of_signs_says(values):
    assert signed_rank_p(values) == pytest.approx(brute_force_p(values))


def test_zeros_change_nothing_and_only_zeros_show_nothing():
    assert signed_rank_p([0.1, 0.2, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 2**6)
    assert signed_rank_p([0, 0.1, 0.2, 0, 0.3, 0.4, 0.5, 0.6]) == pytest.approx(2 / 2**6)
    assert signed_rank_p([0, 0, 0]) == 1
    assert np.isnan([signed_rank_p([]), signed_rank_p([0.3])]).all()


def test_rounding_does_not_break_ties():
    """0.1 + 0.2 and 0.3 differ in the last bit only."""
    exact = signed_rank_p([3, -3, 3, 3, 3, 3, 2])
    assert signed_rank_p([0.1 + 0.2, -0.3, 0.3, 0.3, 0.1 + 0.2, 0.3, 0.2]) == exact


def test_many_differences_are_tested_as_scipy_does():
    values = np.round(np.random.default_rng(0).normal(0.2, 1, 80), 1)
    values = values[values != 0]
    assert signed_rank_p([*values, 0.0]) == pytest.approx(wilcoxon(values).pvalue)


def test_the_test_is_over_patients():
    """Ten cases of one patient are one difference, their mean."""
    change = [0.5] * 10 + [0.1, 0.2, -0.3, 0.4, 0.6, 0.7, 0.8]
    patients = ["p"] * 10 + names(7)
    result = paired_difference(np.zeros(17), change, patients)
    assert result.wilcoxon_p == signed_rank_p([0.5, *change[10:]])


# ---------------------------------------------------------------- Holm


def test_holm_worked_by_hand():
    """0.005 * 4, 0.01 * 3, 0.03 * 2, and 0.04 * 1, which may not be smaller than 0.06."""
    corrected_p = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert corrected_p == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


def test_holm_counts_tests_only():
    assert holm({"a": 0.02, "b": float("nan")})["a"] == 0.02
    assert np.isnan(holm({"a": 0.02, "b": float("nan")})["b"])
    assert holm({}) == {}


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_keeps_order_and_lies_between_the_raw_p_and_bonferronis(values):
    after = list(holm(dict(enumerate(values))).values())
    for raw, p in zip(values, after, strict=True):
        assert min(raw, 1) <= p <= min(1, len(values) * raw) + 1e-15
    by_raw = [p for _, p in sorted(zip(values, after, strict=True))]
    assert by_raw == sorted(by_raw)


def test_a_difference_that_does_not_survive_holm_is_not_claimed():
    shown = paired_difference(np.zeros(8), np.ones(8), names(8))
    assert corrected(shown, 0.04).reading == "better"
    assert corrected(shown, 0.05).reading == "not shown to differ"
    few = paired_difference(np.zeros(5), np.ones(5), names(5))
    assert corrected(few, 0.2).reading == "too few to judge"


def test_two_of_eight_patients_are_no_gain_whatever_their_interval_says():
    result = paired_difference(np.zeros(8), [1, 0, 0, 0, 0, 0, 0, 0.9], names(8))
    assert result.low > 0
    assert (result.wilcoxon_p, result.reading) == (0.5, "not shown to differ")


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
