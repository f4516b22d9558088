"""Distances between points on the grid of voxel corners, exact to the last digit.

Points that lie near the others, and in overlapping masks most do, are searched row by row: for
every row of corners the distance along x to its nearest point is tabulated once, and the rows
around a point are looked up from the nearest to the farthest until none can be nearer. What is
farther than a few voxels, or would need too large a table, asks a tree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]

_ROWS_AROUND = 200
_DROP = 0.8
_CELLS, _CELLS_PER_POINT = 20_000_000, 250
_FAR = 1 << 14


@dataclass(frozen=True, eq=False)
class Points:
    """Points on the grid of voxel corners.

    Parameters
    ----------
    corner : ndarray of int64, (n, 3)
        Their corners (z, y, x), sorted; at least one.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).
    """

    corner: Ints
    spacing_mm: Spacing

    def distances_from(self, corner: Ints) -> Floats:
        """Return the distance, in mm, of each of some corners (n, 3) to the nearest point.

        Measured on whole corners, so that a distance equal to a tolerance stays equal.
        """
        if self._table is None:
            return self._from_tree(corner)
        squared_mm2, sure = self._table.look_up(corner)
        distances = np.sqrt(squared_mm2)
        distances[~sure] = self._from_tree(corner[~sure])
        return distances

    def _from_tree(self, corner: Ints) -> Floats:
        if not len(corner):
            return np.empty(0)
        _, nearest = self._tree.query(corner * np.array(self.spacing_mm))
        step = (self.corner[nearest] - corner) * np.array(self.spacing_mm)
        return np.asarray(np.sqrt(np.sum(step * step, axis=1)))

    @cached_property
    def _tree(self) -> cKDTree:
        points = self.corner * np.array(self.spacing_mm)
        return cKDTree(points, balanced_tree=False, compact_nodes=False)

    @cached_property
    def _table(self) -> _RowTable | None:
        """The table of rows; None where it would be larger than it is worth."""
        z, y, x = self.corner.T
        rows = 1 + np.count_nonzero((np.diff(z) != 0) | (np.diff(y) != 0))
        cells = rows * int(np.ptp(x) + 1)
        too_large = cells > min(_CELLS, _CELLS_PER_POINT * len(x)) or self.corner.max() >= _FAR // 2
        return None if too_large else _RowTable.of(self.corner, self.spacing_mm)


@dataclass(frozen=True, eq=False)
class _RowTable:
    """Distances along x, in voxels, from each corner of the rows with points to the nearest.

    Parameters
    ----------
    away : ndarray of int16
        The distances of row after row, from the first to the last x at which there is a point.
        The first row stands for all rows without points.
    row : ndarray of int64, (nz, ny)
        Where in `away` the row of a corner begins; there is a margin of rows without points.
    first, last : ndarray of int64, (3,)
        Corners (z, y, x) at which `row` and `away` begin and end.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).
    """

    away: NDArray[np.int16]
    row: Ints
    first: Ints
    last: Ints
    spacing_mm: Spacing

    @classmethod
    def of(cls, corner: Ints, spacing_mm: Spacing) -> _RowTable:
        """Tabulate sorted points."""
        # Once for the corners that ask, once for the rows around them.
        margin = 2 * np.array([*np.abs(_rows_around(spacing_mm)[1]).max(axis=0), 0])
        first, last = corner.min(axis=0) - margin, corner.max(axis=0) + margin
        size = last + 1 - first
        z, y, x = (corner - first).T
        at = z * size[1] + y
        begins = np.flatnonzero(np.diff(at, prepend=-1))
        row = np.zeros(size[0] * size[1], np.int64)
        row[at[begins]] = np.arange(1, len(begins) + 1) * size[2]
        away = _away(x, begins, int(size[2]))
        return cls(away, row.reshape(size[:2]), first, last, spacing_mm)

    def look_up(self, corner: Ints) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the squared distances in mm2, and whether each is sure to be the least."""
        best_mm2 = np.full(len(corner), np.inf)
        costs_mm2, steps = _rows_around(self.spacing_mm)
        which = np.flatnonzero(self._is_near(corner, np.abs(steps).max(axis=0)))
        at, x, beside = self._places(corner[which])
        along_mm2 = self._along_mm2(int(beside.max(initial=0)))
        least = best_mm2[which]
        for cost_mm2, step in zip(costs_mm2, steps @ [self.row.shape[1], 1], strict=True):
            unsure = least > cost_mm2
            if not unsure.any():
                break
            if np.count_nonzero(unsure) < _DROP * len(unsure):
                best_mm2[which] = least
                which, at, x, beside, least = (
                    values[unsure] for values in (which, at, x, beside, least)
                )
            away = self.away[self.row.take(at + step) + x] + beside
            np.minimum(least, cost_mm2 + along_mm2.take(away), out=least)
        best_mm2[which] = least
        return best_mm2, best_mm2 <= costs_mm2[-1]

    def _is_near(self, corner: Ints, reach: Ints) -> NDArray[np.bool_]:
        """Return which corners are so near that all rows around them are in the table."""
        inside = (corner[:, :2] >= self.first[:2] + reach) & (
            corner[:, :2] <= self.last[:2] - reach
        )
        return np.asarray(inside.all(axis=1) & (corner[:, 2] < _FAR // 2))

    def _places(self, corner: Ints) -> tuple[Ints, Ints, Ints]:
        """Return the flat index into `row`, x in the row, and the steps in x beside the table."""
        z, y, x = (corner - self.first).T
        inside = np.clip(x, 0, self.last[2] - self.first[2])
        return z * self.row.shape[1] + y, inside, np.abs(x - inside)

    def _along_mm2(self, beside: int) -> Floats:
        """Return the squared distance, in mm2, of so many steps along x, `beside` more than far."""
        steps = np.arange(_FAR + beside + 1, dtype=np.float64)
        steps[_FAR:] = np.inf
        return (steps * self.spacing_mm[2]) ** 2


@lru_cache(maxsize=8)
def _rows_around(spacing_mm: Spacing) -> tuple[Floats, Ints]:
    """Return the squared distance, in mm2, to the nearest rows, and the steps (z, y) to them."""
    z, y = np.indices((2 * _ROWS_AROUND + 1,) * 2).reshape(2, -1) - _ROWS_AROUND
    costs_mm2 = (z * spacing_mm[0]) ** 2 + (y * spacing_mm[1]) ** 2
    order = np.argsort(costs_mm2, kind="stable")[:_ROWS_AROUND]
    return costs_mm2[order], np.stack([z[order], y[order]], axis=1)


def _away(x: Ints, begins: Ints, width: int) -> NDArray[np.int16]:
    """Return the steps along each row to its nearest point, after a row that is far from any.

    Parameters
    ----------
    x : ndarray of int64
        The points, row after row, ascending in each.
    begins : ndarray of int64
        Index of the first point of each row.
    width : int
        Corners in a row.
    """
    away = np.full((1 + len(begins), width), _FAR, np.int16)
    row = np.repeat(np.arange(len(begins)), np.diff(begins, append=len(x))) * width
    # A point is the nearest one from half-way to the one before it on.
    start = row + (np.append(0, x[:-1]) + x) // 2 + 1
    start[begins] = row[begins]
    nearest = np.repeat(x.astype(np.int16), np.diff(start, append=away.size - width))
    np.subtract(nearest.reshape(-1, width), np.arange(width, dtype=np.int16), out=away[1:])
    return np.abs(away, out=away).ravel()
