"""Lesions: which are found, which are not, and what is found where there is none.

False positive and false negative volume are autoPET's (S. Gatidis et al., Nat Mach Intell 6,
2024), whatever the matching: the volume of the predicted components that touch no reference
lesion, and of the reference lesions no voxel of which is predicted. Partial overlap adds to
neither.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_backsplit.backend.comparison.matching import (
    LesionSettings,
    Pairs,
    match,
    pair_components,
)
from napari_backsplit.backend.comparison.runs import Components, Ints, Runs
from napari_backsplit.backend.comparison.strata import StratumCount, strata_names, strata_of

__all__ = ["LesionCount", "LesionSettings", "StratumCount", "count_lesions", "strata_names"]


@dataclass(frozen=True)
class LesionCount:
    """Lesions of one case.

    Parameters
    ----------
    reference, predicted : int
        Components in the reference and in the prediction.
    found : int
        Reference components that a predicted one matches.
    false_positives : int
        Predicted components that match no reference component.
    missed_voxels, false_voxels : int
        Voxels of the reference components that no prediction touches, and of the predicted
        components that touch no reference.
    by_stratum : tuple of StratumCount
        The same for each size class; empty where the volume of a voxel was not given.
    """

    reference: int
    predicted: int
    found: int
    false_positives: int
    missed_voxels: int
    false_voxels: int
    by_stratum: tuple[StratumCount, ...] = ()

    @property
    def sensitivity(self) -> float:
        """Found over reference lesions; not a number without a reference lesion."""
        return self.found / self.reference if self.reference else float("nan")

    @property
    def f1(self) -> float:
        """Lesion-wise F1, ``2 TP / (2 TP + FN + FP)``, as in the ISLES 2022 challenge.

        TP are the reference lesions found. Not a number without a reference lesion.
        """
        total = self.found + self.reference + self.false_positives
        return 2 * self.found / total if self.reference else float("nan")


def count_lesions(
    reference: Runs,
    prediction: Runs,
    settings: LesionSettings | None = None,
    voxel_ml: float | None = None,
) -> LesionCount:
    """Match the components of two masks on one grid; zeros for empty masks.

    Parameters
    ----------
    settings : LesionSettings, optional
        What a lesion is and when it is found.
    voxel_ml : float, optional
        Volume of a voxel in ml, for the size classes.
    """
    settings = settings or LesionSettings()
    pairs = pair_components(reference, prediction, settings.connectivity)
    matched = match(pairs, settings)
    ours = _Side.of(reference.components(settings.connectivity), pairs, matched, "reference")
    theirs = _Side.of(prediction.components(settings.connectivity), pairs, matched, "prediction")
    return LesionCount(
        reference=len(ours.voxels),
        predicted=len(theirs.voxels),
        found=int(ours.matched.sum()),
        false_positives=int((theirs.matched == 0).sum()),
        missed_voxels=int(ours.untouched_voxels.sum()),
        false_voxels=int(theirs.untouched_voxels.sum()),
        by_stratum=() if voxel_ml is None else _by_stratum(ours, theirs, settings, voxel_ml),
    )


@dataclass(frozen=True, eq=False)
class _Side:
    """The components of one mask: their voxels, 1 where matched, voxels of those untouched."""

    voxels: Ints
    matched: Ints
    untouched_voxels: Ints

    @classmethod
    def of(cls, components: Components, pairs: Pairs, matched: Pairs, side: str) -> _Side:
        touched, found = (
            np.isin(np.arange(components.count), getattr(chosen, side))
            for chosen in (pairs, matched)
        )
        untouched = np.where(touched, 0, components.voxels)
        return cls(components.voxels, found.astype(np.int64), untouched)


def _by_stratum(
    ours: _Side, theirs: _Side, settings: LesionSettings, voxel_ml: float
) -> tuple[StratumCount, ...]:
    names = strata_names(settings.strata_ml)
    here, there = (strata_of(side.voxels * voxel_ml, settings.strata_ml) for side in (ours, theirs))

    def add(stratum: Ints, values: Ints) -> Ints:
        return np.bincount(stratum, weights=values, minlength=len(names)).astype(np.int64)

    columns = (
        add(here, np.ones_like(here)),
        add(here, ours.matched),
        add(there, np.ones_like(there)),
        add(there, 1 - theirs.matched),
    )
    volumes = (
        add(here, ours.voxels),
        add(here, ours.untouched_voxels),
        add(there, theirs.untouched_voxels),
    )
    return tuple(
        StratumCount(
            name,
            *(int(column[k]) for column in columns),
            *(int(voxels[k]) * voxel_ml for voxels in volumes),
        )
        for k, name in enumerate(names)
    )
