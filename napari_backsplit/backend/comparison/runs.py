"""Masks as runs of voxels: one read of the array, then every count is interval arithmetic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_backsplit.backend.errors import InputError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Connectivity = Literal[6, 18, 26]

_PLANES = 32
_NO_RUNS = (np.empty(0, np.int64),) * 3


@dataclass(frozen=True, eq=False)
class Runs:
    """The foreground of a mask as half-open runs along x, sorted by row and start.

    Rows are numbered ``z * (ny + 1) + y``. The one empty row between two planes keeps a
    step of one row from reaching into the next plane.

    Parameters
    ----------
    shape : tuple of int
        Shape of the mask, (z, y, x), in voxels.
    row, start, stop : ndarray of int64, (runs,)
        Row number, first x and one past the last x of each run.
    """

    shape: tuple[int, int, int]
    row: Ints
    start: Ints
    stop: Ints

    @property
    def size(self) -> int:
        """Foreground voxels."""
        return int((self.stop - self.start).sum())

    @property
    def row_step(self) -> int:
        """Rows from one plane to the next."""
        return self.shape[1] + 1

    @cached_property
    def _keys(self) -> tuple[Ints, Ints]:
        base = self.row * (self.shape[2] + 2)
        return base + self.start, base + self.stop

    @cached_property
    def boxes(self) -> tuple[Ints, Ints]:
        """The first and the last corner (z, y, x) of each run, each (runs, 3)."""
        z, y = np.divmod(self.row, self.row_step)
        first = np.stack([z, y, self.start], axis=1)
        return first, np.stack([z + 1, y + 1, self.stop], axis=1)

    @cached_property
    def box(self) -> tuple[Ints, Ints]:
        """The first and the last corner (z, y, x) of the mask, not empty, each (1, 3)."""
        first, last = self.boxes
        return first.min(axis=0, keepdims=True), last.max(axis=0, keepdims=True)

    @cached_property
    def _labelled(self) -> dict[Connectivity, Components]:
        return {}

    def components(self, connectivity: Connectivity = 26) -> Components:
        """Return the connected components, found once; there are none in an empty mask."""
        if connectivity not in self._labelled:
            self._labelled[connectivity] = label_components(self, connectivity)
        return self._labelled[connectivity]

    def select(self, chosen: Bools | Ints) -> Runs:
        """Return a mask of some of the runs, in their order."""
        return Runs(self.shape, self.row[chosen], self.start[chosen], self.stop[chosen])


@dataclass(frozen=True, eq=False)
class Components:
    """The connected components of a mask.

    Parameters
    ----------
    label : ndarray of int64, (runs,)
        Component of each run, 0..count-1.
    voxels : ndarray of int64, (count,)
        Voxels of each component.
    """

    label: Ints
    voxels: Ints

    @property
    def count(self) -> int:
        """Number of components."""
        return len(self.voxels)


def encode(mask: NDArray[Any]) -> Runs:
    """Encode a mask.

    Parameters
    ----------
    mask : ndarray, (z, y, x)
        The foreground is what is not zero.

    Raises
    ------
    InputError
        The mask does not have three axes.
    """
    if mask.ndim != 3:
        raise InputError(f"A mask has shape {mask.shape}.", "Give three axes: z, y, x.")
    blocks = [
        _encode_planes(mask[first : first + _PLANES], first)
        for first in range(0, mask.shape[0], _PLANES)
    ]
    row, start, stop = (np.concatenate(parts) for parts in zip(_NO_RUNS, *blocks, strict=True))
    return Runs(_shape3(mask.shape), row, start, stop)


def _encode_planes(mask: NDArray[Any], first: int) -> tuple[Ints, Ints, Ints]:
    """Return row, start and stop of the runs of planes from `first` on."""
    mask = np.ascontiguousarray(mask)
    z, y = np.nonzero(mask.any(axis=2))
    if not len(z):
        return _NO_RUNS
    row = (first + z) * (mask.shape[1] + 1) + y
    number, start, stop = find_runs(mask[z, y])
    return row[number], start, stop


def find_runs(rows: NDArray[Any]) -> tuple[Ints, Ints, Ints]:
    """Return row, start and stop of the runs of what is not zero in rows, (n, nx)."""
    bits = np.zeros((len(rows), rows.shape[1] + 2), np.bool_)
    bits[:, 1:-1] = rows
    flat = bits.ravel()
    # A row begins and ends with background, so that no run reaches into the next.
    row, edge = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), bits.shape[1])
    return row[::2], edge[::2], edge[1::2]


def _shape3(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[0], shape[1], shape[2]


def decode(runs: Runs) -> Bools:
    """Return the mask, bool (z, y, x), that `runs` encodes."""
    rows, compact = compact_rows(runs)
    mask = np.zeros(runs.shape, np.bool_)
    z, y = np.divmod(rows, runs.row_step)
    mask[z, y] = compact[:, : runs.shape[2]]
    return mask


def compact_rows(runs: Runs) -> tuple[Ints, Bools]:
    """Draw the rows that hold foreground.

    Returns
    -------
    rows : ndarray of int64, (n,)
        Their row numbers, ascending.
    bits : ndarray of bool, (n, nx + 1)
        Their voxels; the last column is empty.
    """
    new = np.diff(runs.row, prepend=-1) != 0
    rows, number = runs.row[new], np.cumsum(new) - 1
    steps = np.zeros((len(rows), runs.shape[2] + 1), np.int8)
    steps[number, runs.start] = 1
    steps[number, runs.stop] -= 1
    return rows, np.cumsum(steps, axis=1, dtype=np.int8, out=steps).view(np.bool_)


def touching(a: Runs, b: Runs, rows: int = 0, margin: int = 0) -> tuple[Ints, Ints]:
    """Pair each run of `a` with the runs of `b` it overlaps, `rows` rows further on.

    Parameters
    ----------
    a, b : Runs
        Two masks on one grid.
    rows : int
        Row offset from `a` to `b`.
    margin : int
        Voxels, 0 or 1, by which the runs of `a` grow at both ends.

    Returns
    -------
    i, j : ndarray of int64, (pairs,)
        Indices into the runs of `a` and of `b`.
    """
    shift = rows * (a.shape[2] + 2)
    a_start, a_stop = a._keys
    b_start, b_stop = b._keys
    first = np.searchsorted(b_stop, a_start + (shift - margin), side="right")
    last = np.searchsorted(b_start, a_stop + (shift + margin), side="left")
    count = np.maximum(last - first, 0)
    i = np.repeat(np.arange(len(count)), count)
    j = np.arange(len(i)) - np.repeat(np.cumsum(count) - count - first, count)
    return i, j


def label_components(runs: Runs, connectivity: Connectivity = 26) -> Components:
    """Find the connected components.

    Runs of neighbouring rows that touch, by faces alone (6), by edges too (18) or by corners
    too (26), form a graph.
    """
    pairs = [touching(runs, runs, *near) for near in _neighbours(runs.row_step, connectivity)]
    i = np.concatenate([pair[0] for pair in pairs])
    j = np.concatenate([pair[1] for pair in pairs])
    count = len(runs.row)
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(count, count))
    components, label = connected_components(graph, directed=False) if count else (0, runs.row)
    voxels = np.bincount(label, weights=runs.stop - runs.start, minlength=components)
    return Components(label.astype(np.int64), voxels.astype(np.int64))


def _neighbours(step: int, connectivity: Connectivity) -> tuple[tuple[int, int], ...]:
    """Return offset and margin of the rows whose runs touch those of a row."""
    if connectivity == 6:
        return (1, 0), (step, 0)
    corners = int(connectivity == 26)
    return (1, 1), (step, 1), (step - 1, corners), (step + 1, corners)


def split(runs: Runs, connectivity: Connectivity = 26) -> list[Runs]:
    """Return each connected component as a mask of its own, in the order of their labels."""
    components = runs.components(connectivity)
    order = np.argsort(components.label, kind="stable")
    ends = np.cumsum(np.bincount(components.label, minlength=components.count))
    return [runs.select(chosen) for chosen in np.split(order, ends)[:-1]]


def union(masks: Sequence[Runs], shape: tuple[int, int, int]) -> Runs:
    """Return what is foreground in any of some masks of one shape."""
    step = shape[2] + 2
    empty = np.empty(0, np.int64)
    starts = np.concatenate([empty, *(mask._keys[0] for mask in masks)])
    stops = np.concatenate([empty, *(mask._keys[1] for mask in masks)])
    order = np.argsort(starts, kind="stable")
    starts, reach = starts[order], np.maximum.accumulate(stops[order])
    first = np.flatnonzero(np.append(True, starts[1:] > reach[:-1])[: len(starts)])
    row, start = np.divmod(starts[first], step)
    return Runs(shape, row, start, np.append(reach[first[1:] - 1], reach[-1:]) - row * step)


def overlaps(a: Runs, b: Runs) -> tuple[Ints, Ints, Ints]:
    """Pair the runs of two masks that overlap, and count the voxels they have in common."""
    i, j = touching(a, b)
    return i, j, np.minimum(a.stop[i], b.stop[j]) - np.maximum(a.start[i], b.start[j])


def common_voxels(a: Runs, b: Runs) -> int:
    """Count the voxels that are foreground in both masks."""
    return int(overlaps(a, b)[2].sum())
