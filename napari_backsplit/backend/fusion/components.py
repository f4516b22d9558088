"""The components of a mask, its holes, and a voxel of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.fusion.findings import Position
from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box

NOWHERE: Box = (slice(0, 0), slice(0, 0), slice(0, 0))


@dataclass(frozen=True)
class Island:
    """A 26-connected component: its size and one of its voxels."""

    voxels: int
    ml: float
    position_zyx: Position


@dataclass(frozen=True, eq=False)
class Parts:
    """Numbered parts of a volume: components of a mask, or its holes.

    Attributes
    ----------
    labels : ndarray
        Unsigned ids (z, y, x) in `box`: 0 none, then 1..n.
    box : Box
        Where they lie in the volume; empty where there are none.
    voxels : ndarray of int
        (n,), the size of each.
    """

    labels: NDArray[Any]
    box: Box
    voxels: NDArray[np.int64]

    def count(self, where: Mask) -> NDArray[np.int64]:
        """Return how many voxels of each part lie in a mask, (z, y, x) in `box`: (n,)."""
        return np.bincount(self.labels[where], minlength=len(self.voxels) + 1)[1:]

    def position(self, index: int) -> Position:
        """Return a voxel of one part, counted from 0, near its middle, in the volume."""
        return a_voxel(self.labels == index + 1, self.box)

    def positions(self, where: Mask | None = None) -> NDArray[np.int64]:
        """Return the voxel of each part nearest to its centre, (n, 3), in the volume.

        Parameters
        ----------
        where : ndarray of bool, optional
            Only voxels of this mask, (z, y, x) in `box`; -1 for a part that has none there.
        """
        chosen = self.labels > 0 if where is None else (self.labels > 0) & where
        flat = np.flatnonzero(chosen)
        at = np.stack(np.unravel_index(flat, chosen.shape), axis=-1)
        part = self.labels.ravel()[flat].astype(np.int64) - 1
        n = len(self.voxels)
        size = np.maximum(np.bincount(part, minlength=n), 1)
        centre = np.stack([np.bincount(part, at[:, k], n) / size for k in range(3)], axis=-1)
        distance = np.square(at - centre[part]).sum(axis=1)
        least = np.full(n, np.inf)
        np.minimum.at(least, part, distance)
        nearest = distance == least[part]
        found = np.full((n, 3), -1, np.int64)
        found[part[nearest]] = at[nearest] + [s.start for s in self.box]
        return found


def islands(mask: Mask, voxel_ml: float) -> tuple[Island, ...]:
    """Return the 26-connected components of a mask (z, y, x), the largest first; () if empty."""
    parts = label_components(mask)
    sizes, positions = parts.voxels.tolist(), parts.positions().tolist()
    found = [
        Island(n, n * voxel_ml, (z, y, x)) for n, (z, y, x) in zip(sizes, positions, strict=True)
    ]
    return tuple(sorted(found, key=lambda island: (-island.voxels, island.position_zyx)))


def label_components(mask: Mask) -> Parts:
    """Give each 26-connected component of a mask (z, y, x) an id."""
    box = bounding_box(mask) or NOWHERE
    # cc3d 4.1.1 fails on thin arrays without a margin, such as [[[1, 0, 1]]]
    return _parts(_connected(np.pad(mask[box], 1), 26)[1:-1, 1:-1, 1:-1], box)


def label_holes(mask: Mask) -> Parts:
    """Give each hole of a mask (z, y, x) an id: 6-connected background that it encloses.

    Background that reaches the border of the volume is no hole.
    """
    box = bounding_box(mask) or NOWHERE
    labels = _connected(~np.pad(mask[box], 1), 6)[1:-1, 1:-1, 1:-1]
    if labels.max(initial=0) < 2:
        return _parts(np.zeros((0, 0, 0), np.uint16), NOWHERE)
    # cc3d numbers in scan order, and the first voxel is background around the mask
    return _parts(np.where(labels > 1, labels - 1, labels.dtype.type(0)), box)


def _connected(mask: Mask, connectivity: Literal[6, 26]) -> NDArray[Any]:
    """Return the ids of the components of a mask with a margin."""
    return np.asarray(cc3d.connected_components(mask, connectivity=connectivity))


def _parts(labels: NDArray[Any], box: Box) -> Parts:
    labels = np.ascontiguousarray(labels)
    return Parts(labels, box, np.bincount(labels[labels > 0], minlength=1)[1:])


def components(mask: Mask) -> Iterator[tuple[Mask, Box]]:
    """Yield each 26-connected component of a mask, cropped, and its box in the volume."""
    parts = label_components(mask)
    if not len(parts.voxels):
        return
    boxes = cc3d.statistics(parts.labels)["bounding_boxes"]
    for label, box in enumerate(boxes[1:], start=1):
        z, y, x = (
            slice(int(s.start) + w.start, int(s.stop) + w.start)
            for s, w in zip(box, parts.box, strict=True)
        )
        yield parts.labels[box] == label, (z, y, x)


def a_voxel(mask: Mask, box: Box | None = None) -> Position:
    """Return a voxel of a non-empty mask: near the middle of its fullest plane along z.

    Parameters
    ----------
    mask : ndarray of bool
        (z, y, x).
    box : Box, optional
        Where the mask lies in the volume; the position is the volume's.
    """
    z = int(np.count_nonzero(mask, axis=(1, 2)).argmax())
    at = np.argwhere(mask[z])
    y, x = at[np.square(at - at.mean(axis=0)).sum(axis=1).argmin()]
    start = [s.start for s in box] if box else (0, 0, 0)
    return z + start[0], int(y) + start[1], int(x) + start[2]
