"""Checks of masks: alone, against the other masks of their case, and against the cohort.

Each is one small function and reads no file. Masks are bool, (z, y, x), on the image's own grid,
whose `Geometry` says where left and the head are. A message names structures and case ids, never a
path. What each looks for, and where it fails, is in docs/quality.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.fusion.components import (
    Island,
    Parts,
    a_voxel,
    label_components,
    label_holes,
)
from napari_backsplit.backend.fusion.findings import Finding, Limits, Severity
from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box, shared_box
from napari_backsplit.backend.fusion.quality_shift import fit_shift
from napari_backsplit.backend.fusion.sides import describe_shift, ends
from napari_backsplit.backend.geometry import Geometry

# --- one mask -----------------------------------------------------------------------------------


def check_target(case: str, structure: str, mask: Mask | None) -> list[Finding]:
    """Report a case without a reference, which cannot be trained on, or without a lesion."""
    if mask is None:
        text = "There is no reference; the case is used for prediction only."
        return [Finding(case, structure, "warning", "unlabelled", text)]
    if not mask.any():
        return [Finding(case, structure, "info", "lesion_free", "The reference is empty.")]
    return []


def check_support(case: str, structure: str, mask: Mask | None) -> list[Finding]:
    """Report a support that is missing (background is then unsure) or, seldom right, empty."""
    if mask is None:
        text = f"There is no mask: background of this case means background or {structure}."
        return [Finding(case, structure, "info", "partial", text)]
    if not mask.any():
        text = "The mask is empty. Remove it if the structure is in the image."
        return [Finding(case, structure, "warning", "empty_support", text)]
    return []


def check_islands(
    case: str, structure: str, found: Sequence[Island], limits: Limits
) -> list[Finding]:
    """Report tiny components: most often slips of the brush."""
    tiny = [island for island in found if island.ml < limits.island_ml or island.voxels == 1]
    if not tiny:
        return []
    text = (
        f"{len(tiny)} of {len(found)} islands are smaller than {limits.island_ml:g} ml or one "
        f"voxel, the smallest {tiny[-1].ml:.3g} ml. Erase them where they are slips of the brush."
    )
    return [Finding(case, structure, "warning", "tiny_islands", text, tiny[-1].position_zyx)]


def check_border(
    case: str, structure: str, mask: Mask, grid: Geometry, severity: Severity
) -> list[Finding]:
    """Report each edge of the image that a structure reaches: the scan may cut it off.

    An axis of one plane has no edges.
    """
    result = []
    for axis, sides in enumerate(ends(grid)):
        for index, side in zip((0, -1), sides, strict=True):
            plane = mask.take([index], axis)
            if mask.shape[axis] > 1 and plane.any():
                at = list(a_voxel(plane))
                at[axis] = index % mask.shape[axis]
                text = f"It reaches the image's last plane {side}: the scan may cut it off."
                position = (at[0], at[1], at[2])
                result.append(Finding(case, structure, severity, "border", text, position))
    return result


def check_holes(
    case: str,
    structure: str,
    mask: Mask,
    targets: Sequence[Mask],
    others: Sequence[Mask],
    voxel_ml: float,
    limits: Limits,
) -> list[Finding]:
    """Report holes: those that a lesion fills, and those that hold nothing.

    Parameters
    ----------
    case, structure : str
    mask : ndarray of bool
    targets : sequence of ndarray of bool
        Lesions. A hole that they fill by half is only told: the label map is the same without it.
    others : sequence of ndarray of bool
        Structures that may lie in a hole, as the cord does in the spine: of those nothing is
        said. One that covers half of the mask is around it, and explains no hole.
    voxel_ml : float
    limits : Limits
    """
    holes = label_holes(mask)
    if not len(holes.voxels):
        return []
    inner = [other for other in others if not _covers_half(other, mask, holes.box)]
    of_lesion = 2 * _covered(holes, targets) >= holes.voxels
    bare = holes.voxels - _covered(holes, [*targets, *inner])
    large = ~of_lesion & (bare * voxel_ml >= limits.hole_ml)
    small = ~of_lesion & ~large & (bare > 0)
    kinds: list[tuple[Severity, str, NDArray[np.bool_], str]] = [
        (
            "info",
            "lesion_hole",
            of_lesion,
            f"that a lesion fills. Grow {structure} over its lesion.",
        ),
        ("warning", "hole", large, "with nothing in it. Fill it."),
        ("info", "small_hole", small, "with nothing in it. Fill it if it is a slip."),
    ]
    return [
        _hole_finding(case, structure, kind, holes, voxel_ml) for kind in kinds if kind[2].any()
    ]


def _hole_finding(
    case: str,
    structure: str,
    kind: tuple[Severity, str, NDArray[np.bool_], str],
    holes: Parts,
    voxel_ml: float,
) -> Finding:
    """Tell of the holes of one kind, and show the largest."""
    severity, code, chosen, text = kind
    sizes = np.where(chosen, holes.voxels, 0)
    largest = int(sizes.argmax())
    number = np.count_nonzero(chosen)
    others = f" and {number - 1} more" if number > 1 else ""
    size = f"{sizes[largest] * voxel_ml:.3g} ml"
    text = f"The mask has a hole of {size}{others} {text}"
    return Finding(case, structure, severity, code, text, holes.position(largest))


def _covers_half(other: Mask, mask: Mask, box: Box) -> bool:
    inside = mask[box]
    return bool(2 * np.count_nonzero(other[box] & inside) >= np.count_nonzero(inside))


def _covered(parts: Parts, masks: Sequence[Mask]) -> NDArray[np.int64]:
    """Return how many voxels of each part lie in any of some masks."""
    return parts.count(_union(masks, parts.box))


def _union(masks: Iterable[Mask], box: Box) -> Mask:
    """Return where in a box any mask is."""
    result = np.zeros([s.stop - s.start for s in box], bool)
    for mask in masks:
        result |= mask[box]
    return result


def check_shift(
    case: str,
    structure: str,
    mask: Mask,
    image: NDArray[Any],
    grid: Geometry,
    limits: Limits,
) -> list[Finding]:
    """Report a mask whose surface meets the image's edges only after a shift.

    Nothing is said of small masks, and of those that no edge surrounds wherever they lie.
    """
    fit = fit_shift(image, mask, limits.shift_surface)
    if (
        fit is None
        or fit.length_vox < limits.shift_vox
        or fit.peak < limits.shift_peak
        or fit.gain < limits.shift_gain
        or fit.lead < limits.shift_lead
    ):
        return []
    text = (
        f"It fits the edges in the image better if moved {describe_shift(fit.shift_zyx, grid)}. "
        "Look whether it was made on another image, and make or move it again."
    )
    return [Finding(case, structure, "warning", "shift", text, a_voxel(mask))]


# --- several masks of a case --------------------------------------------------------------------


def check_overlaps(case: str, masks: Mapping[str, Mask], limits: Limits) -> list[Finding]:
    """Report masks that overlap by much: they disagree about a structure.

    `masks` are of one kind, in order of priority: targets do lie in supports.
    """
    boxes = {name: bounding_box(mask) for name, mask in masks.items()}
    sizes = {name: np.count_nonzero(mask) for name, mask in masks.items()}
    result = []
    for one, other in combinations(masks, 2):
        box = shared_box(boxes[one], boxes[other])
        both = masks[one][box] & masks[other][box] if box else np.zeros((0, 0, 0), bool)
        shared, least = np.count_nonzero(both), min(sizes[one], sizes[other])
        if shared > limits.overlap_share * least:
            text = (
                f"{shared} voxels are {other} as well, {100 * shared / least:.0f} % of the smaller "
                f"mask; {one} wins."
            )
            found = Finding(case, one, "warning", "overlap", text, a_voxel(both, box))
            result.append(found)
    return result


def check_outside(
    case: str,
    target: str,
    mask: Mask,
    supports: Mapping[str, Mask],
    missing: Sequence[str],
    limits: Limits,
) -> list[Finding]:
    """Report lesions outside every support: in no organ, or left out of the organ's mask.

    One finding for each lesion that is not all inside, up to `Limits.lesions`: a warning where
    it is apart from every support and none is missing, otherwise an info. Without support masks
    nothing is said.
    """
    lesions = label_components(mask)
    if not supports or not len(lesions.voxels):
        return []
    around, core = _margin(lesions.box, mask.shape)
    inside = _union(supports.values(), around)
    within = lesions.count(inside[core])
    apart = lesions.count(_thickened(inside)[core]) == 0
    chosen = np.flatnonzero(within < lesions.voxels)
    chosen = chosen[np.lexsort((-lesions.voxels[chosen], ~apart[chosen]))]
    at = lesions.positions(~inside[core])
    result = []
    for lesion in chosen[: limits.lesions].tolist():
        size = int(lesions.voxels[lesion])
        text, severity = _outside(size, int(within[lesion]), bool(apart[lesion]), missing)
        z, y, x = at[lesion].tolist()
        result.append(Finding(case, target, severity, "outside_supports", text, (z, y, x)))
    rest = len(chosen) - len(result)
    if rest > 0:
        text = f"{rest} more lesions lie outside every support, or in part."
        result.append(Finding(case, target, result[-1].severity, "outside_supports", text))
    return result


def _outside(size: int, within: int, apart: bool, missing: Sequence[str]) -> tuple[str, Severity]:
    """Say how a lesion of some voxels lies outside of the supports."""
    if within:
        return f"{size - within} of {size} voxels of a lesion lie outside every support.", "info"
    if not apart:
        return f"A lesion of {size} voxels touches a support that leaves it out.", "info"
    if missing:
        also = f"; {', '.join(missing)} of this case may hold it, and is missing"
        return f"A lesion of {size} voxels lies outside every support{also}.", "info"
    text = f"A lesion of {size} voxels lies outside every support. Look whether it is one."
    return text, "warning"


def _margin(box: Box, shape: Sequence[int]) -> tuple[Box, Box]:
    """Return a box with a margin of one voxel, inside the volume, and where the box lies in it."""
    around = [
        slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape, strict=True)
    ]
    core = [slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True)]
    return (around[0], around[1], around[2]), (core[0], core[1], core[2])


def _thickened(mask: Mask) -> Mask:
    """Return a mask and its 26 neighbours; axis by axis, which is fast for a whole image."""
    box = bounding_box(mask)
    if box is None:
        return mask
    around, _ = _margin(box, mask.shape)
    result = mask.copy()
    crop = result[around]
    for axis in range(3):
        line, before = np.moveaxis(crop, axis, 0), np.moveaxis(crop.copy(), axis, 0)
        line[1:] |= before[:-1]
        line[:-1] |= before[1:]
    return result


# --- several cases ------------------------------------------------------------------------------


def check_outliers(
    structure: str, ml: Mapping[str, float], severity: Severity, limits: Limits
) -> list[Finding]:
    """Report volumes far from the cohort's on a logarithmic scale: often slips.

    Parameters
    ----------
    ml : mapping of str to float
        Case -> volume; empty masks are left out.
    """
    given = {case: value for case, value in ml.items() if value > 0}
    if len(given) < limits.cohort:
        return []
    values = np.asarray(list(given.values()))
    scores, middle = robust_z(np.log(values)), float(np.median(values))
    far = np.abs(np.log(values / middle)) > np.log(limits.volume_factor)
    return [
        Finding(case, structure, severity, "volume", _volume_text(value, middle, float(score)))
        for (case, value), score, is_far in zip(given.items(), scores, far, strict=True)
        if is_far and abs(score) > limits.robust_z
    ]


def _volume_text(ml: float, middle: float, score: float) -> str:
    return (
        f"Its volume of {ml:.4g} ml is far from the median {middle:.4g} ml (z {score:+.1f}). Look "
        "whether it is all of the structure, and nothing else."
    )


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the modified z-scores: 0.6745 (x - median) / MAD.

    Where more than half of the values are equal the mean absolute deviation takes the place of
    the MAD (times 1.2533); all are zero where all values are equal.
    """
    offset = values - np.median(values)
    scale = np.median(np.abs(offset)) / 0.6745
    scale = scale or 1.253314 * np.abs(offset).mean()
    return offset / scale if scale else np.zeros_like(offset)
