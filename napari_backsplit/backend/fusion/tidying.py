"""Tools that tidy a mask: islands away, holes filled, its surface smooth.

All return a new mask (z, y, x) and work in the mask's bounding box. None makes a mask empty: an
empty mask says that the structure is known not to be there, which is for a person to say.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box

Spacing = tuple[float, float, float]

REACH = 4.0
"""Standard deviations after which a Gaussian counts as zero."""


def keep_largest(mask: Mask) -> Mask:
    """Return the largest 26-connected component of a mask (z, y, x).

    Of several that are equally large, the one whose first voxel in (z, y, x) order comes first.
    """
    return _in_box(mask, bounding_box(mask), _largest)


def remove_islands(mask: Mask, below_ml: float, voxel_ml: float) -> Mask:
    """Return a mask without its 26-connected components that are smaller than `below_ml`.

    Parameters
    ----------
    mask : ndarray of bool
        (z, y, x).
    below_ml : float
        One of exactly this volume stays. Where all are smaller, all stay.
    voxel_ml : float
        Volume of a voxel.

    Raises
    ------
    InputError
        `below_ml` is negative or not finite.
    """
    _refuse(below_ml, "ml")

    def large(crop: Mask) -> Mask:
        names, voxels = _named(crop)
        stays = voxels * voxel_ml >= below_ml
        stays[0] = False
        return stays[names] if stays.any() else crop

    return _in_box(mask, bounding_box(mask), large)


def fill_holes(mask: Mask) -> Mask:
    """Return a mask with its cavities filled.

    A cavity is background from which no 6-connected way through background leads to the border of
    the image, in 3D: what is open in one plane alone is no cavity.
    """
    return _in_box(mask, bounding_box(mask), _filled)


def smooth(mask: Mask, radius_mm: float, spacing_mm: Spacing) -> Mask:
    """Return a mask with a smooth surface: a Gaussian of the mask, from 0.5 on.

    Parameters
    ----------
    mask : ndarray of bool
        (z, y, x).
    radius_mm : float
        Twice the Gaussian's standard deviation: bumps and dents of about this radius go.
    spacing_mm : tuple of float
        Voxel size (z, y, x); the surface is as smooth in mm along each axis.

    Returns
    -------
    ndarray of bool
        A flat surface stays where it is, a rounded one moves inward: a ball of radius R loses
        about 0.75 (radius_mm / R)^2 of its volume. A 26-connected component of which no voxel
        would be left is kept as it is. At the border of the image the mask is taken to go on.

    Raises
    ------
    InputError
        `radius_mm` is negative or not finite.
    """
    _refuse(radius_mm, "mm")
    sigma_vox = [radius_mm / 2 / mm for mm in spacing_mm]

    def smoothed(crop: Mask) -> Mask:
        blurred = ndimage.gaussian_filter(
            crop.astype(np.float32), sigma_vox, mode="nearest", truncate=REACH
        )
        return _with_lost(crop, blurred >= 0.5)

    return _in_box(mask, _wider(bounding_box(mask), mask.shape, sigma_vox), smoothed)


class Tool(NamedTuple):
    """A tool as a person meets it.

    Attributes
    ----------
    words : str
        What it does.
    amount : str
        What the amount means, with its unit; "" for a tool that takes none.
    usual : float
        The amount to begin with.
    apply : callable
        Takes (mask, spacing_mm, amount) and returns a new mask.
    """

    words: str
    amount: str
    usual: float
    apply: Callable[[Mask, Spacing, float], Mask]


TOOLS: dict[str, Tool] = {
    "keep_largest": Tool("Keep the largest part", "", 0.0, lambda mask, mm, _: keep_largest(mask)),
    "remove_islands": Tool(
        "Remove islands",
        "smaller than (ml)",
        0.1,
        lambda mask, mm, below_ml: remove_islands(mask, below_ml, float(np.prod(mm)) / 1000),
    ),
    "fill_holes": Tool("Fill holes", "", 0.0, lambda mask, mm, _: fill_holes(mask)),
    "smooth": Tool(
        "Smooth", "radius (mm)", 2.0, lambda mask, mm, radius_mm: smooth(mask, radius_mm, mm)
    ),
}


def _refuse(amount: float, unit: str) -> None:
    if not 0 <= amount < float("inf"):
        raise InputError(f"{amount} {unit} is no amount.", f"Give 0 {unit} or more.")


def _in_box(mask: Mask, box: Box | None, tidied: Callable[[Mask], Mask]) -> Mask:
    """Return a new mask, the box of it tidied."""
    result = np.zeros(mask.shape, bool)
    if box is not None:
        result[box] = tidied(mask[box])
    return result


def _wider(box: Box | None, shape: tuple[int, ...], sigma_vox: list[float]) -> Box | None:
    """Return a box with room for a Gaussian on every side, as far as the image goes."""
    if box is None:
        return None
    margins = [int(REACH * sigma + 0.5) + 1 for sigma in sigma_vox]
    z, y, x = (
        slice(max(0, s.start - n), min(size, s.stop + n))
        for s, n, size in zip(box, margins, shape, strict=True)
    )
    return z, y, x


def _named(mask: Mask, connectivity: int = 26) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the components of a mask, numbered from 1, and the voxels of each number."""
    padded = np.pad(mask, 1)  # cc3d 4.1.1 fails on thin arrays, such as [[[1, 0, 1]]]
    names = cc3d.connected_components(padded, connectivity=connectivity)[1:-1, 1:-1, 1:-1]
    return names, np.bincount(names.reshape(-1))


def _largest(mask: Mask) -> Mask:
    names, voxels = _named(mask)
    voxels[0] = 0
    first = int(np.argmax((voxels == voxels.max())[names]))
    return np.asarray(names == names.reshape(-1)[first])


def _filled(mask: Mask) -> Mask:
    """Fill the cavities of a mask that lies in its bounding box."""
    outside = cc3d.connected_components(np.pad(~mask, 1, constant_values=True), connectivity=6)
    return np.asarray(outside[1:-1, 1:-1, 1:-1] != outside[0, 0, 0])


def _with_lost(mask: Mask, smoothed: Mask) -> Mask:
    """Put back the components of which nothing is left."""
    names, voxels = _named(mask)
    left = np.bincount(names[smoothed], minlength=len(voxels)) > 0
    left[0] = True
    return smoothed if left.all() else smoothed | ~left[names]
