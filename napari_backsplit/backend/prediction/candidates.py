"""Which cells can become a target at all, told without interpolating anything.

Interpolation is a sum with weights of 0 or more, and each of its floating-point operations keeps
the order of two numbers. So where the target is at most class k in every corner of a cell, it is
at most class k in every output of the cell, and never becomes target if k comes first; where it
is at least k in every corner, k need not be looked at if the target comes first. The other two
cases are those of a tie after rounding, and take a margin of some units of the last place.

Values are compared as whole numbers in the same order, which is far quicker than half floats.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.prediction.resampling import Grid, Indices, Logits

Keys = NDArray[np.signedinteger[Any]]
Flags = NDArray[np.bool_]

SPARSE = 0.08
"""Share of living cells below which each is looked up rather than all compared."""

_MARGIN = 4
"""Units of the last place. One decides a tie; rounding the bounds may take two of them away."""

_WIDER = {np.dtype(np.float16): np.float32, np.dtype(np.float32): np.float64}
_WHOLE: dict[Any, tuple[type[np.signedinteger[Any]], int]] = {
    np.dtype(np.float16): (np.int16, 0x7C00),
    np.dtype(np.float32): (np.int32, 0x7F800000),
}
TYPES = tuple(_WHOLE)
"""Types of logits that can be compared."""


def keys(values: Logits) -> Keys:
    """Return whole numbers in the order of float16 or float32 values (-0 just below 0)."""
    whole, _ = _WHOLE[values.dtype]
    bits: Keys = values.view(whole)
    sign = bits >> (8 * bits.itemsize - 1)
    sign &= np.iinfo(whole).max
    sign ^= bits
    return sign


def check_finite(block: Logits) -> None:
    """Refuse logits, (K, ...), that are not numbers.

    Raises
    ------
    InputError
        There is a NaN or an infinity.
    """
    if not all(_is_finite(values) for values in block):
        raise InputError(
            "The network's output holds NaN or infinite values.",
            "Check the image for extreme values, or predict on the CPU.",
        )


def _is_finite(values: Logits) -> bool:
    if values.dtype not in _WHOLE:
        return bool(np.isfinite(values).all())
    whole, infinite = _WHOLE[values.dtype]
    bits = values.view(whole)
    largest = int(bits.max(initial=0))
    smallest = int(bits.view(f"u{bits.itemsize}").max(initial=0))
    return max(largest, smallest - np.iinfo(whole).max - 1) < infinite


@dataclass(frozen=True, eq=False)
class Block:
    """Some layers of the logits, and the cells between them.

    Attributes
    ----------
    logits : ndarray of float16 or float32, (K, layers, y, x)
        Each class contiguous.
    grid : Grid
        Of the whole volume.
    first : int
        Index of the first layer.
    cells : range
        Cells of the first axis whose corners all lie in these layers.
    """

    logits: Logits
    grid: Grid
    first: int
    cells: range

    def first_classes(self, count: int) -> Block:
        """Return the block with its first classes alone."""
        return replace(self, logits=self.logits[:count])

    def depth(self, corner: int) -> Indices:
        """Return the layer of one corner of each of the block's cells."""
        neighbours = self.grid.axes[0].neighbours[corner]
        return neighbours[self.cells.start : self.cells.stop] - self.first

    def corners(self, cells: Sequence[Indices]) -> Indices:
        """Return the places of the corners of some cells in a flat class, (corners, n)."""
        _, height, width = self.logits.shape[1:]
        z, y, x = self.grid.axes
        at_z = [self.depth(c)[cells[0]] * (height * width) for c in range(len(z.neighbours))]
        at_y = [neighbour[cells[1]] * width for neighbour in y.neighbours]
        at_x = [neighbour[cells[2]] for neighbour in x.neighbours]
        return np.stack([at_z[a] + at_y[b] + at_x[c] for a, b, c in self.grid.corners])

    def with_outputs(self) -> Flags:
        """Return which cells have outputs at all, (z, y, x)."""
        z, y, x = (axis.count > 0 for axis in self.grid.axes)
        own = z[self.cells.start : self.cells.stop]
        return own[:, None, None] & y[:, None] & x

    def corner_values(self, k: int, corners: Indices) -> NDArray[np.float64]:
        """Return class k at some places of a flat class, in their shape."""
        values: NDArray[np.float64] = self.logits[k].ravel()[corners].astype(np.float64)
        return values

    def spread(self, voxels: Flags, join: Callable[..., Any]) -> Flags:
        """Join a flag of voxels over the corners of each cell, (z, y, x)."""
        found = voxels[self.depth(0)]
        if len(self.grid.axes[0].neighbours) == 2:
            join(found, voxels[self.depth(1)], out=found)
        for axis in (1, 2):
            if len(self.grid.axes[axis].neighbours) == 2:
                found = _join_neighbours(found, axis, join)
        return found


def _join_neighbours(flags: Flags, axis: int, join: Callable[..., Any]) -> Flags:
    shape = list(flags.shape)
    shape[axis] += 1
    joined = np.empty(shape, bool)
    source, sink = (np.moveaxis(array, axis, 0) for array in (flags, joined))
    sink[0], sink[-1] = source[0], source[-1]
    join(source[:-1], source[1:], out=sink[1:-1])
    return joined


@dataclass(frozen=True, eq=False)
class Bounds:
    """The target's values as keys, with the values that certainly win or lose against them."""

    target: int
    own: Keys
    low: Keys
    high: Keys

    @classmethod
    def of(cls, values: Logits, target: int) -> Bounds:
        """Return the bounds of a block's target values."""
        margin = _MARGIN * _last_place(values)
        wide = values.astype(_WIDER[values.dtype])
        with np.errstate(over="ignore"):
            low, high = ((wide + step).astype(values.dtype) for step in (-margin, margin))
        return cls(target, keys(values), keys(low), keys(high))

    def at(self, corners: Indices) -> Bounds:
        """Return the bounds at some places."""
        own, low, high = (part.ravel()[corners] for part in (self.own, self.low, self.high))
        return Bounds(self.target, own, low, high)

    def among(self, kept: Flags) -> Bounds:
        """Return the bounds at the corners of some of the cells."""
        own, low, high = (part[:, kept] for part in (self.own, self.low, self.high))
        return Bounds(self.target, own, low, high)

    def may_win(self, other: Keys, index: int) -> Flags:
        """Return where the target could come out above class `index`."""
        return self.own > other if index < self.target else self.high >= other

    def wins(self, other: Keys, index: int) -> Flags:
        """Return where the target comes out above class `index` if it does so all around."""
        return self.low > other if index < self.target else self.own >= other


def _last_place(values: Logits) -> float:
    """Return at least the distance of the two values next to each other where it is largest."""
    kind = np.finfo(values.dtype)
    largest = max(float(values.max(initial=0)), -float(values.min(initial=0)))
    return max(largest * float(kind.eps), float(kind.smallest_subnormal))


@dataclass(frozen=True, eq=False)
class Candidates:
    """Cells that can become target.

    Attributes
    ----------
    won : ndarray of bool, (z, y, x)
        Cells of the block of which all outputs become target.
    cells : tuple of three ndarrays, (n,)
        The others; the first index counts from the block's first cell.
    unsure : ndarray of bool, (K, n)
        Classes that may or may not beat the target there.
    """

    won: Flags
    cells: tuple[Indices, ...]
    unsure: Flags

    @property
    def share(self) -> float:
        """Share of all the block's cells and classes that is unsure."""
        return np.count_nonzero(self.unsure) / (self.won.size * len(self.unsure))


def candidates(block: Block, target: int) -> Candidates:
    """Return the cells of a block that can become target.

    Parameters
    ----------
    block : Block
        Layers of the logits, finite.
    target : int
        Class of the target.
    """
    bounds = Bounds.of(block.logits[target], target)
    others = [k for k in range(len(block.logits)) if k != target]
    alive = block.with_outputs()
    sure = _compare_all(block, bounds, alive, others)
    won = _won(alive, sure, len(others))
    flat = np.flatnonzero(alive & ~won)
    cells = np.unravel_index(flat, alive.shape)
    unsure = np.zeros((len(block.logits), len(flat)), bool)
    for k, flags in sure.items():
        unsure[k] = ~flags.ravel()[flat]
    if len(sure) < len(others) and len(flat):
        left = _look_up(block, bounds, cells, unsure, others[len(sure) :])
        cells, unsure = tuple(c[left] for c in cells), unsure[:, left]
    return Candidates(won, cells, unsure)


def _compare_all(
    block: Block, bounds: Bounds, alive: Flags, others: Sequence[int]
) -> dict[int, Flags]:
    """Compare whole classes, until few cells live; return where the target surely wins."""
    sure = {}
    for k in others:
        if alive.mean() <= SPARSE:
            break
        other = keys(block.logits[k])
        alive &= block.spread(bounds.may_win(other, k), np.logical_or)
        sure[k] = block.spread(bounds.wins(other, k), np.logical_and)
    return sure


def _won(alive: Flags, sure: dict[int, Flags], needed: int) -> Flags:
    """Return the cells in which the target surely wins over every class."""
    if len(sure) < needed:
        return np.zeros_like(alive)
    won = alive.copy()
    for flags in sure.values():
        won &= flags
    return won


def _look_up(
    block: Block,
    bounds: Bounds,
    cells: tuple[Indices, ...],
    unsure: Flags,
    others: Sequence[int],
) -> Indices:
    """Compare the remaining classes in some cells only; return those that stay alive."""
    corners = block.corners(cells)
    bounds = bounds.at(corners)
    left = np.arange(corners.shape[1])
    for k in others:
        other = keys(block.logits[k].ravel()[corners])
        alive: Flags = np.any(bounds.may_win(other, k), axis=0)
        unsure[k, left] = ~bounds.wins(other, k).all(axis=0)
        if not alive.all():
            left, corners, bounds = left[alive], corners[:, alive], bounds.among(alive)
    return left
