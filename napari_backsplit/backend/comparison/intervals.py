"""Bootstrap intervals of a ratio of sums over patients: percentile, BCa and studentised.

The figure is ``sum(change) / sum(weight)`` over patients, which are drawn with replacement: with
weights of one a mean, with the lesions of each patient a difference of pooled shares.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from math import nan
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from napari_backsplit.backend.errors import InputError

Floats = NDArray[np.float64]
Method = Literal["studentised", "studentised, equal tails", "BCa", "percentile"]

_BLOCK = 2_000_000  # counts drawn at once, to bound memory at some 16 MB


@dataclass(frozen=True)
class Bootstrap:
    """How intervals are drawn and from how many patients on they are read.

    Parameters
    ----------
    resamples : int
        Draws of patients with replacement.
    level : float
        Coverage that is aimed at.
    seed : int
        Seed of the draws: the same input gives the same interval.
    minimum_patients : int
        Below so many patients there is an interval, but no reading of it: the coverage of
        smaller samples was not measured.
    method : {"studentised", "studentised, equal tails", "BCa", "percentile"}
        Which interval. "studentised" is symmetric about the figure; of the four it held the
        truth most evenly in the simulations of docs/statistics.md.

    Raises
    ------
    InputError
        The method is unknown, the level is no share, or there are fewer than 100 draws.
    """

    resamples: int = 10_000
    level: float = 0.95
    seed: int = 0
    minimum_patients: int = 8
    method: Method = "studentised"

    def __post_init__(self) -> None:
        if self.method not in get_args(Method):
            raise InputError(
                f"There is no interval {self.method!r}.",
                f"Choose one of: {'; '.join(get_args(Method))}.",
            )
        if not 0 < self.level < 1:
            raise InputError(f"A level of {self.level} is no share.", "Give one as 0.95.")
        if self.resamples < 100:
            raise InputError(
                f"{self.resamples} draws are too few for an interval.", "Give 100 or more."
            )


def interval(change: Floats, weight: Floats, settings: Bootstrap) -> tuple[float, float]:
    """Return the interval of ``sum(change) / sum(weight)`` over patients.

    Parameters
    ----------
    change, weight : ndarray of float64, (patients,)
        The sums of each patient's cases.
    settings : Bootstrap
        Which interval, and how it is drawn.

    Returns
    -------
    tuple of float
        Its ends; not numbers below two patients, where the weights sum to zero, or where no
        draw tells the error, as of two patients with the studentised ones. Without any spread
        between patients both are the figure itself.
    """
    if len(change) < 2 or not weight.sum():
        return nan, nan
    ratio = change.sum() / weight.sum()
    residual = change - ratio * weight
    if np.abs(residual).max() <= 1e-12 * max(1.0, float(np.abs(change).max())):
        return float(ratio), float(ratio)
    low, high = _METHODS[settings.method](change, weight, settings)
    # Patients differ, so that an interval without width would claim what is not known.
    return (float(low), float(high)) if high - low > 1e-9 * abs(ratio) else (nan, nan)


def _percentile(change: Floats, weight: Floats, settings: Bootstrap) -> Floats:
    """B. Efron and R. Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13."""
    draws = _resampled(np.stack([change, weight], axis=1), settings)
    return _quantiles(_ratios(draws[:, 0], draws[:, 1]), _tails(settings.level))


def _bca(change: Floats, weight: Floats, settings: Bootstrap) -> Floats:
    """Bias-corrected and accelerated: Efron and Tibshirani, ch. 14; the jackknife over patients."""
    draws = _resampled(np.stack([change, weight], axis=1), settings)
    ratios = _ratios(draws[:, 0], draws[:, 1])
    ratio = change.sum() / weight.sum()
    kept = ratios[np.isfinite(ratios)]
    bias = ndtri((np.mean(kept < ratio) + np.mean(kept <= ratio)) / 2)
    tail = bias + ndtri(_tails(settings.level))
    shares = ndtr(bias + tail / (1 - _acceleration(change, weight) * tail))
    return _quantiles(kept, shares if np.isfinite(shares).all() else _tails(settings.level))


def _acceleration(change: Floats, weight: Floats) -> float:
    left_out = _ratios(change.sum() - change, weight.sum() - weight)
    left_out = left_out[np.isfinite(left_out)]
    apart = left_out.mean() - left_out
    spread = float((apart**2).sum())
    return float((apart**3).sum()) / (6 * spread**1.5) if spread else 0.0


def _symmetric(change: Floats, weight: Floats, settings: Bootstrap) -> Floats:
    """Symmetric bootstrap-t: P. Hall, J R Statist Soc B 50:35-45, 1988."""
    ratio, error, pivots = _pivots(change, weight, settings)
    half = error * _quantiles(np.abs(pivots), np.array([settings.level]))[0]
    return np.array([ratio - half, ratio + half])


def _equal_tails(change: Floats, weight: Floats, settings: Bootstrap) -> Floats:
    """Bootstrap-t: Efron and Tibshirani, ch. 12.5."""
    ratio, error, pivots = _pivots(change, weight, settings)
    return np.asarray(ratio - error * _quantiles(pivots, _tails(settings.level))[::-1])


def _pivots(change: Floats, weight: Floats, settings: Bootstrap) -> tuple[float, float, Floats]:
    """Return the ratio, its linearised standard error, and (draw - ratio) / error of each draw.

    A draw without spread (all its patients the same) says nothing of the error and is left out.
    """
    columns = np.stack([change, weight, change**2, change * weight, weight**2], axis=1)
    draws = _resampled(columns, settings)
    ratio = float(change.sum() / weight.sum())
    error = float(_error(*columns.sum(axis=0, keepdims=True).T)[0])
    errors = _error(*draws.T)
    told = errors > 1e-9 * error
    pivots = (_ratios(draws[told, 0], draws[told, 1]) - ratio) / errors[told]
    return ratio, error, pivots if len(pivots) else np.zeros(1)


def _error(a: Floats, b: Floats, aa: Floats, ab: Floats, bb: Floats) -> Floats:
    """Return the standard error of a/b from sums of a, b, a^2, ab and b^2 (delta method)."""
    ratio = _ratios(a, b)
    squares = np.maximum(aa - 2 * ratio * ab + ratio**2 * bb, 0)
    return _ratios(np.sqrt(squares), b)


_METHODS: dict[Method, Callable[[Floats, Floats, Bootstrap], Floats]] = {
    "studentised": _symmetric,
    "studentised, equal tails": _equal_tails,
    "BCa": _bca,
    "percentile": _percentile,
}


def _tails(level: float) -> Floats:
    return np.array([(1 - level) / 2, (1 + level) / 2])


def _ratios(above: Floats, below: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(below > 0, above / below, nan)


def _quantiles(values: Floats, shares: Floats) -> Floats:
    return np.asarray(np.quantile(values[np.isfinite(values)], shares))


def _resampled(columns: Floats, settings: Bootstrap) -> Floats:
    """Return the column sums of each draw of patients, (resamples, columns)."""
    patients = len(columns)
    if patients * settings.resamples <= _BLOCK:
        return np.asarray(_counts(patients, settings.resamples, settings.seed) @ columns)
    return np.concatenate([counts @ columns for counts in _blocks(patients, settings)])


@lru_cache(maxsize=4)
def _counts(patients: int, resamples: int, seed: int) -> Floats:
    """Return how often each patient is in each draw: the same for every metric of a comparison."""
    return _draw(np.random.default_rng(seed), patients, resamples)


def _blocks(patients: int, settings: Bootstrap) -> Iterator[Floats]:
    rng = np.random.default_rng(settings.seed)
    block = max(1, _BLOCK // patients)
    for first in range(0, settings.resamples, block):
        yield _draw(rng, patients, min(block, settings.resamples - first))


def _draw(rng: np.random.Generator, patients: int, resamples: int) -> Floats:
    return rng.multinomial(patients, np.full(patients, 1 / patients), resamples).astype(float)
