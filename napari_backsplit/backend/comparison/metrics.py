"""Metrics of one prediction against one reference.

Every function is a line over counts or distances that are computed once. Dice, HD-95, NSD and
the average surface distances equal those of DeepMind's ``surface-distance`` 0.1; the sources of
all definitions are in ``definitions``.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.lesions import LesionCount, count_lesions
from napari_backsplit.backend.comparison.matching import LesionSettings
from napari_backsplit.backend.comparison.policy import EmptyMaskPolicy
from napari_backsplit.backend.comparison.runs import Runs, common_voxels, encode
from napari_backsplit.backend.comparison.strata import StratumCount
from napari_backsplit.backend.comparison.surfaces import Floats, Spacing, Surface, find_surface
from napari_backsplit.backend.errors import GeometryError


@dataclass(frozen=True, eq=False)
class Segmentation:
    """A mask with what is derived from it, each computed once and only when asked for.

    Parameters
    ----------
    runs : Runs
        The mask.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).
    """

    runs: Runs
    spacing_mm: Spacing

    @classmethod
    def of(cls, mask: NDArray[Any], spacing_mm: tuple[float, ...]) -> Segmentation:
        """Encode a mask, (z, y, x), whose foreground is what is not zero."""
        z, y, x = (float(step) for step in spacing_mm)
        return cls(encode(mask), (z, y, x))

    @cached_property
    def surface(self) -> Surface:
        """The surface of the mask."""
        return find_surface(self.runs, self.spacing_mm)

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml."""
        return float(np.prod(self.spacing_mm)) / 1000

    @property
    def ml(self) -> float:
        """Volume of the foreground in ml."""
        return self.runs.size * self.voxel_ml


@dataclass(frozen=True)
class Overlap:
    """Voxel counts: in both masks, in the reference, in the prediction."""

    common: int
    reference: int
    prediction: int

    @property
    def dice(self) -> float:
        """``2 |R & P| / (|R| + |P|)``; not a number if both are empty."""
        return _ratio(2 * self.common, self.reference + self.prediction)

    @property
    def iou(self) -> float:
        """``|R & P| / |R | P|``, the Jaccard index; not a number if both are empty."""
        return _ratio(self.common, self.reference + self.prediction - self.common)

    @property
    def precision(self) -> float:
        """``|R & P| / |P|``; not a number if the prediction is empty."""
        return _ratio(self.common, self.prediction)

    @property
    def sensitivity(self) -> float:
        """``|R & P| / |R|``; not a number if the reference is empty."""
        return _ratio(self.common, self.reference)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else nan


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Distances between two surfaces, each list ascending, with the areas they stand for.

    Parameters
    ----------
    reference_mm, prediction_mm : ndarray of float64
        Distance of each point of one surface to the other surface, in mm.
    reference_mm2, prediction_mm2 : ndarray of float64
        Area of each point.
    """

    reference_mm: Floats
    reference_mm2: Floats
    prediction_mm: Floats
    prediction_mm2: Floats

    @classmethod
    def between(cls, reference: Surface, prediction: Surface) -> SurfaceDistances:
        """Measure both ways."""
        return cls(*_ascending(reference, prediction), *_ascending(prediction, reference))

    def percentile_mm(self, percent: float = 95) -> float:
        """Return the larger of the two area-weighted percentiles: HD-95 at 95, in mm.

        Infinite if one mask is empty, not a number if both are.
        """
        both = (
            _percentile(self.reference_mm, self.reference_mm2, percent),
            _percentile(self.prediction_mm, self.prediction_mm2, percent),
        )
        return max(both)

    def nsd(self, tolerance_mm: float) -> float:
        """Return the normalised surface Dice: the share of both surfaces within `tolerance_mm`.

        Zero if one mask is empty, not a number if both are.
        """
        within = self.reference_mm2[self.reference_mm <= tolerance_mm].sum()
        within += self.prediction_mm2[self.prediction_mm <= tolerance_mm].sum()
        return _ratio(float(within), float(self.reference_mm2.sum() + self.prediction_mm2.sum()))

    @property
    def average_mm(self) -> tuple[float, float]:
        """The area-weighted mean distances from the reference and from the prediction, in mm.

        Infinite if the other mask is empty, not a number where the own is.
        """
        return (
            _ratio(self._moments[0], float(self.reference_mm2.sum())),
            _ratio(self._moments[1], float(self.prediction_mm2.sum())),
        )

    @property
    def assd_mm(self) -> float:
        """The average symmetric surface distance, in mm: the mean over the area of both surfaces.

        Not the mean of the two directed averages: a surface counts by its area. Infinite if one
        mask is empty, not a number if both are.
        """
        return _ratio(
            sum(self._moments), float(self.reference_mm2.sum() + self.prediction_mm2.sum())
        )

    @property
    def _moments(self) -> tuple[float, float]:
        return (
            float(self.reference_mm @ self.reference_mm2),
            float(self.prediction_mm @ self.prediction_mm2),
        )


def _ascending(surface: Surface, other: Surface) -> tuple[Floats, Floats]:
    distances = surface.distances_to(other)
    # By distance, equal ones by area, as surface-distance has them.
    order = surface.by_area[np.argsort(distances[surface.by_area], kind="stable")]
    return distances[order], surface.area_mm2[order]


def _percentile(distances: Floats, areas: Floats, percent: float) -> float:
    if not len(distances):
        return nan
    share = np.cumsum(areas) / areas.sum()
    at = min(int(np.searchsorted(share, percent / 100)), len(distances) - 1)
    return float(distances[at])


@dataclass(frozen=True)
class Measures:
    """What is measured of one target in one case. Volumes in ml, distances in mm.

    Not a number wherever the empty-mask policy leaves a metric undefined. ``by_stratum`` has the
    lesion-wise counts for each size class.
    """

    dice: float
    hd95_mm: float
    nsd: float
    precision: float
    sensitivity: float
    lesion_f1: float
    lesion_sensitivity: float
    reference_ml: float
    predicted_ml: float
    difference_ml: float
    reference_lesions: int
    predicted_lesions: int
    found_lesions: int
    false_positives: int
    false_positive_ml: float
    false_negative_ml: float
    iou: float = nan
    assd_mm: float = nan
    volume_difference_percent: float = nan
    by_stratum: tuple[StratumCount, ...] = ()


def measure(
    reference: Segmentation,
    prediction: Segmentation,
    tolerance_mm: float = 2.0,
    policy: EmptyMaskPolicy | None = None,
    lesions: LesionSettings | None = None,
) -> Measures:
    """Measure a prediction against a reference on the same grid.

    Parameters
    ----------
    reference, prediction : Segmentation
        Two masks on one grid.
    tolerance_mm : float
        Distance up to which surfaces agree in the NSD, in mm.
    policy : EmptyMaskPolicy, optional
        What holds for empty masks.
    lesions : LesionSettings, optional
        What a lesion is and when it is found.

    Raises
    ------
    GeometryError
        The masks differ in shape or spacing.
    """
    _check_same_grid(reference, prediction)
    counted = count_lesions(reference.runs, prediction.runs, lesions, reference.voxel_ml)
    overlap = Overlap(
        common_voxels(reference.runs, prediction.runs), reference.runs.size, prediction.runs.size
    )
    lesion_case = overlap.reference > 0
    return Measures(
        dice=overlap.dice if lesion_case else nan,
        iou=overlap.iou if lesion_case else nan,
        precision=overlap.precision if lesion_case else nan,
        sensitivity=overlap.sensitivity,
        reference_ml=reference.ml,
        predicted_ml=prediction.ml,
        difference_ml=prediction.ml - reference.ml,
        volume_difference_percent=_ratio(
            100 * (overlap.prediction - overlap.reference), overlap.reference
        ),
        **_surface_figures(reference, prediction, tolerance_mm, policy or EmptyMaskPolicy()),
        **_lesion_figures(counted, reference.voxel_ml),
    )


def _check_same_grid(reference: Segmentation, prediction: Segmentation) -> None:
    grids = [
        f"{item.runs.shape} at {item.spacing_mm} mm (z, y, x)" for item in (reference, prediction)
    ]
    if reference.runs.shape != prediction.runs.shape or not np.allclose(
        reference.spacing_mm, prediction.spacing_mm
    ):
        raise GeometryError(
            f"The reference is {grids[0]}, the prediction {grids[1]}.",
            "Predict on the image's own grid, or resample the prediction to it.",
        )


def _surface_figures(
    reference: Segmentation, prediction: Segmentation, tolerance_mm: float, policy: EmptyMaskPolicy
) -> dict[str, Any]:
    """Return HD-95 and ASSD in mm and NSD, as the policy has them."""
    if not reference.runs.size:
        return {"hd95_mm": nan, "assd_mm": nan, "nsd": nan}
    if not prediction.runs.size:
        missed_mm = policy.distance_mm(reference.runs.shape, reference.spacing_mm)
        return {"hd95_mm": missed_mm, "assd_mm": missed_mm, "nsd": 0.0}
    distances = SurfaceDistances.between(reference.surface, prediction.surface)
    return {
        "hd95_mm": distances.percentile_mm(95),
        "assd_mm": distances.assd_mm,
        "nsd": distances.nsd(tolerance_mm),
    }


def _lesion_figures(lesions: LesionCount, voxel_ml: float) -> dict[str, Any]:
    return {
        "lesion_f1": lesions.f1,
        "lesion_sensitivity": lesions.sensitivity,
        "reference_lesions": lesions.reference,
        "predicted_lesions": lesions.predicted,
        "found_lesions": lesions.found,
        "false_positives": lesions.false_positives,
        "false_positive_ml": lesions.false_voxels * voxel_ml,
        "false_negative_ml": lesions.missed_voxels * voxel_ml,
        "by_stratum": lesions.by_stratum,
    }
