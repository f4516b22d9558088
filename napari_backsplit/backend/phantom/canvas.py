"""The case being painted, and the shapes it is painted with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.phantom.spec import STRUCTURES, Floats, Mask, PhantomSpec, Triple


@dataclass(eq=False)
class Canvas:
    """The case being painted: intensities, owners of voxels, warped coordinates."""

    spec: PhantomSpec
    rng: np.random.Generator
    hu: Floats = field(init=False)
    owner: NDArray[np.uint8] = field(init=False)
    grid: tuple[Floats, Floats, Floats] = field(init=False)
    cores: dict[str, Mask] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.hu = np.full(self.spec.shape, -1000.0)
        self.owner = np.zeros(self.spec.shape, np.uint8)
        self.grid = _warped_grid(self.spec.shape, self.rng)

    def paint(self, mask: Mask, hu: float, name: str) -> None:
        """Give voxels an intensity and an owner."""
        self.hu[mask] = hu
        self.owner[mask] = STRUCTURES.index(name)

    def is_(self, name: str) -> Mask:
        """Return where a structure is now."""
        return np.asarray(self.owner == STRUCTURES.index(name))

    def jitter(self, values: Triple, by: float) -> Triple:
        """Move each value by at most `by`."""
        z, y, x = (v + float(self.rng.uniform(-by, by)) for v in values)
        return z, y, x

    def water(self) -> float:
        """Return the intensity of one cyst or pool of fluid."""
        return float(self.rng.uniform(0, 15))


def _warped_grid(shape: tuple[int, int, int], rng: np.random.Generator) -> Any:
    """Return z, y, x in [-1, 1], displaced smoothly by a few hundredths."""
    axes = [(np.arange(n) + 0.5) * (2 / n) - 1 for n in shape]
    bases = [_basis(n) for n in shape]
    shifts = rng.normal(0, 0.035, (3, 4, 4, 4))
    return tuple(
        a + _interpolated(shift, bases)
        for a, shift in zip(np.meshgrid(*axes, indexing="ij"), shifts, strict=True)
    )


def _interpolated(knots: Floats, bases: list[Floats]) -> Floats:
    """Return knots on the full grid; summed in one order, so the same on every machine."""
    for axis, basis in enumerate(bases):
        shape = [1, 1, 1]
        shape[axis] = len(basis)
        weights = [basis[:, k].reshape(shape) for k in range(basis.shape[1])]
        knots = np.asarray(sum(w * np.take(knots, [k], axis) for k, w in enumerate(weights)))
    return knots


def _basis(count: int, knots: int = 4) -> Floats:
    """Return (count, knots) smooth interpolation weights; each row sums to one."""
    at = (np.arange(count) + 0.5) * ((knots - 1) / count)
    distance = np.clip(np.abs(at[:, None] - np.arange(knots)), 0, 1)
    return np.asarray(1 - distance * distance * (3 - 2 * distance))


def ellipsoid(canvas: Canvas, center: Triple, radii: Triple, tilt: float = 0.0) -> Mask:
    """Return an ellipsoid; `tilt` moves it along x by that much for each unit of z."""
    z, y, x = (a - c for a, c in zip(canvas.grid, center, strict=True))
    if tilt:
        x = x - tilt * z
    terms = ((a / r) ** 2 for a, r in zip((z, y, x), radii, strict=True))
    return np.asarray(sum(terms) <= 1)


def oval(canvas: Canvas, front: float, back: float, side: float) -> Mask:
    """Return the inside of a trunk: a box-like ellipse in every axial plane."""
    y = canvas.grid[1] / np.where(canvas.grid[1] < 0, front, back)
    x = canvas.grid[2] / side
    return np.asarray(y * y * np.sqrt(np.abs(y)) + x * x * np.sqrt(np.abs(x)) <= 1)
