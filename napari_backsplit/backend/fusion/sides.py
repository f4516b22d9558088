"""Left and right, head and feet: the image's axes in the patient's words, and masks swapped."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from napari_backsplit.backend.fusion.components import a_voxel
from napari_backsplit.backend.fusion.findings import Finding, Limits
from napari_backsplit.backend.fusion.fuse import Mask
from napari_backsplit.backend.geometry import Geometry, axis_codes, lps_axes

Side = Literal["left", "right"]

TOWARD = {
    "S": "toward the head",
    "I": "toward the feet",
    "A": "toward the front",
    "P": "toward the back",
    "L": "toward the patient's left",
    "R": "toward the patient's right",
}
"""The letters of `axis_codes` in the patient's words."""

_OPPOSITE = {"S": "I", "I": "S", "A": "P", "P": "A", "L": "R", "R": "L"}
_SIDES: dict[str, Side] = {"left": "left", "right": "right"}
_LETTERS: dict[str, Side] = {"l": "left", "r": "right"}

BODY_COLUMN = 0.1
"""A sagittal plane shows the body where it has this share of the fullest plane's bright voxels."""


def ends(grid: Geometry) -> tuple[tuple[str, str], ...]:
    """Return for each array axis (z, y, x) in whose direction its first and last planes lie."""
    return tuple((TOWARD[_OPPOSITE[last]], TOWARD[last]) for last in axis_codes(grid)[::-1])


def describe_shift(shift_zyx: Sequence[int], grid: Geometry) -> str:
    """Return a shift in words, such as "3 voxels (9 mm) toward the head"."""
    parts = zip(shift_zyx, grid.spacing_mm, ends(grid), strict=True)
    return " and ".join(
        f"{abs(n)} voxel{'s' * (abs(n) > 1)} ({abs(n) * step:.3g} mm) {sides[n > 0]}"
        for n, step, sides in parts
        if n
    )


@dataclass(frozen=True)
class Pair:
    """The masks of a structure on both sides, by name; None where a side has no mask."""

    left: str | None
    right: str | None


def pairs(names: Sequence[str]) -> tuple[Pair, ...]:
    """Return the structures that are named left or right, such as kidney_left or left-kidney.

    The letters l and r count only where both sides are there: alone they may mean anything.
    """
    found: dict[str, dict[Side, str]] = {}
    for name in names:
        stem, side = _sided(name, _SIDES | _LETTERS)
        if side:
            found.setdefault(stem, {})[side] = name
    return tuple(
        Pair(sides.get("left"), sides.get("right"))
        for sides in found.values()
        if len(sides) == 2 or any(_sided(name, _SIDES)[1] for name in sides.values())
    )


def _sided(name: str, words: Mapping[str, Side]) -> tuple[str, Side | None]:
    """Return a name without its side, and the side."""
    parts = re.split(r"([_-])", name)
    for at, part in enumerate(parts):
        if part in words:
            return "".join([*parts[:at], "*", *parts[at + 1 :]]), words[part]
    return name, None


def check_sides(
    case: str,
    masks: Mapping[str, Mask],
    grid: Geometry,
    image: NDArray[Any] | None,
    limits: Limits,
) -> list[Finding]:
    """Report masks named left that lie to the right, and the other way round.

    The two of a pair are compared. One alone is held against the midline: of the body in the
    image, where the image shows both its sides, otherwise of the other pairs; where neither is
    there, nothing is said.

    Parameters
    ----------
    case : str
    masks : mapping of str to ndarray of bool
        (z, y, x), on the grid.
    grid : Geometry
    image : ndarray, optional
        (z, y, x), on the grid.
    limits : Limits
    """
    found = pairs([name for name, mask in masks.items() if mask.any()])
    names = [name for pair in found for name in (pair.left, pair.right) if name]
    lefts = {name: _leftward_mm(masks[name], grid) for name in names}
    result = []
    for pair in found:
        if pair.left and pair.right and lefts[pair.left] < lefts[pair.right] - limits.pair_mm:
            text = f"It lies to the right of {pair.right}. Swap the two, or rename them."
            result.append(_finding(case, pair.left, masks, text))
    single = [pair for pair in found if not (pair.left and pair.right)]
    middle = _midline_mm(found, lefts, grid, image) if single else None
    if middle is None:
        return result
    for pair in single:
        name, sign, other = (pair.left, 1, "right") if pair.left else (pair.right, -1, "left")
        if name and sign * (lefts[name] - middle) < -limits.side_mm:
            text = f"It lies in the {other} half of the patient. Rename it, or mend the image."
            result.append(_finding(case, name, masks, text))
    return result


def _finding(case: str, name: str, masks: Mapping[str, Mask], text: str) -> Finding:
    return Finding(case, name, "warning", "side", text, a_voxel(masks[name]))


def _left_axis(grid: Geometry) -> tuple[int, int]:
    """Return the array axis along left and right, and 1 where it runs to the left, else -1."""
    order, flipped = lps_axes(grid)
    return order[2], -1 if flipped[order[2]] else 1


def _leftward_mm(mask: Mask, grid: Geometry) -> float:
    """Return how far left a mask's centre lies, in mm along the image's own axis."""
    axis, sign = _left_axis(grid)
    counts = np.count_nonzero(mask, axis=tuple({0, 1, 2} - {axis}))
    return sign * grid.spacing_mm[axis] * float(np.average(np.arange(len(counts)), weights=counts))


def _midline_mm(
    found: Sequence[Pair],
    lefts: Mapping[str, float],
    grid: Geometry,
    image: NDArray[Any] | None,
) -> float | None:
    body = None if image is None else _body_middle_mm(image, grid)
    middles = [(lefts[p.left] + lefts[p.right]) / 2 for p in found if p.left and p.right]
    if body is not None:
        return body
    return median(middles) if middles else None


def _body_middle_mm(image: NDArray[Any], grid: Geometry) -> float | None:
    """Return the middle of the body, None where the image cuts its left or right side off."""
    axis, sign = _left_axis(grid)
    step = tuple(slice(None, None, max(1, n // 64)) for n in image.shape)
    sample = np.nan_to_num(image[step].astype(np.float32))
    bright = sample > _otsu(sample)
    counts = np.count_nonzero(bright, axis=tuple({0, 1, 2} - {axis}))
    body = np.flatnonzero(counts >= BODY_COLUMN * counts.max())
    if body[0] == 0 or body[-1] == len(counts) - 1:
        return None
    middle = (body[0] + body[-1]) / 2 * max(1, image.shape[axis] // 64)
    return sign * grid.spacing_mm[axis] * float(middle)


def _otsu(sample: NDArray[np.float32]) -> float:
    """Return Otsu's threshold between the background of an image and what is in it."""
    threshold = sitk.OtsuThresholdImageFilter()
    threshold.Execute(sitk.GetImageFromArray(np.ascontiguousarray(sample)))
    return float(threshold.GetThreshold())
