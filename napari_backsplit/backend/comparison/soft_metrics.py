"""Metrics of shares: how much of a voxel is the target, against how much of it should be.

Nothing is a mask here. The reference is a soft mask, or a mask as shares of 0 and 1; the
prediction is the share map of a model of soft labels, or of another model the probability of the
target, taken for its share. Every figure comes from sums over voxels in float64. Definitions and
sources are in ``definitions``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import nan
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from napari_backsplit.backend.comparison.compare import CaseInput

ReferenceKind = Literal["", "soft", "mask"]
PredictionKind = Literal["", "share", "probability"]
Box = tuple[slice, slice, slice]

FLOOR = 0.01
"""What a prediction has to reach for the box of the errors to hold it: a softmax is nowhere 0."""


@dataclass(frozen=True)
class SoftMeasures:
    """What is measured of shares of one target in one case; not a number where it is not defined.

    Attributes
    ----------
    soft_dice : float
        With plain sums: greatest where shares are whole, not where they are right.
    soft_dice_squares : float
        With sums of squares: 1 where all shares are right, and only there.
    soft_absolute_error, soft_squared_error : float
        Means over the box of the case.
    soft_reference_ml, soft_predicted_ml, soft_difference_ml : float
        Sums of shares as volumes, and prediction less reference.
    soft_difference_percent : float
        Of the reference.
    soft_reference : {"", "soft", "mask"}
        What the reference was; "" where nothing was measured.
    soft_prediction : {"", "share", "probability"}
        What the prediction was.
    """

    soft_dice: float = nan
    soft_dice_squares: float = nan
    soft_absolute_error: float = nan
    soft_squared_error: float = nan
    soft_reference_ml: float = nan
    soft_predicted_ml: float = nan
    soft_difference_ml: float = nan
    soft_difference_percent: float = nan
    soft_reference: ReferenceKind = ""
    soft_prediction: PredictionKind = ""

    @property
    def soft_absolute_difference_ml(self) -> float:
        """Absolute soft volume difference in ml."""
        return abs(self.soft_difference_ml)

    @property
    def soft_absolute_difference_percent(self) -> float:
        """Absolute soft volume difference in percent of the reference."""
        return abs(self.soft_difference_percent)


NUMBERS = (
    "soft_dice", "soft_dice_squares", "soft_absolute_error", "soft_squared_error",
    "soft_reference_ml", "soft_predicted_ml", "soft_difference_ml", "soft_difference_percent",
)  # fmt: skip
KINDS = ("soft_reference", "soft_prediction")


@dataclass(frozen=True, eq=False)
class SoftReference:
    """How much of each voxel is a target, and where a case is measured.

    Attributes
    ----------
    shares : ndarray, (z, y, x)
        float32 in 0..1, or a mask.
    kind : {"soft", "mask"}
    box : tuple of slice, optional
        The smallest box with all voxels where the reference is above 0 or the map of any arm is
        at least `FLOOR`: one for all arms, so that what an arm predicts far off does not make its
        own error smaller. None where there is no such voxel.
    voxel_ml : float
    """

    shares: NDArray[Any]
    kind: ReferenceKind
    box: Box | None
    voxel_ml: float

    @classmethod
    def of(cls, case: CaseInput, target: str) -> SoftReference | None:
        """Return the reference of a target; None where neither it nor any arm's map is soft."""
        maps = {arm: each for arm, each in case.probabilities.items() if target in each}
        kind: ReferenceKind = "soft" if target in case.soft else "mask"
        if kind == "mask" and not case.shares.intersection(maps):
            return None
        shares = (case.soft if kind == "soft" else case.reference)[target]
        boxes = [extent(shares > 0), *(extent(each[target] >= FLOOR) for each in maps.values())]
        return cls(shares, kind, union(boxes), float(np.prod(case.spacing_mm)) / 1000)

    def measure(self, prediction: NDArray[Any], kind: PredictionKind) -> SoftMeasures:
        """Measure a prediction, (z, y, x) from 0 to 1, on the reference's grid."""
        common = squares = reference = predicted = 0.0
        for ours, theirs in _planes(self.shares, prediction):
            common += float(np.vdot(ours, theirs))
            squares += float(np.vdot(ours, ours) + np.vdot(theirs, theirs))
            reference += float(ours.sum())
            predicted += float(theirs.sum())
        absolute, squared = self._errors(prediction)
        return SoftMeasures(
            soft_dice=2 * common / (reference + predicted) if reference else nan,
            soft_dice_squares=2 * common / squares if reference else nan,
            soft_absolute_error=absolute,
            soft_squared_error=squared,
            soft_reference_ml=reference * self.voxel_ml,
            soft_predicted_ml=predicted * self.voxel_ml,
            soft_difference_ml=(predicted - reference) * self.voxel_ml,
            soft_difference_percent=100 * (predicted - reference) / reference if reference else nan,
            soft_reference=self.kind,
            soft_prediction=kind,
        )

    def _errors(self, prediction: NDArray[Any]) -> tuple[float, float]:
        """Return the mean absolute and the mean squared error in the box."""
        if self.box is None:
            return nan, nan
        absolute = squared = 0.0
        for ours, theirs in _planes(self.shares[self.box], prediction[self.box]):
            difference = np.abs(theirs - ours)
            absolute += float(difference.sum())
            squared += float(np.vdot(difference, difference))
        voxels = self.shares[self.box].size
        return absolute / voxels, squared / voxels


def _planes(
    reference: NDArray[Any], prediction: NDArray[Any]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield the planes of both in float64, clipped to what a share can be."""
    for ours, theirs in zip(reference, prediction, strict=True):
        yield ours.astype(np.float64), np.clip(theirs.astype(np.float64), 0, 1)


def extent(where: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box with all voxels that are marked; None without one."""
    lines = [np.any(where, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    if not lines[0].any():
        return None
    ends = [np.flatnonzero(line)[[0, -1]] for line in lines]
    z, y, x = (slice(int(first), int(last) + 1) for first, last in ends)
    return z, y, x


def union(boxes: list[Box | None]) -> Box | None:
    """Return the smallest box that holds all of them; None without one."""
    known = [box for box in boxes if box is not None]
    if not known:
        return None
    z, y, x = (
        slice(min(part.start for part in axis), max(part.stop for part in axis))
        for axis in zip(*known, strict=True)
    )
    return z, y, x
