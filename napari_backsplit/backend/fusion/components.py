"""The components of a mask, and a voxel of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cc3d
import numpy as np

from napari_backsplit.backend.fusion.findings import Position
from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box


@dataclass(frozen=True)
class Island:
    """A 26-connected component: its size and one of its voxels."""

    voxels: int
    ml: float
    position_zyx: Position


def islands(mask: Mask, voxel_ml: float) -> tuple[Island, ...]:
    """Return the 26-connected components of a mask (z, y, x), the largest first; () if empty."""
    found = [
        Island(n, n * voxel_ml, a_voxel(component, box))
        for component, box in components(mask)
        for n in [int(np.count_nonzero(component))]
    ]
    return tuple(sorted(found, key=lambda island: (-island.voxels, island.position_zyx)))


def components(mask: Mask) -> Iterator[tuple[Mask, Box]]:
    """Yield each 26-connected component of a mask, cropped, and its box in the volume."""
    whole = bounding_box(mask)
    if whole is None:
        return
    padded = np.pad(mask[whole], 1)  # cc3d 4.1.1 fails on thin arrays, such as [[[1, 0, 1]]]
    labels = cc3d.connected_components(padded, connectivity=26)[1:-1, 1:-1, 1:-1]
    labels = np.ascontiguousarray(labels)
    boxes = cc3d.statistics(labels)["bounding_boxes"]
    for label, box in enumerate(boxes[1:], start=1):
        z, y, x = (
            slice(int(s.start) + w.start, int(s.stop) + w.start)
            for s, w in zip(box, whole, strict=True)
        )
        yield labels[box] == label, (z, y, x)


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
