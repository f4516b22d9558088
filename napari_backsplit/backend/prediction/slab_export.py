"""The export of targets alone, a few layers of the logits at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.prediction.candidates import (
    Block,
    Candidates,
    candidates,
    check_finite,
)
from napari_backsplit.backend.prediction.planes import Maps, label_plane
from napari_backsplit.backend.prediction.resampling import Grid, Logits
from napari_backsplit.backend.prediction.settling import plane_logits, winners, won_planes

BLOCK_VOXELS = 200_000
"""Voxels of one class that are looked at together: a few MB, so that they stay in the cache."""

CROWDED = 0.3
"""Share of undecided cells and classes above which resampling all is quicker than choosing."""


class SlabExport:
    """Exports targets from slabs of the network's first axis, in order.

    Parameters
    ----------
    grid : Grid
        From the network's grid to the crop.
    mask : ndarray of uint8 or uint16
        The whole image in the network's order of axes; zeros in the crop.
    box : tuple of slice
        Where the crop lies in the image.
    heads : sequence of int
        Classes of the targets; mask i + 1 is `heads[i]`.
    half : bool
        By the rule p > 0.5 rather than argmax.
    maps : Maps
        What else is wanted.
    soft : int, optional
        Of a model of soft labels, whose outputs are shares after a constant 0.5: how many targets
        it has. Between these the targets are decided; a support takes no voxel from them.
    """

    def __init__(
        self,
        grid: Grid,
        mask: NDArray[np.unsignedinteger[Any]],
        box: tuple[slice, ...],
        heads: Sequence[int],
        half: bool,
        maps: Maps,
        soft: int | None = None,
    ) -> None:
        self._grid, self._mask, self._box = grid, mask, box
        self._heads, self._half, self._maps, self._soft = heads, half, maps, soft
        self._layers = 0
        self._last: Logits | None = None

    def feed(self, slab: Logits) -> None:
        """Take the next layers, (K, n, y, x); they may be overwritten afterwards."""
        for block in self._blocks(slab):
            check_finite(block.logits)
            among = block if self._soft is None else block.first_classes(1 + self._soft)
            for index, head in enumerate(self._heads):
                if head < len(among.logits):
                    self._mark(among, candidates(among, head), index)
                else:
                    self._mark_support(block, index)
            if self._maps:
                self._fill(block)
        self._layers += slab.shape[1]
        if len(self._grid.axes[0].neighbours) == 2:
            self._last = slab[:, -1:].copy()

    def _blocks(self, slab: Logits) -> Iterator[Block]:
        """Cut a slab into blocks; the first one begins with the layer before the slab."""
        begin, end = self._layers, self._layers + slab.shape[1]
        depth = max(BLOCK_VOXELS // (slab.shape[2] * slab.shape[3]), 1)
        if self._last is not None:
            joined = np.concatenate([self._last, slab[:, :1]], axis=1)
            yield self._block(joined, begin - 1, begin, begin + 1)
            begin += 1
        overlap = len(self._grid.axes[0].neighbours) - 1
        for start in range(begin, end, depth):
            stop = min(start + depth, end)
            first = max(start - overlap, 0)
            layers = slab[:, first - self._layers : stop - self._layers]
            yield self._block(layers, first, start, stop)

    def _block(self, layers: Logits, first: int, start: int, stop: int) -> Block:
        axis = self._grid.axes[0]
        cells = range(start, axis.cells if stop == axis.size else stop)
        return Block(layers, self._grid, first, cells)

    def _mark(self, block: Block, found: Candidates, index: int) -> None:
        crop, head, value = self._mask[self._box], self._heads[index], index + 1
        if found.share > CROWDED and not self._half:
            for z in self._planes(block):
                crop[z][label_plane(plane_logits(block, z)) == head] = value
            return
        if not self._half:
            for z, where in won_planes(block, found.won):
                np.copyto(crop[z], crop.dtype.type(value), where=where)
        for z, y, x in winners(block, found, head, self._half):
            crop[z, y, x] = value

    def _mark_support(self, block: Block, index: int) -> None:
        """Mark a support of a model of soft labels, which is only where no target is."""
        crop = self._mask[self._box]
        for z in self._planes(block):
            where = self._maps.decide(plane_logits(block, z)) == self._heads[index]
            crop[z][where] = index + 1

    def _fill(self, block: Block) -> None:
        for z in self._planes(block):
            self._maps.fill(z, plane_logits(block, z))

    def _planes(self, block: Block) -> range:
        """Return the output planes of a block's cells."""
        cell_of = self._grid.axes[0].cell_of
        first, last = np.searchsorted(cell_of, (block.cells.start, block.cells.stop))
        return range(int(first), int(last))
