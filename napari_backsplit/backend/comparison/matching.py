"""Which lesion of one mask is which of another: pairs of components, and what counts as found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_backsplit.backend.comparison.runs import Bools, Connectivity, Ints, Runs, overlaps
from napari_backsplit.backend.comparison.strata import STRATA_ML, check_strata
from napari_backsplit.backend.errors import InputError

Matching = Literal["any overlap", "IoU", "one-to-one"]
MATCHINGS: tuple[Matching, ...] = ("any overlap", "IoU", "one-to-one")
CONNECTIVITIES: tuple[Connectivity, ...] = (6, 18, 26)


@dataclass(frozen=True)
class LesionSettings:
    """What a lesion is and when it is found.

    Parameters
    ----------
    matching : {"any overlap", "IoU", "one-to-one"}
        A lesion is found if a voxel of it is predicted; if a predicted lesion has at least
        `iou_threshold` of their union in common with it; or if one is assigned to it, each to
        one at most: as many pairs of at least `iou_threshold` as can be, and of these ways the
        one with the largest sum of IoU.
    iou_threshold : float
        Above 0, at most 1. Above 0.5 no two pairs share a lesion, and "IoU" and "one-to-one"
        are the same.
    connectivity : {6, 18, 26}
        Neighbours of a voxel: by faces; by edges too; by corners too.
    strata_ml : tuple of float
        Limits of the size classes, in ml, ascending.

    Raises
    ------
    InputError
        A value is not one of these.
    """

    matching: Matching = "any overlap"
    iou_threshold: float = 0.5
    connectivity: Connectivity = 26
    strata_ml: tuple[float, ...] = STRATA_ML

    def __post_init__(self) -> None:
        if self.matching not in MATCHINGS:
            raise InputError(
                f"There is no matching {self.matching!r}.", f"Choose of {', '.join(MATCHINGS)}."
            )
        if self.connectivity not in CONNECTIVITIES:
            raise InputError(
                f"There is no connectivity {self.connectivity}.", "Choose of 6, 18 and 26."
            )
        if not 0 < self.iou_threshold <= 1:
            raise InputError(
                f"The IoU threshold is {self.iou_threshold:g}.", "Give one above 0, at most 1."
            )
        check_strata(self.strata_ml)

    @property
    def text(self) -> str:
        """When a lesion is found, in words."""
        neighbours = {6: "faces", 18: "faces and edges", 26: "faces, edges and corners"}
        found = {
            "any overlap": "a reference lesion is found if any voxel of it is predicted, and a "
            "predicted lesion is a false positive if it meets no reference lesion",
            "IoU": "a reference lesion is found, and a predicted lesion is true, if the two have "
            f"an IoU of at least {self.iou_threshold:g}",
            "one-to-one": "each reference lesion is assigned to one predicted lesion at most, as "
            f"many pairs with an IoU of at least {self.iou_threshold:g} as there can be and then "
            "the largest sum of IoU",
        }[self.matching]
        return (
            f"A lesion is a component connected by {neighbours[self.connectivity]} "
            f"({self.connectivity} neighbours); {found}."
        )


@dataclass(frozen=True, eq=False)
class Pairs:
    """The components of two masks that overlap.

    Parameters
    ----------
    reference, prediction : ndarray of int64, (pairs,)
        Component of each mask, each pair once.
    common : ndarray of int64, (pairs,)
        Voxels in common, at least 1.
    union : ndarray of int64, (pairs,)
        Voxels of the two together.
    """

    reference: Ints
    prediction: Ints
    common: Ints
    union: Ints

    @property
    def iou(self) -> NDArray[np.float64]:
        """Common voxels over those of the two together."""
        return self.common / self.union

    def select(self, chosen: Bools | Ints) -> Pairs:
        """Return some of the pairs."""
        return Pairs(
            *(self.reference[chosen], self.prediction[chosen]),
            *(self.common[chosen], self.union[chosen]),
        )


def pair_components(reference: Runs, prediction: Runs, connectivity: Connectivity = 26) -> Pairs:
    """Find the components that overlap; none for an empty mask."""
    ours, theirs = reference.components(connectivity), prediction.components(connectivity)
    i, j, voxels = overlaps(reference, prediction)
    keys, number = np.unique(
        ours.label[i] * max(theirs.count, 1) + theirs.label[j], return_inverse=True
    )
    one, other = np.divmod(keys, max(theirs.count, 1))
    common = np.bincount(number, weights=voxels, minlength=len(keys)).astype(np.int64)
    return Pairs(one, other, common, ours.voxels[one] + theirs.voxels[other] - common)


def match(pairs: Pairs, settings: LesionSettings) -> Pairs:
    """Return the pairs in which the reference lesion counts as found, as `settings` say."""
    if settings.matching == "any overlap":
        return pairs
    # A billionth of leeway: an IoU that equals the threshold in exact arithmetic reaches it.
    close = pairs.select(pairs.iou >= settings.iou_threshold - 1e-9)
    return close if settings.matching == "IoU" else close.select(_assign(close))


def _assign(pairs: Pairs) -> Ints:
    """Return a one-to-one choice of most pairs and, among those, of the largest sum of IoU."""
    chosen = [_assign_group(pairs, group) for group in _groups(pairs)]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, np.int64)


def _groups(pairs: Pairs) -> list[Ints]:
    """Split the pairs into groups that share no component with one another."""
    if not len(pairs.common):
        return []
    nodes = int(pairs.reference.max()) + 1
    ends = (pairs.reference, nodes + pairs.prediction)
    size = nodes + int(pairs.prediction.max()) + 1
    graph = coo_array((np.ones(len(pairs.common), np.int8), ends), shape=(size, size))
    group = connected_components(graph, directed=False)[1][pairs.reference]
    order = np.argsort(group, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(group[order])) + 1)


def _assign_group(pairs: Pairs, group: Ints) -> Ints:
    if len(group) == 1:
        return group
    rows, i = np.unique(pairs.reference[group], return_inverse=True)
    columns, j = np.unique(pairs.prediction[group], return_inverse=True)
    # One more pair outweighs any sum of IoU.
    gain = np.zeros((len(rows), len(columns)))
    gain[i, j] = pairs.iou[group] + min(gain.shape)
    which = np.zeros(gain.shape, np.int64)
    which[i, j] = group
    from scipy.optimize import linear_sum_assignment  # slow to import, for the window too

    chosen = linear_sum_assignment(gain, maximize=True)
    taken: Ints = which[chosen][gain[chosen] > 0]
    return taken
