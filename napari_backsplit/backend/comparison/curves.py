"""What target probabilities add: average precision, FROC, false positives at equal sensitivity.

The free-response operating characteristic, lesion sensitivity against false positives per case,
is reviewed by D. P. Chakraborty, Acad Radiol 20:915-919 (2013); a predicted lesion is a connected
component of what is at least as probable as the threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.lesions import LesionCount, count_lesions
from napari_backsplit.backend.comparison.matching import LesionSettings
from napari_backsplit.backend.comparison.runs import Runs, find_runs
from napari_backsplit.backend.errors import GeometryError, InputError

THRESHOLDS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
_BINS = 1000
_PLANES = 8


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
    cases : int
        Cases pooled.
    """

    threshold: float
    found: int
    reference: int
    false_positives: int
    cases: int = 0

    @property
    def sensitivity(self) -> float:
        """Found over reference lesions; not a number without a reference lesion."""
        return self.found / self.reference if self.reference else nan

    @property
    def false_positives_per_case(self) -> float:
        """Not a number without a case."""
        return self.false_positives / self.cases if self.cases else nan


def check_probability(probability: NDArray[Any], shape: tuple[int, ...], what: str) -> None:
    """Refuse what cannot be a probability map on a grid; a hundredth of leeway for rounding.

    Parameters
    ----------
    probability : ndarray, (z, y, x)
        The map.
    shape : tuple of int
        Shape of the reference.
    what : str
        What it is, for the error.

    Raises
    ------
    GeometryError
        It has another shape.
    InputError
        A value is not a number, or not from 0 to 1.
    """
    if probability.shape != shape:
        raise GeometryError(
            f"{what} has shape {probability.shape}, the reference {shape} (z, y, x).",
            "Predict on the image's own grid.",
        )
    # The least and the largest of an array that holds a NaN are NaN: no copy is made to look.
    least, largest = float(np.min(probability, initial=0)), float(np.max(probability, initial=0))
    if not (least >= -0.01 and largest <= 1.01):
        raise InputError(
            f"{what} is from {least:g} to {largest:g}, which no probability is.",
            "Give numbers from 0 to 1, or leave the map out.",
        )


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
    counts = np.zeros((2, _BINS + 1), np.int64)
    for first in range(0, len(mask), _PLANES):
        planes = slice(first, first + _PLANES)
        step = np.rint(np.clip(probability[planes], 0, 1) * _BINS).astype(np.uint16)
        counts[0] += np.bincount(step[mask[planes] != 0], minlength=_BINS + 1)
        counts[1] += np.bincount(step.ravel(), minlength=_BINS + 1)
    hits, taken = np.cumsum(counts[:, ::-1], axis=1)
    if not hits[-1]:
        return nan
    recall_gain = np.diff(hits, prepend=0) / hits[-1]
    return float(np.sum(recall_gain * hits / np.maximum(taken, 1)))


def lesions_by_threshold(
    reference: Runs, probability: NDArray[Any], settings: LesionSettings | None = None
) -> tuple[LesionCount, ...]:
    """Count the lesions of one case at each of `THRESHOLDS`.

    Parameters
    ----------
    reference : Runs
        The reference.
    probability : ndarray, (z, y, x)
        Probability of the target, 0..1.
    settings : LesionSettings, optional
        What a lesion is and when it is found.
    """
    # Most rows hold nothing probable; not a number is not probable either.
    z, y = np.nonzero(np.fmax.reduce(probability, axis=2) >= THRESHOLDS[0])
    rows, row = probability[z, y], z * reference.row_step + y

    def count(threshold: float) -> LesionCount:
        number, start, stop = find_runs(rows >= threshold)
        prediction = Runs(reference.shape, row[number], start, stop)
        return count_lesions(reference, prediction, settings)

    return tuple(count(threshold) for threshold in THRESHOLDS)


def froc(cases: Sequence[tuple[LesionCount, ...]]) -> tuple[OperatingPoint, ...]:
    """Pool the counts of several cases at each of `THRESHOLDS`: a point of the FROC each.

    Parameters
    ----------
    cases : sequence of tuple of LesionCount
        What `lesions_by_threshold` returns for each case.
    """
    return tuple(
        OperatingPoint(
            threshold,
            found=sum(case[k].found for case in cases),
            reference=sum(case[k].reference for case in cases),
            false_positives=sum(case[k].false_positives for case in cases),
            cases=len(cases),
        )
        for k, threshold in enumerate(THRESHOLDS)
    )


def at_sensitivity(points: Sequence[OperatingPoint], found: int) -> OperatingPoint | None:
    """Return the point with the fewest false positives that finds at least `found` lesions.

    Of equal ones the highest threshold. None if no threshold finds so many.
    """
    enough = [point for point in points if point.found >= found]
    return min(enough, key=lambda point: (point.false_positives, -point.threshold), default=None)
