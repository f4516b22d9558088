"""A mask of the coarse grid, brought to the image's own voxels."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.structures.engines import Scene
from napari_backsplit.backend.structures.prompts import Bounds, slices
from napari_backsplit.backend.structures.seeded_growth import (
    Floats,
    Index,
    Mask,
    Region,
    Spacing,
    block_means,
    factors,
)

BAND_MM = 3.0
WEIGHT = 2.0
NEAR_MM = 9.0


def refine(scene: Scene, region: Region) -> tuple[Bounds, Mask]:
    """Return a region on the image's own voxels, within bounds of the image.

    Within 3 mm of the region's surface a voxel is inside if it is: by its distance from the coarse
    surface, and by whether it looks more like the inside or the outside near there.
    """
    by = factors(scene.spacing_mm)
    region = _padded(region, _coarse_shape(scene, by))
    light = block_means(scene.image, region.bounds, by)
    coarse_mm = _coarse(scene.spacing_mm, by)
    at = _fine(region.bounds, by, scene.image.shape)
    shape = tuple(s.stop - s.start for s in slices(at))
    signed = _signed_distance(region.mask, coarse_mm)
    middle, gain = _contrast(light, signed, coarse_mm)
    depth = _expand(signed, by, shape)
    inside = depth > 0
    band = np.nonzero(np.abs(depth) < BAND_MM)
    block = tuple(index // factor for index, factor in zip(band, by, strict=True))
    likeness = (_softened(scene.image[slices(at)], band) - middle[block]) * gain[block]
    inside[band] = depth[band] / BAND_MM + WEIGHT * np.clip(likeness, -1, 1) > 0
    return at, inside


def _contrast(light: Floats, signed: Floats, spacing_mm: Spacing) -> tuple[Floats, Floats]:
    """Return the intensity half-way between inside and outside near each voxel, and a gain.

    The gain is low where the two hardly differ, as at a neck that was cut: there the image says
    nothing about where the surface is.
    """
    reach = max(spacing_mm)
    inner = _near_mean(light, signed > 0.5 * reach, spacing_mm)
    outer = _near_mean(light, (signed < -1.5 * reach) & (signed > -6 * reach), spacing_mm)
    difference = inner - outer
    steps = np.abs(np.diff(light, axis=2))
    noise = 1.05 * float(np.median(steps)) if steps.size else 0.0
    trust = np.clip(np.abs(difference) / max(3 * noise, 1e-6) - 0.5, 0, 1)
    safe = np.where(np.abs(difference) < 1e-6, 1e-6, difference)
    middle = np.asarray((inner + outer) / 2, np.float32)
    return middle, np.asarray(2 * trust / safe, np.float32)


def _near_mean(image: Floats, where: Mask, spacing_mm: Spacing) -> Floats:
    sigma = [NEAR_MM / step for step in spacing_mm]
    total = ndimage.gaussian_filter(np.where(where, image, 0), sigma, truncate=2)
    weight = ndimage.gaussian_filter(where.astype(np.float32), sigma, truncate=2)
    return np.asarray(total / np.maximum(weight, 1e-6), np.float32)


def _signed_distance(mask: Mask, spacing_mm: Spacing) -> Floats:
    """Return mm from the surface, positive inside; the surface lies between two voxels."""
    inner = ndimage.distance_transform_edt(mask, spacing_mm)
    outer = ndimage.distance_transform_edt(~mask, spacing_mm)
    half = min(spacing_mm) / 2
    return np.asarray(np.where(mask, inner - half, half - outer), np.float32)


def _expand(image: Floats, by: Index, shape: tuple[int, ...]) -> Floats:
    if by == (1, 1, 1):
        return image
    wide = sitk.Expand(sitk.GetImageFromArray(image), by[::-1], sitk.sitkLinear)
    z, y, x = shape
    return np.asarray(sitk.GetArrayFromImage(wide))[:z, :y, :x]


def _softened(image: Floats, at: tuple[NDArray[np.intp], ...]) -> Floats:
    """Return the means of some voxels and their six neighbours."""
    total = 2 * image[at]
    for axis, size in enumerate(image.shape):
        for step in (-1, 1):
            beside = list(at)
            beside[axis] = np.clip(at[axis] + step, 0, size - 1)
            total += image[tuple(beside)]
    return np.asarray(total / 8, np.float32)


def _padded(region: Region, shape: Index) -> Region:
    """Give a region room for its surface, within the coarse grid."""
    ahead = [min(3, low) for low in region.low]
    room = zip(region.low, region.mask.shape, shape, strict=True)
    behind = [min(3, size - low - n) for low, n, size in room]
    z, y, x = (low - a for low, a in zip(region.low, ahead, strict=True))
    return Region((z, y, x), np.pad(region.mask, list(zip(ahead, behind, strict=True))))


def _coarse_shape(scene: Scene, by: Index) -> Index:
    z, y, x = (-(-n // f) for n, f in zip(scene.image.shape, by, strict=True))
    return z, y, x


def _coarse(spacing_mm: Spacing, by: Index) -> Spacing:
    z, y, x = (s * f for s, f in zip(spacing_mm, by, strict=True))
    return z, y, x


def _fine(bounds: Bounds, by: Index, shape: tuple[int, ...]) -> Bounds:
    sides = zip(bounds, by, shape, strict=True)
    z, y, x = ((a * f, min(b * f, n)) for (a, b), f, n in sides)
    return z, y, x
