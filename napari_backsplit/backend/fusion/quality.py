"""Checks of masks: alone, against the other masks of their case, and against the cohort.

Each is one small function and reads no file. A message names structures and case ids, never a path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.fusion.components import Island, a_voxel, components
from napari_backsplit.backend.fusion.findings import Finding, Limits, Severity
from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box, shared_box

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
        f"voxel, the smallest {tiny[-1].ml:.3g} ml."
    )
    return [Finding(case, structure, "warning", "tiny_islands", text, tiny[-1].position_zyx)]


def check_border(case: str, structure: str, mask: Mask) -> list[Finding]:
    """Report each edge of the image that a lesion reaches: it may be cut off."""
    result = []
    for axis, name in enumerate("zyx"):
        for end, index in (("first", 0), ("last", -1)):
            plane = np.take(mask, [index], axis)
            if plane.any():
                at = list(a_voxel(plane))
                at[axis] = index % mask.shape[axis]
                text = f"It reaches the {end} plane of the image along {name}: it may be cut off."
                position = (at[0], at[1], at[2])
                result.append(Finding(case, structure, "warning", "border", text, position))
    return result


# --- several masks of a case --------------------------------------------------------------------


def check_overlaps(case: str, masks: Mapping[str, Mask], limits: Limits) -> list[Finding]:
    """Report masks that overlap by much: they disagree about a structure.

    `masks` are of one kind, in order of priority: targets do lie in supports.
    """
    boxes = {name: bounding_box(mask) for name, mask in masks.items()}
    result = []
    for one, other in combinations(masks, 2):
        box = shared_box(boxes[one], boxes[other])
        both = masks[one][box] & masks[other][box] if box else np.zeros((0, 0, 0), bool)
        shared = np.count_nonzero(both)
        least = min(np.count_nonzero(masks[one]), np.count_nonzero(masks[other]))
        if shared > limits.overlap_share * least:
            text = (
                f"{shared} voxels are {other} as well, {100 * shared / least:.0f} % of the smaller "
                f"mask; {one} wins."
            )
            found = Finding(case, one, "warning", "overlap", text, a_voxel(both, box))
            result.append(found)
    return result


def check_outside(
    case: str, target: str, mask: Mask, supports: Mapping[str, Mask], missing: Sequence[str]
) -> list[Finding]:
    """Report lesions outside every support: in no organ, or left out of the organ's mask.

    One finding for each lesion that is not all inside: a warning where it is apart from every
    support and none is missing, otherwise an info. Without support masks nothing is said.
    """
    result = []
    for lesion, box in components(mask) if supports else ():
        around, core = _margin(box, mask.shape)
        inside = np.logical_or.reduce([support[around] for support in supports.values()])
        near = ndimage.binary_dilation(inside, np.ones((3, 3, 3)))[core]
        text, severity = _outside(lesion, inside[core], near, missing)
        if text:
            at = a_voxel(lesion & ~inside[core], box)
            result.append(Finding(case, target, severity, "outside_supports", text, at))
    return result


def _outside(
    lesion: Mask, inside: Mask, near: Mask, missing: Sequence[str]
) -> tuple[str, Severity]:
    """Say how a lesion lies outside of the supports, "" if it does not."""
    size, without = np.count_nonzero(lesion), np.count_nonzero(lesion & ~inside)
    if without < size:
        text = f"{without} of {size} voxels of a lesion lie outside every support."
        return (text if without else ""), "info"
    if (lesion & near).any():
        return f"A lesion of {size} voxels touches a support that leaves it out.", "info"
    if missing:
        also = f"; {', '.join(missing)} of this case may hold it, and is missing"
        return f"A lesion of {size} voxels lies outside every support{also}.", "info"
    return f"A lesion of {size} voxels lies outside every support.", "warning"


def _margin(box: Box, shape: Sequence[int]) -> tuple[Box, Box]:
    """Return a box with a margin of one voxel, inside the volume, and where the box lies in it."""
    around = [
        slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape, strict=True)
    ]
    core = [slice(s.start - a.start, s.stop - a.start) for s, a in zip(box, around, strict=True)]
    return (around[0], around[1], around[2]), (core[0], core[1], core[2])


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
    return [
        Finding(case, structure, severity, "volume", _volume_text(value, middle, float(score)))
        for (case, value), score in zip(given.items(), scores, strict=True)
        if abs(score) > limits.robust_z
    ]


def _volume_text(ml: float, middle: float, score: float) -> str:
    return f"Its volume of {ml:.4g} ml is far from the median {middle:.4g} ml (z {score:+.1f})."


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the modified z-scores: 0.6745 (x - median) / MAD.

    Where more than half of the values are equal the mean absolute deviation takes the place of
    the MAD (times 1.2533); all are zero where all values are equal.
    """
    offset = values - np.median(values)
    scale = np.median(np.abs(offset)) / 0.6745
    scale = scale or 1.253314 * np.abs(offset).mean()
    return offset / scale if scale else np.zeros_like(offset)
