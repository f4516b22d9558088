"""Lesions by their size: the classes of volume, and what is counted in each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError

STRATA_ML = (1.0, 10.0)


@dataclass(frozen=True)
class StratumCount:
    """Lesions of one size class in one case.

    A lesion counts in the class of its own volume: a false positive in that of the predicted
    component.

    Parameters
    ----------
    name : str
        Size class, one of `strata_names`.
    reference, found : int
        Reference lesions of this size, and those of them that are found.
    predicted, false_positives : int
        Predicted lesions of this size, and those of them that match no reference lesion.
    reference_ml, false_negative_ml, false_positive_ml : float
        Volume in ml of the reference lesions, of those of them that no prediction touches, and
        of the predicted lesions that touch no reference.
    """

    name: str
    reference: int
    found: int
    predicted: int
    false_positives: int
    reference_ml: float
    false_negative_ml: float
    false_positive_ml: float


def strata_names(strata_ml: Sequence[float] = STRATA_ML) -> tuple[str, ...]:
    """Return the names of the size classes that limits in ml divide, smallest first.

    A volume equal to a limit belongs to the larger class. Without limits there is one class.
    """
    if not strata_ml:
        return ("any size",)
    return (
        f"< {strata_ml[0]:g} ml",
        *(f"{low:g} to {high:g} ml" for low, high in pairwise(strata_ml)),
        f">= {strata_ml[-1]:g} ml",
    )


def strata_of(
    ml: NDArray[np.floating[Any]], strata_ml: Sequence[float] = STRATA_ML
) -> NDArray[np.int64]:
    """Return the index into `strata_names` of each volume in ml.

    Volumes are rounded to a millionth of a microlitre, so that voxels that add up to a limit
    reach it.
    """
    limits = np.asarray(strata_ml, float)
    return np.searchsorted(limits, np.round(ml, 9), side="right").astype(np.int64)


def stratum_of(ml: float, strata_ml: Sequence[float] = STRATA_ML) -> str:
    """Return the name of the size class of a volume in ml."""
    return strata_names(strata_ml)[int(strata_of(np.array([ml]), strata_ml)[0])]


def check_strata(strata_ml: Sequence[float]) -> None:
    """Refuse limits that are not positive, finite and ascending.

    Raises
    ------
    InputError
        Names the limits.
    """
    limits = np.asarray(strata_ml, float)
    ascending = (np.isfinite(limits) & (limits > 0)).all() and (np.diff(limits) > 0).all()
    # Limits that are written alike would give classes of the same name.
    if not ascending or len({f"{limit:g}" for limit in limits}) < len(limits):
        raise InputError(
            f"The size limits {', '.join(f'{limit:g}' for limit in limits)} ml are not ascending "
            "volumes.",
            "Give positive limits in ml, the smallest first, for example 1 and 10.",
        )
