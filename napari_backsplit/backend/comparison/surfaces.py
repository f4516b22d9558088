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
from scipy.spatial import cKDTree

from napari_backsplit.backend.comparison.runs import Runs, compact_rows

Floats = NDArray[np.float64]
Spacing = tuple[float, float, float]

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
    def tree(self) -> cKDTree:
        """Search tree of the points, in mm."""
        points = self.corner * np.array(self.spacing_mm)
        return cKDTree(points, balanced_tree=False, compact_nodes=False)

    def distances_to(self, other: Surface) -> Floats:
        """Return the distance of each point, in mm, to the nearest point of `other`.

        Measured on whole corners, so that a distance equal to a tolerance stays equal.
        Infinite where `other` has no surface.
        """
        if not len(other.corner):
            return np.full(len(self.corner), np.inf)
        points = self.corner * np.array(self.spacing_mm)
        _, nearest = other.tree.query(points)
        step = (other.corner[nearest] - self.corner) * np.array(self.spacing_mm)
        return np.asarray(np.sqrt(np.sum(step * step, axis=1)))


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
    rows, codes = _neighbourhoods(runs)
    where, x = np.nonzero((codes != 0) & (codes != 255))
    z, y = np.divmod(rows[where], runs.row_step)
    area_mm2 = surfel_areas(spacing_mm)[codes[where, x]]
    return Surface(np.stack([z, y, x], axis=1), area_mm2, spacing_mm)


def _neighbourhoods(runs: Runs) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the rows of corners that see foreground and the code of each of their corners."""
    step = runs.row_step
    rows, bits = compact_rows(runs)
    pairs = np.zeros((len(rows) + 1, bits.shape[1]), np.uint8)
    pairs[1:] = bits
    pairs[1:, 1:] |= bits[:, :-1].astype(np.uint8) << 1
    number = np.zeros((runs.shape[0] + 2) * step + 2, np.int64)
    number[rows + step + 1] = np.arange(1, len(rows) + 1)
    corners = np.unique(np.concatenate([rows + k for k in (0, 1, step, step + 1)]))
    here = [pairs[number[corners + k]] for k in (step + 1, step, 1, 0)]
    return corners, here[0] | here[1] << 2 | here[2] << 4 | here[3] << 6
