"""An ESTIMATE of the information gap where there is no model that knows the supports.

A binary model has no gap (BackSplit, Proposition 1, K = 2). What its background would be divided
into is estimated from the masks: pi of a voxel is the share that each support, and the background
that remains, has of the voxels around it that are no target. Where a model says how unsure it is,
its eta (1 - eta) weighs the voxels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.fusion.components import components
from napari_backsplit.backend.fusion.fuse import Box, Mask, widened, within
from napari_backsplit.backend.fusion.places import Spacing

AROUND_MM = 10.0
"""How far around a lesion, or a predicted one, the gap is looked at."""

NEARBY_MM = 5.0
"""How far, along each axis, a voxel's neighbourhood reaches."""


@dataclass(frozen=True, eq=False)
class Band:
    """A component and what is within `AROUND_MM` of it: bool (z, y, x) in a box of the image."""

    box: Box
    inside: Mask


def bands_of(mask: Mask, spacing_mm: Spacing) -> list[Band]:
    """Return a band for each 26-connected component; a voxel near to several is in the first."""
    return list(_bands(mask, spacing_mm))


def _bands(mask: Mask, spacing_mm: Spacing) -> Iterator[Band]:
    seen = np.zeros(mask.shape, bool)
    steps = [int(AROUND_MM / mm) for mm in spacing_mm]
    for component, box in components(mask):
        wide = widened(box, steps, mask.shape)
        far = np.ones([side.stop - side.start for side in wide], bool)
        far[within(box, wide)] = ~component
        near = ndimage.distance_transform_edt(far, sampling=spacing_mm) <= AROUND_MM
        inside = near & ~seen[wide]
        seen[wide] |= inside
        yield Band(wide, inside)


@dataclass(frozen=True, eq=False)
class _Window:
    """A band with room for the neighbourhoods of its voxels.

    Attributes
    ----------
    box : Box
        Where it lies in the image.
    at : ndarray of bool
        The band's voxels whose neighbourhood is not all target, (z, y, x) in the box.
    free : ndarray of bool
        What no target and no support has taken, (z, y, x) in the box.
    others : ndarray of float32
        Share of the neighbourhood that is no target, (n,) voxels of `at`.
    weights : ndarray of float64
        (n,).
    """

    box: Box
    at: Mask
    free: Mask
    others: NDArray[np.float32]
    weights: NDArray[np.float64]


class GapEstimate:
    """Takes the supports of a case one at a time, in order of priority.

    Parameters
    ----------
    bands : sequence of Band
        Where to look.
    targets : ndarray of bool
        (z, y, x) of the whole image.
    spacing_mm : tuple of float
        Voxel size (z, y, x).
    eta : ndarray of float, optional
        Probability of the targets, (z, y, x), by a model; eta (1 - eta) weighs the voxels. Without
        it each weighs 1.
    """

    def __init__(
        self,
        bands: Sequence[Band],
        targets: Mask,
        spacing_mm: Spacing,
        eta: NDArray[np.float32] | None = None,
    ) -> None:
        self._size = tuple(2 * int(NEARBY_MM / mm) + 1 for mm in spacing_mm)
        self._windows = [self._window(band, targets, eta) for band in bands]
        self._weight = sum(float(window.weights.sum()) for window in self._windows)

    def add(self, organ: Mask) -> float | None:
        """Return a support's share of the gap, None where no voxel has a weight.

        The mean of pi (1 - pi), weighted, 0 to 0.25: the share of Proposition 1 without its factor
        1 - eta_c. What a support has is taken from those that come later.

        Parameters
        ----------
        organ : ndarray of bool
            (z, y, x) of the whole image.
        """
        total = sum(self._share(window, organ[window.box]) for window in self._windows)
        return total / self._weight if self._weight else None

    def _share(self, window: _Window, organ: Mask) -> float:
        own = organ & window.free
        if not own.any():
            return 0.0
        pi = np.minimum(self._around(own, window.at) / window.others, 1).astype(float)
        window.free[own] = False
        return float((window.weights * pi * (1 - pi)).sum())

    def _window(self, band: Band, targets: Mask, eta: NDArray[np.float32] | None) -> _Window:
        box = widened(band.box, [size // 2 for size in self._size], targets.shape)
        at = np.zeros([side.stop - side.start for side in box], bool)
        at[within(band.box, box)] = band.inside
        free = ~targets[box]
        at &= self._mean(free) * np.prod(self._size) > 0.5
        weights = np.ones(int(np.count_nonzero(at)))
        if eta is not None:
            weights = (eta[box][at] * (1 - eta[box][at])).astype(float)
        return _Window(box, at, free, self._around(free, at), weights)

    def _around(self, mask: Mask, at: Mask) -> NDArray[np.float32]:
        return self._mean(mask)[at]

    def _mean(self, mask: Mask) -> NDArray[np.float32]:
        """Return the share of each voxel's neighbourhood; outside the image there is nothing."""
        mean: NDArray[np.float32] = ndimage.uniform_filter(
            mask.astype(np.float32), self._size, mode="constant"
        )
        return mean
