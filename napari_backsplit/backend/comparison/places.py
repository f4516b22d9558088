"""Where a lesion lies: its middle, the support that holds it, and the support nearest to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, nan
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.runs import (
    Ints,
    Runs,
    common_voxels,
    encode,
    touching,
    union,
)

_CELLS = 500_000  # distances measured at once, to bound memory at some 20 MB


@dataclass(frozen=True, eq=False)
class Places:
    """The supports of a case, among which lesions lie.

    Parameters
    ----------
    supports : mapping of str to Runs
        Mask of each support; empty ones are left out.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).
    """

    supports: Mapping[str, Runs]
    spacing_mm: tuple[float, ...]

    @classmethod
    def of(cls, supports: Mapping[str, NDArray[Any]], spacing_mm: tuple[float, ...]) -> Places:
        """Encode the masks, (z, y, x), whose foreground is what is not zero."""
        encoded = {name: encode(mask) for name, mask in supports.items()}
        return cls({name: mask for name, mask in encoded.items() if mask.size}, spacing_mm)

    def find(self, lesion: Runs) -> dict[str, Any]:
        """Place a lesion; it must not be empty.

        Returns
        -------
        dict
            ``organ``: the support that holds most of its voxels or, as supports may leave
            lesions out, most of the voxels around it; empty if none does. ``nearest`` and
            ``distance_mm``: the nearest support (the organ, if there is one) and the gap to it
            in mm, 0 where they touch or overlap; empty and not a number without supports.
        """
        inside = {name: common_voxels(lesion, mask) for name, mask in self.supports.items()}
        if organ := self._organ(lesion, inside):
            return {"organ": organ, "nearest": organ, "distance_mm": 0.0}
        nearest, distance_mm = "", inf
        apart = {
            name: _gaps(lesion.box, mask.box, self.spacing_mm)[0, 0]
            for name, mask in self.supports.items()
        }
        for name in sorted(inside, key=lambda name: (-inside[name], apart[name])):
            gap = gap_mm(lesion, self.supports[name], self.spacing_mm, at_most=distance_mm)
            if gap < distance_mm:
                nearest, distance_mm = name, gap
        return {
            "organ": "",
            "nearest": nearest,
            "distance_mm": distance_mm if nearest else nan,
        }

    def _organ(self, lesion: Runs, inside: Mapping[str, int]) -> str:
        if most := _most(inside, lesion.size):
            return most
        grown = grow(lesion)
        around = {
            name: common_voxels(grown, mask) - inside[name] for name, mask in self.supports.items()
        }
        return _most(around, grown.size - lesion.size)


def _most(voxels: Mapping[str, int], size: int) -> str:
    """Return the name with more than half of `size`; empty if none has."""
    name = max(voxels, key=lambda name: voxels[name], default="")
    return name if name and 2 * voxels[name] > size else ""


def grow(runs: Runs) -> Runs:
    """Return the mask and every neighbour, by faces, edges and corners, in the volume."""
    z, y = np.divmod(runs.row, runs.row_step)
    start, stop = np.maximum(runs.start - 1, 0), np.minimum(runs.stop + 1, runs.shape[2])
    copies = []
    for dz, dy in np.ndindex(3, 3):
        row_z, row_y = z + dz - 1, y + dy - 1
        inside = (row_z >= 0) & (row_z < runs.shape[0]) & (row_y >= 0) & (row_y < runs.shape[1])
        row = row_z * runs.row_step + row_y
        copies.append(Runs(runs.shape, row[inside], start[inside], stop[inside]))
    return union(copies, runs.shape)


def gap_mm(lesion: Runs, other: Runs, spacing_mm: tuple[float, ...], at_most: float = inf) -> float:
    """Return the distance, in mm, between the surfaces of the voxels of two masks.

    Parameters
    ----------
    lesion, other : Runs
        Two masks, neither empty.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).
    at_most : float
        A distance from which on the answer does not matter: infinity then.

    Returns
    -------
    float
        0 where the masks touch, by a corner too, or overlap.
    """
    if len(touching(lesion, other)[0]):
        return 0.0
    best = _least_gap(lesion, other, spacing_mm, at_most**2)
    return float(np.sqrt(best)) if best < at_most**2 else inf


def _least_gap(lesion: Runs, other: Runs, spacing_mm: tuple[float, ...], best: float) -> float:
    """Return the least squared gap, in mm2, between runs of two masks, or `best` if smaller."""
    if _gaps(lesion.box, other.box, spacing_mm)[0, 0] >= best:
        return best
    first, last = other.boxes
    bound = _gaps(other.boxes, lesion.box, spacing_mm)[:, 0]
    nearest = [int(np.argmin(bound))]
    best = min(best, float(_gaps((first[nearest], last[nearest]), lesion.boxes, spacing_mm).min()))
    left = np.flatnonzero(bound < best)
    left = left[np.argsort(bound[left], kind="stable")]
    step = max(1, _CELLS // len(lesion.row))
    for batch in (left[k : k + step] for k in range(0, len(left), step)):
        if bound[batch[0]] >= best:
            break
        near = (first[batch], last[batch])
        best = min(best, float(_gaps(near, lesion.boxes, spacing_mm).min()))
    return best


_Boxes = tuple[Ints, Ints]


def _gaps(a: _Boxes, b: _Boxes, spacing_mm: tuple[float, ...]) -> NDArray[np.float64]:
    """Return the squared distance, in mm2, of each box of `a` to each of `b`."""
    squared = np.zeros((len(a[0]), len(b[0])))
    for axis, step in enumerate(spacing_mm):
        (first, last), (low, high) = ([ends[:, axis] for ends in side] for side in (a, b))
        apart = np.maximum(low[None] - last[:, None], first[:, None] - high[None])
        squared += (np.maximum(apart, 0) * step) ** 2
    return squared


def middle(lesion: Runs, spacing_mm: tuple[float, ...]) -> tuple[int, int, int]:
    """Return the voxel (z, y, x) of a mask, not empty, that is nearest to its centroid."""
    z, y = np.divmod(lesion.row, lesion.row_step)
    size = lesion.stop - lesion.start
    centre = [
        float(np.average(values, weights=size))
        for values in (z, y, (lesion.start + lesion.stop - 1) / 2)
    ]
    x = np.clip(np.rint(centre[2]).astype(np.int64), lesion.start, lesion.stop - 1)
    away = np.stack([z, y, x], axis=1) - centre
    k = int(np.argmin(((away * spacing_mm) ** 2).sum(axis=1)))
    return int(z[k]), int(y[k]), int(x[k])
