"""What target probabilities add: average precision, and false positives at equal sensitivity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.lesions import LesionCount, count_lesions
from napari_backsplit.backend.comparison.runs import Runs, encode

THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_BINS = 1000


@dataclass(frozen=True)
class OperatingPoint:
    """Lesions at one probability threshold, pooled over cases.

    Parameters
    ----------
    threshold : float
        Foreground is what is at least as probable.
    found, reference : int
        Reference lesions found and in all.
    false_positives : int
        False positive components.
    """

    threshold: float
    found: int
    reference: int
    false_positives: int


def average_precision(mask: NDArray[Any], probability: NDArray[Any]) -> float:
    """Return the voxel-wise average precision, ``sum (R_n - R_n-1) P_n``.

    Parameters
    ----------
    mask : ndarray of bool, (z, y, x)
        The reference.
    probability : ndarray, (z, y, x)
        Probability of the target, 0..1, rounded to thousandths; equal values are one step.

    Returns
    -------
    float
        Not a number without reference voxels.
    """
    step = np.rint(np.clip(probability, 0, 1) * _BINS).astype(np.uint16).ravel()
    positive = mask.ravel() != 0
    hits = np.cumsum(np.bincount(step[positive], minlength=_BINS + 1)[::-1])
    taken = np.cumsum(np.bincount(step, minlength=_BINS + 1)[::-1])
    if not hits[-1]:
        return nan
    recall_gain = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(recall_gain * hits / np.maximum(taken, 1)))


def lesions_by_threshold(reference: Runs, probability: NDArray[Any]) -> tuple[LesionCount, ...]:
    """Count the lesions of one case at each of `THRESHOLDS`."""
    return tuple(count_lesions(reference, encode(probability >= t)) for t in THRESHOLDS)


def pool(cases: Sequence[tuple[LesionCount, ...]]) -> tuple[OperatingPoint, ...]:
    """Add up the counts of several cases at each of `THRESHOLDS`."""
    return tuple(
        OperatingPoint(
            threshold,
            found=sum(case[k].found for case in cases),
            reference=sum(case[k].reference for case in cases),
            false_positives=sum(case[k].false_positives for case in cases),
        )
        for k, threshold in enumerate(THRESHOLDS)
    )


def at_sensitivity(points: Sequence[OperatingPoint], found: int) -> OperatingPoint | None:
    """Return the point with the fewest false positives that finds at least `found` lesions.

    Of equal ones the highest threshold. None if no threshold finds so many.
    """
    enough = [point for point in points if point.found >= found]
    return min(enough, key=lambda point: (point.false_positives, -point.threshold), default=None)
