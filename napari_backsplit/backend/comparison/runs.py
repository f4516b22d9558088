"""Masks as runs of voxels: one read of the array, then every count is interval arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_backsplit.backend.errors import InputError

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


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
    def components(self) -> Components:
        """The 26-connected components; there are none in an empty mask."""
        return label_components(self)


@dataclass(frozen=True, eq=False)
class Components:
    """The 26-connected components of a mask.

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
    mask = np.ascontiguousarray(mask if mask.dtype == np.bool_ else mask != 0)
    z, y = np.nonzero(mask.any(axis=2))
    bits = np.zeros((len(z), mask.shape[2] + 2), np.bool_)
    bits[:, 1:-1] = mask[z, y]
    where, edge = np.nonzero(bits[:, 1:] != bits[:, :-1])
    row = (z * (mask.shape[1] + 1) + y)[where[::2]]
    return Runs(_shape3(mask.shape), row, edge[::2], edge[1::2])


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
    rows, number = np.unique(runs.row, return_inverse=True)
    steps = np.zeros((len(rows), runs.shape[2] + 1), np.int8)
    steps[number, runs.start] = 1
    steps[number, runs.stop] -= 1
    return rows, np.cumsum(steps, axis=1, dtype=np.int8).astype(np.bool_)


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


def label_components(runs: Runs) -> Components:
    """Find the 26-connected components.

    Runs of neighbouring rows that touch, edges and corners included, form a graph.
    """
    step = runs.row_step
    pairs = [touching(runs, runs, rows, margin=1) for rows in (1, step - 1, step, step + 1)]
    i = np.concatenate([pair[0] for pair in pairs])
    j = np.concatenate([pair[1] for pair in pairs])
    count = len(runs.row)
    graph = coo_array((np.ones(len(i), np.int8), (i, j)), shape=(count, count))
    components, label = connected_components(graph, directed=False) if count else (0, runs.row)
    voxels = np.bincount(label, weights=runs.stop - runs.start, minlength=components)
    return Components(label.astype(np.int64), voxels.astype(np.int64))


def common_voxels(a: Runs, b: Runs) -> int:
    """Count the voxels that are foreground in both masks."""
    i, j = touching(a, b)
    length = np.minimum(a.stop[i], b.stop[j]) - np.maximum(a.start[i], b.start[j])
    return int(length.sum())
