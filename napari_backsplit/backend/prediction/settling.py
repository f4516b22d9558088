"""Which outputs of the candidate cells become target: interpolated in full and compared."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.prediction.candidates import Block, Candidates, Flags
from napari_backsplit.backend.prediction.resampling import Indices, Logits

CHUNK = 1 << 15
"""Outputs worked on at a time: their float64 values stay in the cache."""


def winners(block: Block, found: Candidates, target: int, half: bool) -> Iterator[Indices]:
    """Yield the outputs that become target, (3, n), as indices of the crop.

    Parameters
    ----------
    block : Block
        Layers of the logits.
    found : Candidates
        Its candidate cells.
    target : int
        Class of the target.
    half : bool
        Keep only outputs where the target's probability is above 0.5.
    """
    step = max(CHUNK // int(np.prod(block.grid.places)), 1)
    everything = found if not half else _with_won(found)
    for start in range(0, everything.unsure.shape[1], step):
        part = _Part(block, everything, target, slice(start, start + step))
        part.settle()
        if half:
            part.keep_above_half()
        yield part.outputs()


def _with_won(found: Candidates) -> Candidates:
    """Return the candidates with those among them that surely win."""
    surely = np.nonzero(found.won)
    cells = tuple(np.concatenate(pair) for pair in zip(found.cells, surely, strict=True))
    unsure = np.zeros((len(found.unsure), len(cells[0])), bool)
    unsure[:, : found.unsure.shape[1]] = found.unsure
    return Candidates(found.won, cells, unsure)


class _Part:
    """Some candidate cells, and which of their outputs are still target."""

    def __init__(self, block: Block, found: Candidates, target: int, part: slice) -> None:
        self.block, self.target = block, target
        z, y, x = (cells[part] for cells in found.cells)
        self.cells = (z + block.cells.start, y, x)
        self.corners, self.unsure = block.corners((z, y, x)), found.unsure[:, part]
        counts = [a.count[c] for a, c in zip(block.grid.axes, self.cells, strict=True)]
        gz, gy, gx = (np.arange(places)[:, None] for places in block.grid.places)
        inside = (gz < counts[0])[:, None, None] & (gy < counts[1])[:, None] & (gx < counts[2])
        self.alive: Flags = inside

    def settle(self) -> None:
        """Drop the outputs at which another class wins."""
        contested = np.flatnonzero(self.unsure.any(axis=0))
        own = self._values(self.target, contested)
        for k in np.flatnonzero(self.unsure.any(axis=1)):
            among = self.unsure[k, contested] & self.alive[..., contested].any(axis=(0, 1, 2))
            cells = contested[among]
            if not len(cells):
                continue
            other, mine = self._values(int(k), cells), own[..., among]
            self.alive[..., cells] &= mine > other if k < self.target else mine >= other

    def keep_above_half(self) -> None:
        """Drop the outputs at which the target's softmax is not above 0.5."""
        cells = np.flatnonzero(self.alive.any(axis=(0, 1, 2)))
        largest = self._values(self.target, cells)
        total = np.zeros_like(largest)
        for k in range(len(self.block.logits)):
            total += relative(self._values(k, cells), largest)
        self.alive[..., cells] &= 1 / total > 0.5

    def outputs(self) -> Indices:
        """Return the outputs that are left, (3, n)."""
        *places, cell = np.nonzero(self.alive)
        return np.stack(
            [
                axis.first[cells[cell]] + place
                for axis, cells, place in zip(self.block.grid.axes, self.cells, places, strict=True)
            ]
        )

    def _values(self, k: int, cells: Indices) -> NDArray[np.float32]:
        """Return class k's outputs, rounded as nnU-Net does, (*places, n)."""
        values = self.block.corner_values(k, self.corners[:, cells])
        mixed = self.block.grid.mix(values, [axis[cells] for axis in self.cells])
        return mixed.astype(self.block.logits.dtype).astype(np.float32)


def relative(values: NDArray[np.float32], largest: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return exp(values - largest), one term of a softmax, in float32 as nnU-Net's.

    Infinite where another class is far larger: the share is then 0.
    """
    with np.errstate(over="ignore"):
        terms: NDArray[np.float32] = np.exp(values - largest)
    return terms


def won_planes(block: Block, won: Flags) -> Iterator[tuple[int, Flags]]:
    """Yield each output plane with surely won outputs: its index, and where they are, (y, x)."""
    depth, rows, columns = block.grid.axes
    for cell in np.flatnonzero(won.any(axis=(1, 2))):
        where = won[cell].take(rows.cell_of, axis=0).take(columns.cell_of, axis=1)
        first = depth.first[block.cells.start + cell]
        for place in range(depth.count[block.cells.start + cell]):
            yield int(first + place), where


def plane_logits(block: Block, z: int) -> Logits:
    """Return all classes of one output plane, (K, y, x), rounded as nnU-Net does."""
    axis = block.grid.axes[0]
    layers = [neighbour[axis.cell_of[z]] - block.first for neighbour in axis.neighbours]
    return np.stack([block.grid.plane([values[i] for i in layers], z) for values in block.logits])
