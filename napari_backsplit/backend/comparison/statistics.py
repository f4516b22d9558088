"""Paired differences with an interval over patients and a test, and what may be said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, nan, sqrt
from operator import itemgetter
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from napari_backsplit.backend.comparison.coverage import ENOUGH_PATIENTS, measured_coverage
from napari_backsplit.backend.comparison.intervals import Bootstrap, Floats, Method, interval
from napari_backsplit.backend.errors import InputError

__all__ = [
    "Bootstrap",
    "Difference",
    "Draws",
    "Reading",
    "corrected",
    "holm",
    "over_draws",
    "paired_difference",
    "read_interval",
    "signed_rank_p",
]

Reading = Literal["better", "worse", "not shown to differ", "too few to judge"]
_Key = TypeVar("_Key")
_EXACT = 50


@dataclass(frozen=True)
class Difference:
    """A paired difference, arm minus baseline.

    Parameters
    ----------
    baseline, arm : float
        Mean (or pooled share) of each over the pairs.
    value, low, high : float
        The difference and its interval; not numbers without a pair.
    pairs, patients : int
        Cases and patients it rests on.
    reading : str
        "better" or "worse" only where the interval excludes zero and p, after Holm's correction
        where there is one, is below one minus the level; otherwise "not shown to differ", or
        "too few to judge".
    wilcoxon_p : float
        Two-sided p of the signed-rank test of `signed_rank_p`; not a number without a pair.
    holm_p : float
        The same after Holm's correction over the primary metrics; not a number of another metric.
    method : str
        How the interval was made; empty without one.
    coverage : float
        Share of the simulations, at the nearest number of patients, in which such an interval
        held the truth; not a number without a pair.
    hedged : bool
        There are fewer patients than it takes for the interval to hold what it promises: what
        is read from it is to be said with "probably".
    """

    baseline: float
    arm: float
    value: float
    low: float
    high: float
    pairs: int
    patients: int
    reading: Reading
    wilcoxon_p: float = nan
    holm_p: float = nan
    method: Method | Literal[""] = ""
    coverage: float = nan
    hedged: bool = False


def paired_difference(
    baseline: Sequence[float] | NDArray[np.float64],
    arm: Sequence[float] | NDArray[np.float64],
    patients: Sequence[str],
    higher_is_better: bool = True,
    weights: Sequence[float] | NDArray[np.float64] | None = None,
    settings: Bootstrap | None = None,
    bound: float = inf,
) -> Difference:
    """Compare two arms on the same cases.

    The difference is ``sum(arm - baseline) / sum(weights)``: with weights of one the mean
    difference, with the number of lesions as weights the difference of a pooled sensitivity.
    Patients, not cases, are drawn with replacement.

    Parameters
    ----------
    baseline, arm : sequence of float, (cases,)
        Values of the same cases; a case that lacks either (not a number) is left out.
    patients : sequence of str, (cases,)
        Patient of each case.
    higher_is_better : bool
        Which way is better.
    weights : sequence of float, optional
        What each case counts in the denominator; one by default.
    settings : Bootstrap, optional
        How the interval is drawn.
    bound : float
        The largest difference there can be, such as one of a share: the interval ends there.

    Returns
    -------
    Difference
        Without pairs: not numbers, "too few to judge".
    """
    settings = settings or Bootstrap()
    values = np.stack([np.asarray(baseline, float), np.asarray(arm, float)])
    every = np.ones(values.shape[1]) if weights is None else np.asarray(weights, float)
    kept = np.isfinite(values).all(axis=0)
    values, weight, total = values[:, kept], every[kept], float(every[kept].sum())
    change, count = _by_patient(values[1] - values[0], weight, np.asarray(patients, str)[kept])
    low, high = np.clip(interval(change, count, settings), -bound, bound).tolist()
    before, after = (float(side.sum()) / total if total else nan for side in values)
    few = len(change) < settings.minimum_patients or not isfinite(low)
    measured = Difference(
        baseline=before,
        arm=after,
        value=float(change.sum()) / total if total else nan,
        low=low,
        high=high,
        pairs=int(kept.sum()),
        patients=len(change),
        reading="too few to judge" if few else read_interval(low, high, higher_is_better),
        wilcoxon_p=signed_rank_p(change if weights is not None else _means(change, count)),
        method=settings.method if isfinite(low) else "",
        coverage=_coverage(change, weights is not None, settings) if isfinite(low) else nan,
        hedged=0 < len(change) < ENOUGH_PATIENTS,
    )
    return _claimed(measured, measured.wilcoxon_p, settings.level)


def _claimed(difference: Difference, p: float, level: float) -> Difference:
    """Take back a reading of the interval that the test does not bear out."""
    claims = difference.reading in ("better", "worse")
    if claims and p >= round(1 - level, 12):
        return replace(difference, reading="not shown to differ")
    return difference


def _coverage(change: Floats, pooled: bool, settings: Bootstrap) -> float:
    """Return the measured coverage; of another level than the measured one nothing is known."""
    return measured_coverage(settings.method, change, pooled) if settings.level == 0.95 else nan


def _by_patient(
    change: Floats, weight: Floats, patients: NDArray[np.str_]
) -> tuple[Floats, Floats]:
    """Return the sums of both over the cases of each patient."""
    cluster = np.unique(patients, return_inverse=True)[1]
    sums = [np.bincount(cluster, part).astype(float) for part in (change, weight)]
    return sums[0], sums[1]


def _means(change: Floats, count: Floats) -> Floats:
    return np.asarray(np.divide(change, count, out=np.zeros_like(change), where=count > 0))


def signed_rank_p(differences: Sequence[float] | Floats) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test, one difference a patient.

    Differences of zero are left out (F. Wilcoxon, Biometrics Bulletin 1, 1945; scipy's
    ``zero_method="wilcox"``), equal ones share their mean rank. Up to 50 differences over every
    pattern of signs, beyond by the normal approximation with ties corrected.

    Returns
    -------
    float
        One if every difference is zero, not a number below two differences.
    """
    array = np.asarray(differences, float)
    if len(array) < 2:
        return nan
    # Equal differences must tie: without this, rounding in the last bit would rank them.
    array = np.round(array, 12)
    array = array[array != 0]
    if not len(array):
        return 1.0
    return _exact_p(array) if len(array) <= _EXACT else _approximate_p(array)


def _exact_p(differences: Floats) -> float:
    """Return the p over every pattern of signs, given the ranks; none of them is zero."""
    twice = _twice_ranks(np.abs(differences))
    share = np.ones(1)  # of the patterns, by twice the sum of the positive ranks
    for rank in twice:
        share = (np.pad(share, (0, rank)) + np.pad(share, (rank, 0))) / 2
    found = int(twice[differences > 0].sum())
    return min(1.0, 2 * float(min(share[: found + 1].sum(), share[found:].sum())))


def _twice_ranks(values: Floats) -> NDArray[np.int64]:
    """Return twice the rank of each value: whole, though equal values share their mean rank."""
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    return (2 * np.cumsum(count) - count + 1)[place]


def _approximate_p(differences: Floats) -> float:
    from scipy.stats import wilcoxon  # slow to import, and a window that shows figures needs none

    return float(wilcoxon(differences).pvalue)


def holm(p_values: Mapping[_Key, float]) -> dict[_Key, float]:
    """Return each p after the step-down correction of S. Holm, Scand J Statist 6, 1979.

    ``max over j <= i of min(1, (m - j + 1) p_(j))`` of the m values in ascending order; a value
    that is not a number is no test, counts for none and stays what it is.
    """
    tested = sorted(((p, key) for key, p in p_values.items() if isfinite(p)), key=itemgetter(0))
    corrected = dict(p_values)
    largest = 0.0
    for done, (p, key) in enumerate(tested):
        largest = max(largest, min(1.0, (len(tested) - done) * p))
        corrected[key] = largest
    return corrected


def corrected(difference: Difference, holm_p: float, level: float = 0.95) -> Difference:
    """Return a difference with its p after Holm's correction, and what may then be claimed."""
    return _claimed(replace(difference, holm_p=holm_p), holm_p, level)


def read_interval(low: float, high: float, higher_is_better: bool = True) -> Reading:
    """Read an interval of a difference; one that touches zero shows nothing."""
    if low <= 0 <= high:
        return "not shown to differ"
    return "better" if (low > 0) == higher_is_better else "worse"


@dataclass(frozen=True)
class Draws:
    """A figure over repeated draws (training seeds, phantoms).

    Parameters
    ----------
    mean, deviation : float
        Mean and sample standard deviation; the deviation of one draw is not a number.
    count, positive, negative : int
        Draws in all, those above and those below zero.
    low, high : float
        The mean's interval by Student's t; not numbers for one draw.
    """

    mean: float
    deviation: float
    count: int
    positive: int
    negative: int
    low: float
    high: float


def over_draws(values: Sequence[float], level: float = 0.95) -> Draws:
    """Summarise one figure over repeated draws.

    Parameters
    ----------
    values : sequence of float
        One a draw.
    level : float
        Coverage of the interval.

    Raises
    ------
    InputError
        There is no draw.
    """
    if not len(values):
        raise InputError("There is no draw to summarise.", "Give at least one.")
    array = np.asarray(values, float)
    count, mean = len(array), float(array.mean())
    deviation = float(array.std(ddof=1)) if count > 1 else nan
    half = float(stdtrit(max(count - 1, 1), (1 + level) / 2)) * deviation / sqrt(count)
    above, below = int((array > 0).sum()), int((array < 0).sum())
    return Draws(mean, deviation, count, above, below, mean - half, mean + half)
