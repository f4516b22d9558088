"""What is grown from one click: like intensity, cut off at narrow necks.

Worked on a coarse grid of about 3 mm, aligned with the image, in a window around the click. All of
it depends on the image and the click alone, so it may be remembered or not, with one result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.structures.engines import Scene
from napari_backsplit.backend.structures.prompts import Bounds, bounds_of, slices

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Index = tuple[int, int, int]
Spacing = tuple[float, float, float]

GRID_MM = 3.0
REACH_MM = 110.0
STEP_MM = 40.0
CALM_MM = 6.0
ITERATIONS = 3
TOLERANCES = (3.0, 4.0, 5.0)
NECKS = (0.7, 0.55, 0.4, 0.25)
JUMP, WIDEN = 1.5, 1.3


def factors(spacing_mm: Spacing) -> Index:
    """Return how many voxels make one of the coarse grid, along (z, y, x)."""
    z, y, x = (max(1, int(GRID_MM / step + 0.25)) for step in spacing_mm)
    return z, y, x


@dataclass(frozen=True, eq=False)
class Tile:
    """A window of the coarse grid.

    Attributes
    ----------
    low : tuple of int
        Its first voxel on the coarse grid, (z, y, x).
    light, smooth : ndarray of float32
        Block means of the image, and those after curvature flow.
    slope : ndarray of float32
        Gradient of `smooth`, change per 3 mm.
    """

    low: Index
    spacing_mm: Spacing
    light: Floats
    smooth: Floats
    slope: Floats


@dataclass(frozen=True, eq=False)
class Region:
    """Voxels of the coarse grid: a mask and where it begins, (z, y, x)."""

    low: Index
    mask: Mask

    @property
    def bounds(self) -> Bounds:
        """Half-open bounds on the coarse grid."""
        z, y, x = ((a, a + n) for a, n in zip(self.low, self.mask.shape, strict=True))
        return z, y, x

    def holds(self, at: Index) -> bool:
        """Return whether a voxel of the coarse grid belongs to it."""
        local = tuple(a - b for a, b in zip(at, self.low, strict=True))
        inside = all(0 <= a < n for a, n in zip(local, self.mask.shape, strict=True))
        return inside and bool(self.mask[local])


def tile_bounds(scene: Scene, at: Index) -> Bounds:
    """Return the window around a voxel, on the coarse grid; nearby voxels share one."""
    sides = []
    for a, n, step, factor in zip(
        at, scene.image.shape, scene.spacing_mm, factors(scene.spacing_mm), strict=True
    ):
        size, coarse = -(-n // factor), step * factor
        snap = max(1, round(STEP_MM / coarse))
        middle, reach = (a // factor // snap) * snap + snap // 2, round(REACH_MM / coarse)
        sides.append((max(middle - reach, 0), min(middle + reach + 1, size)))
    return sides[0], sides[1], sides[2]


def make_tile(scene: Scene, bounds: Bounds) -> Tile:
    """Average, smooth and differentiate a window of the image."""
    by = factors(scene.spacing_mm)
    z, y, x = (s * f for s, f in zip(scene.spacing_mm, by, strict=True))
    light = block_means(scene.image, bounds, by)
    smooth = _flow(light)
    sigma = [GRID_MM / 2 / step for step in (z, y, x)]
    slope = ndimage.gaussian_gradient_magnitude(smooth, sigma, truncate=3) * GRID_MM
    (z0, _), (y0, _), (x0, _) = bounds
    return Tile((z0, y0, x0), (z, y, x), light, smooth, slope)


def block_means(image: Floats, bounds: Bounds, by: Index) -> Floats:
    """Return the means of blocks of voxels; the last block of an axis may be cut."""
    part: Floats = image[
        tuple(
            slice(a * f, min(b * f, n))
            for (a, b), f, n in zip(bounds, by, image.shape, strict=True)
        )
    ]
    for axis, factor in enumerate(by):
        short = -part.shape[axis] % factor
        if short:
            pad = [(0, short if a == axis else 0) for a in range(3)]
            part = np.pad(part, pad, mode="edge")
        shape = list(part.shape)
        shape[axis : axis + 1] = [shape[axis] // factor, factor]
        part = part.reshape(shape).mean(axis + 1) if factor > 1 else part
    return np.ascontiguousarray(part, np.float32)


def _flow(image: Floats) -> Floats:
    """Smooth along edges, not across: what told liver from muscle best of the filters tried."""
    if min(image.shape) < 3:
        return image
    flow = sitk.CurvatureFlowImageFilter()
    flow.SetTimeStep(0.0625)
    flow.SetNumberOfIterations(ITERATIONS)
    return np.asarray(sitk.GetArrayFromImage(flow.Execute(sitk.GetImageFromArray(image))))


def grow(tile: Tile, at: Index) -> Region:
    """Return the region of a click, which is a voxel of the coarse grid.

    The intensity is that of the calm place nearest to it; the region is found again with its own
    median, and widened to a larger tolerance while that hardly changes its size.
    """
    click = _triple(a - b for a, b in zip(at, tile.low, strict=True))
    seed = _calm(tile, click)
    unit = max(0.35 * _noise(tile, seed), 0.002 * float(np.ptp(tile.light)), 1e-6)
    around = tile.smooth[_around(seed, (1, 1, 1), tile.smooth.shape)]
    found = _settled(tile, seed, float(np.median(around)), unit)
    if found is None:
        return Region(at, np.ones((1, 1, 1), bool))
    low, mask = found
    return Region(_triple(a + b for a, b in zip(low, tile.low, strict=True)), mask)


def _settled(tile: Tile, seed: Index, level: float, unit: float) -> tuple[Index, Mask] | None:
    found = None
    for _ in range(3):
        next_found = _component(tile, seed, level, TOLERANCES[0] * unit)
        if next_found is None:
            break
        found = next_found
        new = float(np.median(_values(tile.smooth, found)))
        shift, level = abs(new - level), new
        if shift < 0.25 * unit or abs(new - tile.smooth[seed]) > TOLERANCES[0] * unit:
            break
    return found and _widened(tile, seed, level, unit, found)


def _widened(
    tile: Tile, seed: Index, level: float, unit: float, found: tuple[Index, Mask]
) -> tuple[Index, Mask]:
    for tolerance in TOLERANCES[1:]:
        wider = _component(tile, seed, level, tolerance * unit)
        if wider is None or wider[1].sum() > WIDEN * found[1].sum():
            break
        found = wider
    return found


def _component(tile: Tile, seed: Index, level: float, within: float) -> tuple[Index, Mask] | None:
    """Return the seed's part of the voxels of like intensity, cut off at its narrow necks."""
    like = np.abs(tile.smooth - level) < within
    if not like[seed]:
        return None
    labels, _ = ndimage.label(like)
    box = bounds_of(labels == labels[seed])
    assert box is not None
    part = ndimage.binary_fill_holes(labels[slices(box)] == labels[seed])
    low = _triple(side[0] for side in box)
    local = _triple(a - b for a, b in zip(seed, low, strict=True))
    return low, _without_necks(part, local, tile.spacing_mm)


def _without_necks(part: Mask, seed: Index, spacing_mm: Spacing) -> Mask:
    """Cut a region at necks narrower than the place where the seed is wide.

    The radius that parts are cut at is lowered, as long as the region does not jump in size.
    """
    depth = _distance(part, spacing_mm)
    top = _climb(depth, seed)
    kept: Mask = np.zeros_like(part)
    for share in NECKS:
        wider = _opened(part, depth, top, share * float(depth[top]), spacing_mm)
        if kept.any() and wider.sum() > JUMP * kept.sum():
            break
        kept = wider
    return kept


def _opened(part: Mask, depth: Floats, top: Index, radius: float, spacing_mm: Spacing) -> Mask:
    labels, _ = ndimage.label(depth > radius)
    core = labels == labels[top]
    box = bounds_of(core)
    assert box is not None
    pad = [int((radius + max(spacing_mm)) / step) + 1 for step in spacing_mm]
    at = tuple(slice(max(a - p, 0), b + p) for (a, b), p in zip(box, pad, strict=True))
    opened = np.zeros_like(part)
    near = _distance(~core[at], spacing_mm) <= radius + 0.8 * max(spacing_mm)
    opened[at] = part[at] & near
    return opened


def _climb(depth: Floats, at: Index) -> Index:
    """Follow the steepest way from a voxel to where the region is widest."""
    while True:
        around = _around(at, (1, 1, 1), depth.shape)
        best = np.unravel_index(int(depth[around].argmax()), depth[around].shape)
        up = _triple(int(b) + s.start for b, s in zip(best, around, strict=True))
        if depth[up] <= depth[at]:
            return at
        at = up


def _calm(tile: Tile, click: Index) -> Index:
    """Return the place near a click where the image is calm and like the clicked voxel.

    A click on the edge of an organ has the intensity of neither side.
    """
    value = 0.5 * (tile.light[click] + tile.smooth[click])
    around = _around(
        click, _triple(int(CALM_MM / step) for step in tile.spacing_mm), tile.light.shape
    )
    grid = np.ogrid[around]
    squares = (((g - c) * s) ** 2 for g, c, s in zip(grid, click, tile.spacing_mm, strict=True))
    far = np.asarray(sum(squares)) > CALM_MM**2
    cost = tile.slope[around] + 0.5 * np.abs(tile.smooth[around] - value)
    best = np.unravel_index(int(np.where(far, np.inf, cost).argmin()), far.shape)
    return _triple(int(b) + s.start for b, s in zip(best, around, strict=True))


def _noise(tile: Tile, at: Index) -> float:
    """Return the standard deviation of the noise within 30 mm, from neighbours' differences."""
    part = tile.light[
        _around(at, _triple(int(30 / step) for step in tile.spacing_mm), tile.light.shape)
    ]
    steps = np.concatenate([np.abs(np.diff(part, axis=a)).ravel() for a in range(3)])
    steps = steps[steps > 0]
    return float(np.median(steps)) / 0.6745 / 2**0.5 if len(steps) else 0.0


def _distance(mask: Mask, spacing_mm: Spacing) -> Floats:
    return np.asarray(ndimage.distance_transform_edt(mask, spacing_mm), np.float32)


def _values(image: Floats, found: tuple[Index, Mask]) -> Floats:
    low, mask = found
    part = tuple(slice(a, a + n) for a, n in zip(low, mask.shape, strict=True))
    return image[part][mask]


def _around(at: Index, reach: Index, shape: tuple[int, ...]) -> tuple[slice, slice, slice]:
    sides = zip(at, reach, shape, strict=True)
    z, y, x = (slice(max(a - r, 0), min(a + r + 1, n)) for a, r, n in sides)
    return z, y, x


def _triple(values: Any) -> Index:
    z, y, x = (int(value) for value in values)
    return z, y, x
