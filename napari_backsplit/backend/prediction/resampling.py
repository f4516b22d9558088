"""nnU-Net's resampling of logits, voxel by voxel and bit for bit.

What nnU-Net 2.8.1 does by default (resample_data_or_seg of order 1, through skimage's resize and
scipy's ndimage.zoom with grid_mode and mode "nearest"): output o of m lies at
c = (o + 0.5) (n / m) - 0.5 among n voxels; its neighbours are floor(c) and floor(c) + 1, moved
into the image at the borders; their weights w0 = 1 - (c - floor(c)) and w1 = 1 - w0. The corners
are added in lexicographic order, each as ((value wz) wy) wx in float64, and the sum is rounded to
the type of the logits. Any other order of operations gives other values in a few voxels.
Separate z takes the nearest slice, floor(c + 0.5), of one axis instead.

A *cell* is a set of outputs with the same neighbours: cell j of an axis lies between voxels
j - 1 and j (n + 1 cells), or is voxel j where an axis is not interpolated (n cells).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating[Any]]
Indices = NDArray[np.intp]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Axis:
    """How the outputs of one axis come from its voxels.

    Attributes
    ----------
    size, outputs : int
        Voxels, and outputs made of them.
    cells : int
        Cells between the voxels.
    cell_of : ndarray, (outputs,)
        The cell of each output; never falls.
    neighbours : tuple of ndarray, (cells,)
        Voxel of each corner of a cell: two corners, or one where nothing is interpolated.
    weights : tuple of ndarray of float64, (outputs,)
        Weight of each corner for each output.
    """

    size: int
    outputs: int
    cells: int
    cell_of: Indices
    neighbours: tuple[Indices, ...]
    weights: tuple[Doubles, ...]

    @cached_property
    def first(self) -> Indices:
        """The first output of each cell, (cells,)."""
        return np.searchsorted(self.cell_of, np.arange(self.cells))

    @cached_property
    def count(self) -> Indices:
        """The number of outputs of each cell, (cells,)."""
        return np.bincount(self.cell_of, minlength=self.cells)

    @cached_property
    def weights_in_cell(self) -> tuple[Doubles, ...]:
        """Weights by place in the cell, (places, cells); beyond a cell's outputs meaningless."""
        places = np.arange(self.count.max())[:, None]
        outputs = np.minimum(self.first + places, self.outputs - 1)
        return tuple(weight[outputs] for weight in self.weights)


def linear(size: int, outputs: int) -> Axis:
    """Return the axis of linear interpolation; that to the same size changes nothing."""
    if size == outputs:
        return nearest(size, outputs)
    at = _positions(size, outputs)
    below = np.floor(at)
    weight = 1 - (at - below)
    cells = np.arange(size + 1)
    return Axis(
        size,
        outputs,
        size + 1,
        below.astype(np.intp) + 1,
        (np.maximum(cells - 1, 0), np.minimum(cells, size - 1)),
        (weight, 1 - weight),
    )


def nearest(size: int, outputs: int) -> Axis:
    """Return the axis of the nearest voxel."""
    voxel = np.floor(_positions(size, outputs) + 0.5).astype(np.intp)
    cell_of = np.clip(voxel, 0, size - 1)
    return Axis(size, outputs, size, cell_of, (np.arange(size),), (np.ones(outputs),))


def _positions(size: int, outputs: int) -> Doubles:
    return (np.arange(outputs, dtype=np.float64) + 0.5) * np.float64(size / outputs) - 0.5


@dataclass(frozen=True, eq=False)
class Grid:
    """The three axes from the network's grid to the image's crop, in the network's order."""

    axes: tuple[Axis, Axis, Axis]

    @classmethod
    def of(cls, shape: Sequence[int], outputs: Sequence[int], separate: int | None) -> Grid:
        """Return the grid from one shape to another; axis `separate` takes nearest slices."""
        made = [
            nearest(n, m) if axis == separate else linear(n, m)
            for axis, (n, m) in enumerate(zip(shape, outputs, strict=True))
        ]
        return cls((made[0], made[1], made[2]))

    @property
    def corners(self) -> list[tuple[int, ...]]:
        """Corners of a cell in the order in which they are added."""
        return list(product(*(range(len(axis.neighbours)) for axis in self.axes)))

    @property
    def places(self) -> tuple[int, int, int]:
        """The most outputs that a cell has, along each axis."""
        z, y, x = (int(axis.count.max()) for axis in self.axes)
        return z, y, x

    def mix(self, values: Doubles, cells: Sequence[Indices]) -> Doubles:
        """Interpolate the outputs of some cells.

        Parameters
        ----------
        values : ndarray of float64, (corners, n)
            At the corners of each cell.
        cells : sequence of three ndarrays, (n,)
            Which cells.

        Returns
        -------
        ndarray of float64, (*places, n)
            Not rounded yet; at places that a cell has not, meaningless.
        """
        wz, wy, wx = (
            [weight[:, cell] for weight in axis.weights_in_cell]
            for axis, cell in zip(self.axes, cells, strict=True)
        )
        total = np.zeros((*self.places, values.shape[1]))
        term = np.empty_like(total)
        for value, (a, b, c) in zip(values, self.corners, strict=True):
            edge = (value * wz[a])[:, None] * wy[b]
            np.multiply(edge[:, :, None], wx[c], out=term)
            total += term
        return total

    def plane(self, layers: Sequence[Logits], z: int) -> Logits:
        """Interpolate one output plane in full.

        Parameters
        ----------
        layers : sequence of ndarray, (y, x)
            The neighbours of the plane's cell along the first axis.
        z : int
            The plane's index.

        Returns
        -------
        ndarray, (y, x)
            In the type of the layers, rounded as nnU-Net does.
        """
        depth, rows, columns = self.axes
        total = np.zeros((rows.outputs, columns.outputs))
        for layer, wz in zip(layers, depth.weights, strict=True):
            lifted = layer.astype(np.float64) * wz[z]
            for row, wy in zip(rows.neighbours, rows.weights, strict=True):
                across = lifted[row[rows.cell_of]] * wy[:, None]
                for column, wx in zip(columns.neighbours, columns.weights, strict=True):
                    total += across.take(column[columns.cell_of], axis=1) * wx
        return total.astype(layers[0].dtype)
