"""Whether a mask lies beside its structure, and the image's edges would fit it better elsewhere.

The mask's surface is moved by every shift of a few voxels, and the image's step across it is
measured there: from just inside to just outside, along the surface's normal. Steps are summed with
their sign over patches of the surface, and the sums without: a patch that lies on an edge sees one
sign, one that lies across texture or noise sees both, which cancel. So a mask that fits has a peak
at no shift, a moved one beside it; where the image shows no edge there is no peak, and nothing is
said.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box

Floats = NDArray[np.float32]
Voxels = NDArray[np.int32]

REACH = 6
"""Longest shift that is tried, in voxels."""

POINTS = 1000
"""Voxels of a surface that are looked at: more change no verdict."""

PATCHES = 4
"""Patches along the longest side of a mask."""

_SHIFTS = np.asarray(
    [o for o in product(range(-REACH, REACH + 1), repeat=3) if np.square(o).sum() <= REACH**2],
    np.int32,
)
_LENGTHS = np.sqrt(np.square(_SHIFTS).sum(axis=1))
_CUBE = np.asarray(list(product(range(-2, 3), repeat=3)), np.int32)


@dataclass(frozen=True)
class ShiftFit:
    """How well the image's edges fit a mask's surface, over all shifts up to `REACH`.

    Attributes
    ----------
    shift_zyx : tuple of int
        The shift of the best fit, in voxels.
    peak : float
        How far the best fit stands out, in robust standard deviations over all shifts.
    gain : float
        The part of the peak's height above the median that is lost within one voxel of where
        the mask is now: 0 where it fits as well, 1 where it fits no better than anywhere.
    lead : float
        The part of its height by which the peak leads all shifts more than three voxels from it.
    """

    shift_zyx: tuple[int, int, int]
    peak: float
    gain: float
    lead: float

    @property
    def length_vox(self) -> float:
        """The length of the shift, in voxels."""
        return float(np.linalg.norm(self.shift_zyx))


def fit_shift(image: NDArray[Any], mask: Mask, surface: int) -> ShiftFit | None:
    """Find the shift of a mask that fits the image's edges best.

    Parameters
    ----------
    image : ndarray
        (z, y, x), one channel, any unit.
    mask : ndarray of bool
        (z, y, x), on the image's grid.
    surface : int
        Fewest voxels of its surface.

    Returns
    -------
    ShiftFit, optional
        None where the surface is smaller, or where the image is the same on both sides of it.
    """
    points, normals = _surface(mask)
    if len(points) < surface:
        return None
    scores = _scores(_steps(image, points, normals), _patches(points))
    height = scores.max() - np.median(scores)
    return _fit(scores) if height > 0 else None


def _fit(scores: Floats) -> ShiftFit:
    best = int(scores.argmax())
    middle = float(np.median(scores))
    spread = 1.4826 * float(np.median(np.abs(scores - middle)))
    height = float(scores[best]) - middle
    here = float(scores[np.abs(_SHIFTS).max(axis=1) <= 1].max())
    apart = np.square(_SHIFTS - _SHIFTS[best]).sum(axis=1) > 9
    z, y, x = (int(v) for v in _SHIFTS[best])
    return ShiftFit(
        (z, y, x),
        height / spread if spread else np.inf,
        (float(scores[best]) - here) / height,
        (float(scores[best]) - float(scores[apart].max())) / height,
    )


def _surface(mask: Mask) -> tuple[Voxels, Floats]:
    """Return voxels of a mask's surface and its outward normals there, both (n, 3).

    A face where the image cuts the mask off is no surface. Where a normal cannot be told, as in
    a sheet one voxel thin, the voxel is left out.
    """
    box = bounding_box(mask)
    if box is None:
        return np.zeros((0, 3), np.int32), np.zeros((0, 3), np.float32)
    around = _grown(box, mask.shape)
    crop = mask[around]
    points = np.argwhere(crop & ~ndimage.binary_erosion(crop, border_value=1))
    if len(points) > POINTS:
        points = points[np.random.default_rng(0).choice(len(points), POINTS, replace=False)]
    near = np.clip(points[:, None] + _CUBE, 0, np.asarray(crop.shape) - 1)
    outward = -crop[tuple(np.moveaxis(near, -1, 0))].astype(np.float32) @ _CUBE.astype(np.float32)
    length = np.linalg.norm(outward, axis=1)
    told = length > 0
    start = np.asarray([s.start for s in around])
    return (points + start)[told].astype(np.int32), outward[told] / length[told, None]


def _grown(box: Box, shape: tuple[int, ...]) -> Box:
    z, y, x = (
        slice(max(s.start - 3, 0), min(s.stop + 3, n)) for s, n in zip(box, shape, strict=True)
    )
    return z, y, x


def _steps(image: NDArray[Any], points: Voxels, normals: Floats) -> Floats:
    """Return the image's step across each point at each shift, (shifts, points); 0 off the image.

    Steps are bounded by the 90th percentile of their size: a bone beside an organ counts as an
    edge and no more.
    """
    inside = np.rint(points - 0.5 * normals).astype(np.int32)
    outside = np.rint(points + 1.5 * normals).astype(np.int32)
    step = _moved(image, outside) - _moved(image, inside)
    seen = np.isfinite(step)
    bound = np.percentile(np.abs(step[seen]), 90) if seen.any() else 0.0
    return np.where(seen, np.clip(step, -bound, bound), np.nan).astype(np.float32)


def _moved(image: NDArray[Any], points: Voxels) -> Floats:
    """Return the image at points moved by each shift, (shifts, points); NaN off the image."""
    seen = np.ones((len(_SHIFTS), len(points)), bool)
    index = []
    for axis, size in enumerate(image.shape):
        at = points[:, axis] + _SHIFTS[:, axis, None]
        seen &= (at >= 0) & (at < size)
        index.append(np.clip(at, 0, size - 1))
    return np.where(seen, image[tuple(index)], np.nan).astype(np.float32)


def _patches(points: Voxels) -> Floats:
    """Return which patch of the surface each point belongs to: (points, patches) of 0 and 1."""
    offset = points - points.min(axis=0)
    size = max(3, int(offset.max()) // PATCHES)
    patch = np.unique(offset // size, axis=0, return_inverse=True)[1].ravel()
    return np.eye(int(patch.max()) + 1, dtype=np.float32)[patch]


def _scores(steps: Floats, patches: Floats) -> Floats:
    """Return for each shift the mean step over the points that it leaves in the image.

    Shifts that move more than 40 % of them out have the least score of the others.
    """
    seen = np.isfinite(steps)
    count = seen.sum(axis=1)
    sums = np.abs(np.where(seen, steps, np.float32(0)) @ patches).sum(axis=1)
    enough = count >= 0.6 * steps.shape[1]
    scores = sums / np.maximum(count, 1)
    least = scores[enough].min(initial=np.inf)
    return np.asarray(np.where(enough, scores, least), np.float32)
