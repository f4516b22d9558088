"""Surfaces of masks as weighted points, and the distances between two of them.

The surface elements ("surfels") are those of S. Nikolov et al., "Clinically applicable
segmentation of head and neck anatomy for radiotherapy", J Med Internet Res 23(7):e26151
(2021), as in DeepMind's ``surface-distance`` 0.1 (Apache-2.0), from which the areas are taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.comparison.nearest import Floats, Points, Spacing
from napari_backsplit.backend.comparison.runs import Runs, compact_rows

__all__ = ["Floats", "Spacing", "Surface", "find_surface", "surfel_areas"]

_PLANES = 32

# Normals of the surface triangles of a 2x2x2 neighbourhood in eighths of a voxel face,
# three digits (z y x) each, for one neighbourhood of every class under mirroring and
# exchange of foreground and background. Bit 4z + 2y + x of the key is a corner voxel.
_NORMALS = {
    0: "",
    1: "111",
    3: "220 220",
    5: "202 202",
    6: "111 111",
    7: "111 222 400",
    15: "400 400",
    17: "022 022",
    18: "111 111",
    19: "040 111 222",
    20: "111 111",
    21: "004 111 222",
    22: "111 111 111",
    23: "111 111 222 222",
    24: "111 111",
    25: "022 022 111",
    26: "111 202 202",
    27: "022 111 202 333",
    28: "111 220 220",
    29: "022 111 220 333",
    30: "111 111 222 400",
    51: "040 040",
    53: "111 202 220 333",
    54: "040 111 111 222",
    60: "220 220 220 220",
    85: "004 004",
    86: "004 111 111 222",
    90: "202 202 202 202",
    102: "022 022 022 022",
    105: "111 111 111 111",
}


@dataclass(frozen=True, eq=False)
class Surface:
    """The surface of a mask as points between voxels.

    Parameters
    ----------
    corner : ndarray of int64, (n, 3)
        Voxel corners (z, y, x): corner i lies between voxels i - 1 and i.
    area_mm2 : ndarray of float64, (n,)
        Area of the surface that passes each corner.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).
    """

    corner: NDArray[np.int64]
    area_mm2: Floats
    spacing_mm: Spacing

    @cached_property
    def points(self) -> Points:
        """The points, ready to be searched."""
        return Points(self.corner, self.spacing_mm)

    @cached_property
    def by_area(self) -> NDArray[np.int64]:
        """Indices of the points in ascending order of their areas."""
        areas, rank = np.unique(self.area_mm2, return_inverse=True)
        return np.argsort(rank.astype(np.min_scalar_type(len(areas))), kind="stable")

    def distances_to(self, other: Surface) -> Floats:
        """Return the distance of each point, in mm, to the nearest point of `other`.

        Infinite where `other` has no surface.
        """
        if not len(other.corner):
            return np.full(len(self.corner), np.inf)
        return other.points.distances_from(self.corner)


def surfel_areas(spacing_mm: Spacing) -> Floats:
    """Return the surface area, in mm2, of each of the 256 2x2x2 neighbourhoods."""
    z, y, x = spacing_mm
    face_mm2 = np.array([y * x, z * x, z * y]) / 8
    areas = np.zeros(256)
    for key, normals in _NORMALS.items():
        digits = np.array([[int(digit) for digit in normal] for normal in normals.split()])
        area = np.linalg.norm(digits.reshape(-1, 3) * face_mm2, axis=1).sum()
        for code in (_mirror(key, flips) for flips in range(8)):
            areas[code] = areas[255 - code] = area
    return areas


def _mirror(code: int, flips: int) -> int:
    """Mirror a neighbourhood along the axes whose bits (4 z, 2 y, 1 x) are set in `flips`."""
    return sum(((code >> bit) & 1) << (bit ^ flips) for bit in range(8))


def find_surface(runs: Runs, spacing_mm: Spacing) -> Surface:
    """Find the surface of a mask; only the rows that hold foreground are looked at.

    Parameters
    ----------
    runs : Runs
        The mask. Outside the volume there is background.
    spacing_mm : tuple of float
        Voxel spacing (z, y, x).

    Returns
    -------
    Surface
        Without points if the mask is empty.
    """
    planes = range(0, runs.shape[0] + 1, _PLANES)
    corner, code = zip(*(_surface_of_planes(runs, first) for first in planes), strict=True)
    area_mm2 = surfel_areas(spacing_mm)[np.concatenate(code)]
    return Surface(np.concatenate(corner, axis=1).T, area_mm2, spacing_mm)


def _surface_of_planes(runs: Runs, first: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the corners (3, n) on the surface in `_PLANES` planes from `first` on, and codes."""
    step = runs.row_step
    below, above = (first - 1) * step, (first + _PLANES) * step
    near = runs.select(np.arange(*np.searchsorted(runs.row, (below, above))))
    left, right = int(near.start.min(initial=runs.shape[2])), int(near.stop.max(initial=0))
    shape = (_PLANES + 1, runs.shape[1], max(right - left, 0))
    rows, codes = _neighbourhoods(
        Runs(shape, near.row - below, near.start - left, near.stop - left)
    )
    # 0 and 255 are all background and all foreground.
    at = np.flatnonzero((codes + np.uint8(1)).ravel() > 1)
    where, x = np.divmod(at, codes.shape[1])
    z, y = np.divmod(rows[where], step)
    # The corners of the planes before the first and after the last see but half of it.
    own = (z > 0) & (z <= _PLANES)
    return np.stack([z + first - 1, y, x + left])[:, own], codes.ravel()[at[own]]


def _neighbourhoods(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the rows of corners that see foreground and the code of each of their corners."""
    step = runs.row_step
    rows, bits = compact_rows(runs)
    pairs = np.zeros((len(rows) + 1, bits.shape[1]), np.uint8)
    pairs[1:] = bits
    pairs[1:, 1:] |= bits[:, :-1].view(np.uint8) << 1
    number = np.zeros((runs.shape[0] + 2) * step + 2, np.int64)
    number[rows + step + 1] = np.arange(1, len(rows) + 1)
    seen = np.zeros((runs.shape[0] + 1) * step + 1, np.bool_)
    for k in (0, 1, step, step + 1):
        seen[rows + k] = True
    corners = np.flatnonzero(seen)
    codes = pairs[number[corners + step + 1]]
    for bit, k in ((2, step), (4, 1), (6, 0)):
        codes |= pairs[number[corners + k]] << bit
    return corners, codes
