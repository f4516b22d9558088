"""Paired differences with a bootstrap interval over patients, and what may be said of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from napari_backsplit.backend.errors import InputError

Reading = Literal["better", "worse", "not shown to differ", "too few to judge"]

_BLOCK = 2_000_000  # counts drawn at once, to bound memory at some 16 MB


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn.

    Parameters
    ----------
    resamples : int
        Draws of patients with replacement.
    level : float
        Coverage of the interval.
    seed : int
        Seed of the draws: the same input gives the same interval.
    minimum_patients : int
        Below so many patients there is an interval, but no reading of it.
    """

    resamples: int = 10_000
    level: float = 0.95
    seed: int = 0
    minimum_patients: int = 6


@dataclass(frozen=True)
class Difference:
    """A paired difference, arm minus baseline.

    Parameters
    ----------
    baseline, arm : float
        Mean (or pooled share) of each over the pairs.
    value, low, high : float
        The difference and its percentile interval; not numbers without a pair.
    pairs, patients : int
        Cases and patients it rests on.
    reading : str
        "better", "worse", "not shown to differ" or "too few to judge".
    """

    baseline: float
    arm: float
    value: float
    low: float
    high: float
    pairs: int
    patients: int
    reading: Reading


def paired_difference(
    baseline: Sequence[float] | NDArray[np.float64],
    arm: Sequence[float] | NDArray[np.float64],
    patients: Sequence[str],
    higher_is_better: bool = True,
    weights: Sequence[float] | NDArray[np.float64] | None = None,
    settings: Bootstrap | None = None,
) -> Difference:
    """Compare two arms on the same cases.

    The difference is ``sum(arm - baseline) / sum(weights)``: with weights of one the mean
    difference, with the number of lesions as weights the difference of a pooled sensitivity.
    Patients, not cases, are drawn with replacement (percentile bootstrap, B. Efron and
    R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13).

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

    Returns
    -------
    Difference
        Without pairs: not numbers, "too few to judge".
    """
    settings = settings or Bootstrap()
    values = np.stack([np.asarray(baseline, float), np.asarray(arm, float)])
    weight = np.ones(values.shape[1]) if weights is None else np.asarray(weights, float)
    kept = np.isfinite(values).all(axis=0)
    change = values[1] - values[0]
    cluster = np.unique(np.asarray(patients, str)[kept], return_inverse=True)[1]
    columns = [np.bincount(cluster, part[kept]).astype(float) for part in (change, weight)]
    sums = np.stack(columns, axis=1)
    total = float(weight[kept].sum())
    before, after = (float(side[kept].sum()) / total if total else nan for side in values)
    low, high = _interval(sums, settings) if len(sums) else (nan, nan)
    reading = _reading(low, high, len(sums), higher_is_better, settings)
    value = float(change[kept].sum()) / total if total else nan
    return Difference(before, after, value, low, high, int(kept.sum()), len(sums), reading)


def _interval(sums: NDArray[np.float64], settings: Bootstrap) -> tuple[float, float]:
    """Return the percentile interval of the ratio of the two column sums over patients."""
    draws = _resampled(sums, settings)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = draws[:, 0] / draws[:, 1]
    tail = (1 - settings.level) / 2
    low, high = np.nanquantile(ratios, [tail, 1 - tail]) if draws[:, 1].any() else (nan, nan)
    return float(low), float(high)


def _resampled(sums: NDArray[np.float64], settings: Bootstrap) -> NDArray[np.float64]:
    """Return the column sums of each draw of patients, (resamples, columns)."""
    rng = np.random.default_rng(settings.seed)
    count = len(sums)
    equal = np.full(count, 1 / count)
    block = max(1, _BLOCK // count)
    sizes = [
        min(block, settings.resamples - first) for first in range(0, settings.resamples, block)
    ]
    return np.concatenate([rng.multinomial(count, equal, size) @ sums for size in sizes])


def _reading(
    low: float, high: float, patients: int, higher_is_better: bool, settings: Bootstrap
) -> Reading:
    if patients < settings.minimum_patients or np.isnan(low):
        return "too few to judge"
    return read_interval(low, high, higher_is_better)


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
