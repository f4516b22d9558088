"""The grid of a volume: shape, spacing, origin and direction, and its canonical view."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations, product
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_backsplit.backend.errors import GeometryError

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

#: Two grids are equal within this share of a voxel.
GRID_TOLERANCE = 1e-3
#: Direction cosines are equal, and orthonormal, within this (ITK refuses beyond it).
DIRECTION_TOLERANCE = 1e-4


@dataclass(frozen=True, eq=False)
class Geometry:
    """The grid of a volume in the patient (LPS: left, posterior, superior), in mm.

    Parameters
    ----------
    shape : tuple of int
        Voxels along (z, y, x): the shape of the array.
    spacing_mm : tuple of float
        Distance of voxel centres along (z, y, x).
    origin_mm : tuple of float
        LPS position (x, y, z) of the centre of voxel (0, 0, 0).
    direction : tuple of tuple of float
        3 x 3, rows x, y, z; column i is the LPS direction of index axis i in the order x, y, z.

    Raises
    ------
    GeometryError
        A size or spacing is not positive, a value is not finite, or the axes are not
        perpendicular unit vectors.
    """

    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin_mm: tuple[float, float, float]
    direction: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        _check_sizes(self.shape, self.spacing_mm)
        _check_finite(self)
        _check_direction(np.asarray(self.direction, float))

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel, in millilitres."""
        return float(np.prod(self.spacing_mm)) / 1000

    @property
    def affine(self) -> Floats:
        """4 x 4, from index (x, y, z) to LPS mm."""
        matrix = np.eye(4)
        matrix[:3, :3] = np.asarray(self.direction) * self.spacing_mm[::-1]
        matrix[:3, 3] = self.origin_mm
        return matrix

    def to_lps(self, index_zyx: npt.ArrayLike) -> Floats:
        """Return the LPS position (x, y, z) in mm of index (z, y, x); last axis 3."""
        index_xyz = np.asarray(index_zyx, float)[..., ::-1]
        return np.asarray(index_xyz @ self.affine[:3, :3].T + self.affine[:3, 3])

    def to_index(self, position_lps: npt.ArrayLike) -> Floats:
        """Return the (fractional) index (z, y, x) of an LPS position (x, y, z) in mm."""
        offset = np.asarray(position_lps, float) - self.affine[:3, 3]
        return np.asarray(offset @ np.linalg.inv(self.affine[:3, :3]).T)[..., ::-1]

    def canonical(self) -> Geometry:
        """Return the same voxels with axes toward left, posterior, superior.

        Axes are permuted and flipped only: an oblique grid stays oblique.
        """
        order, flipped = lps_axes(self)
        first = [n - 1 if flip else 0 for n, flip in zip(self.shape, flipped, strict=True)]
        return from_affine(
            (self.shape[order[0]], self.shape[order[1]], self.shape[order[2]]),
            _reordered_affine(self, order, flipped, self.to_lps(first)),
        )

    def difference(self, other: Geometry) -> str | None:
        """Return a sentence on how `other` differs, or None where it is the same grid."""
        if self.shape != other.shape:
            return f"The shapes (z, y, x) differ: {self.shape} and {other.shape}."
        for name, mine, theirs, tolerance in _comparisons(self, other):
            if np.abs(np.subtract(mine, theirs)).max() > tolerance:
                return f"The {name} differ: {_numbers(mine)} and {_numbers(theirs)}."
        return None

    def __str__(self) -> str:
        return (
            f"shape {self.shape} and spacing {_numbers(self.spacing_mm)} mm (z, y, x), "
            f"origin {_numbers(self.origin_mm)} mm, axes {axis_codes(self)}"
        )


def from_affine(shape: tuple[int, int, int], affine_lps: npt.ArrayLike) -> Geometry:
    """Make a Geometry of a 4 x 4 from index (x, y, z) to LPS mm.

    Rounding within the tolerance is removed: the axes are then exactly orthonormal.

    Raises
    ------
    GeometryError
        A column is zero or not finite, or the axes are not perpendicular.
    """
    affine = np.asarray(affine_lps, float)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    _check_sizes(shape, _triple(spacing[::-1]))
    return from_parts(shape, spacing[::-1], affine[:3, 3], affine[:3, :3] / spacing)


def from_parts(
    shape: tuple[int, int, int],
    spacing_mm: npt.ArrayLike,
    origin_mm: npt.ArrayLike,
    direction: npt.ArrayLike,
) -> Geometry:
    """Make a Geometry, with rounding of the direction within the tolerance removed."""
    matrix = np.asarray(direction, float).reshape(3, 3)
    _check_direction(matrix)
    rows = tuple(_triple(row) for row in orthonormal(matrix))
    return Geometry(shape, _triple(spacing_mm), _triple(origin_mm), rows)


def orthonormal(direction: Floats) -> Floats:
    """Return the orthonormal matrix nearest to `direction`; itself where it is exact."""
    if np.array_equal(direction.T @ direction, np.eye(3)):
        return direction + 0.0
    left, _, right = np.linalg.svd(direction)
    return np.asarray(left @ right)


def lps_axes(geometry: Geometry) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """Return how array axes map to LPS.

    Returns
    -------
    order : tuple of int
        For each canonical array axis (z, y, x), the array axis it comes from.
    flipped : tuple of bool
        For each array axis of `geometry`, whether it runs against its patient axis.
    """
    cosines = np.asarray(geometry.direction)[::-1, ::-1]
    order = max(permutations(range(3)), key=lambda axes: _alignment(cosines, axes))
    sources = np.argsort(order)
    return tuple(order), tuple(bool(cosines[sources[axis], axis] < 0) for axis in range(3))


def to_canonical(array: Array, geometry: Geometry) -> Array:
    """Return `array`, which lies on `geometry`, as a view with canonical axes."""
    order, flipped = lps_axes(geometry)
    return array[_reversal(flipped)].transpose(order)


def restore(canonical_array: Array, geometry: Geometry) -> Array:
    """Return a canonical array on the grid `geometry`, as a view: bit-identical.

    Raises
    ------
    GeometryError
        The array has not the shape of the canonical view of `geometry`.
    """
    order, flipped = lps_axes(geometry)
    expected = tuple(geometry.shape[axis] for axis in order)
    if canonical_array.shape != expected:
        raise GeometryError(
            f"The array has shape {canonical_array.shape}, but the canonical view has {expected}.",
            "Give an array made on the canonical view of the same volume.",
        )
    return canonical_array.transpose(np.argsort(order).tolist())[_reversal(flipped)]


def axis_codes(geometry: Geometry) -> str:
    """Return where the index axes x, y, z point, such as "LPS" or "RAS"."""
    order, flipped = lps_axes(geometry)
    letters = ("SI", "PA", "LR")
    sources = np.argsort(order)
    return "".join(letters[sources[axis]][flipped[axis]] for axis in (2, 1, 0))


def _reversal(flipped: tuple[bool, ...]) -> tuple[slice, ...]:
    return tuple(slice(None, None, -1 if flip else None) for flip in flipped)


def _reordered_affine(
    geometry: Geometry, order: tuple[int, ...], flipped: tuple[bool, ...], origin: Floats
) -> Floats:
    affine = geometry.affine
    columns = [affine[:3, 2 - axis] * (-1 if flipped[axis] else 1) for axis in order]
    affine[:3, :3] = np.stack(columns[::-1], axis=1)
    affine[:3, 3] = origin
    return affine


def _alignment(cosines: Floats, axes: tuple[int, ...]) -> float:
    # Rounded, so that a grid at exactly 45 degrees maps the same on every machine.
    return round(float(sum(abs(cosines[world, axis]) for world, axis in enumerate(axes))), 6)


def _comparisons(a: Geometry, b: Geometry) -> list[tuple[str, Any, Any, Any]]:
    step = GRID_TOLERANCE * min(a.spacing_mm)
    return [
        ("spacings (z, y, x) in mm", a.spacing_mm, b.spacing_mm, step),
        ("directions", a.direction, b.direction, DIRECTION_TOLERANCE),
        ("origins (LPS) in mm", a.origin_mm, b.origin_mm, step),
    ]


def _check_sizes(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> None:
    if len(shape) != 3 or min(shape) < 1:
        raise GeometryError(
            f"The grid has shape {tuple(shape)}.", "Give a volume with three axes, none empty."
        )
    if len(spacing_mm) != 3 or not all(0 < step < np.inf for step in spacing_mm):
        raise GeometryError(
            f"The spacing (z, y, x) is {_numbers(spacing_mm)} mm.",
            "Correct the file's header: every spacing must be above zero.",
        )


def _check_finite(geometry: Geometry) -> None:
    if not np.isfinite(geometry.origin_mm).all():
        raise GeometryError(
            f"The origin is {_numbers(geometry.origin_mm)} mm.", "Correct the file's header."
        )


def _check_direction(direction: Floats) -> None:
    if direction.shape != (3, 3) or not np.isfinite(direction).all():
        raise GeometryError(
            f"The direction is {_numbers(direction)}.", "Correct the file's header."
        )
    product_ = direction.T @ direction
    if np.abs(product_ - np.eye(3)).max() > DIRECTION_TOLERANCE:
        raise GeometryError(_skew(product_), "Resample the image onto an orthogonal grid first.")


def _skew(products: Floats) -> str:
    lengths = np.sqrt(np.diag(products))
    if np.abs(lengths - 1).max() > DIRECTION_TOLERANCE:
        return f"The direction is not orthonormal: its columns have lengths {_numbers(lengths)}."
    pairs = [(a, b) for a, b in product(range(3), repeat=2) if a < b]
    a, b = max(pairs, key=lambda pair: abs(products[pair]))
    degrees = np.degrees(np.arccos(np.clip(products[a, b], -1, 1)))
    return (
        f"The grid is sheared: its axes {'xyz'[a]} and {'xyz'[b]} meet at {degrees:.3f} degrees "
        "instead of 90."
    )


def _triple(values: npt.ArrayLike) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in np.asarray(values, float))
    return x, y, z


def _numbers(values: npt.ArrayLike) -> str:
    array = np.asarray(values, float)
    if array.ndim > 1:
        return "(" + ", ".join(_numbers(row) for row in array) + ")"
    return "(" + ", ".join(f"{value:.6g}" for value in array) + ")"
