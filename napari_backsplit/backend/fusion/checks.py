"""The checks of an audit, one small function each; none reads a file.

A message names structures and case ids, never a path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box, shared_box
from napari_backsplit.backend.geometry import Geometry

Severity = Literal["error", "warning", "info"]
Position = tuple[int, int, int]


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Attributes
    ----------
    case : str
        "" for the project as a whole.
    structure : str
        The structure or channel, "" for the case as a whole.
    severity : {"error", "warning", "info"}
        An error keeps the case from being trained on; a warning wants to be looked at.
    code : str
        A stable name of the kind of finding.
    message : str
        One sentence; it says what to do where something can be done.
    position_zyx : tuple of int, optional
        A voxel to look at.
    """

    case: str
    structure: str
    severity: Severity
    code: str
    message: str
    position_zyx: Position | None = None

    def __str__(self) -> str:
        place = " ".join(part for part in (self.case, self.structure) if part)
        return f"{self.severity}: {place}: {self.message}"


@dataclass(frozen=True)
class Limits:
    """What an audit puts up with.

    Attributes
    ----------
    overlap_share
        Overlap of two supports, as a share of the smaller one.
    island_ml
        Components below this, or of a single voxel, are tiny.
    robust_z
        Distance of a volume from the cohort's median (Iglewicz and Hoaglin, 1993).
    cohort
        Fewest cases for which a volume can be an outlier.
    """

    overlap_share: float = 0.05
    island_ml: float = 0.05
    robust_z: float = 3.5
    cohort: int = 5


@dataclass(frozen=True)
class Island:
    """A 26-connected component: its size and one of its voxels."""

    voxels: int
    ml: float
    position_zyx: Position


# --- measuring ----------------------------------------------------------------------------------


def islands(mask: Mask, voxel_ml: float) -> tuple[Island, ...]:
    """Return the 26-connected components of a mask (z, y, x), the largest first; () if empty."""
    found = [
        Island(n, n * voxel_ml, a_voxel(component, box))
        for component, box in components(mask)
        for n in [int(np.count_nonzero(component))]
    ]
    return tuple(sorted(found, key=lambda island: (-island.voxels, island.position_zyx)))


def components(mask: Mask) -> Iterator[tuple[Mask, Box]]:
    """Yield each 26-connected component of a mask, cropped, and its box in the volume."""
    whole = bounding_box(mask)
    if whole is None:
        return
    padded = np.pad(mask[whole], 1)  # cc3d 4.1.1 fails on thin arrays, such as [[[1, 0, 1]]]
    labels = cc3d.connected_components(padded, connectivity=26)[1:-1, 1:-1, 1:-1]
    labels = np.ascontiguousarray(labels)
    boxes = cc3d.statistics(labels)["bounding_boxes"]
    for label, box in enumerate(boxes[1:], start=1):
        z, y, x = (
            slice(int(s.start) + w.start, int(s.stop) + w.start)
            for s, w in zip(box, whole, strict=True)
        )
        yield labels[box] == label, (z, y, x)


def a_voxel(mask: Mask, box: Box | None = None) -> Position:
    """Return a voxel of a non-empty mask: near the middle of its fullest plane along z.

    Parameters
    ----------
    mask : ndarray of bool
        (z, y, x).
    box : Box, optional
        Where the mask lies in the volume; the position is the volume's.
    """
    z = int(np.count_nonzero(mask, axis=(1, 2)).argmax())
    at = np.argwhere(mask[z])
    y, x = at[np.square(at - at.mean(axis=0)).sum(axis=1).argmin()]
    start = [s.start for s in box] if box else (0, 0, 0)
    return z + start[0], int(y) + start[1], int(x) + start[2]


def robust_z(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the modified z-scores: 0.6745 (x - median) / MAD.

    Where more than half of the values are equal the mean absolute deviation takes the place of
    the MAD (times 1.2533); all are zero where all values are equal.
    """
    offset = values - np.median(values)
    scale = np.median(np.abs(offset)) / 0.6745
    scale = scale or 1.253314 * np.abs(offset).mean()
    return offset / scale if scale else np.zeros_like(offset)


# --- one mask -----------------------------------------------------------------------------------


def check_grid(case: str, structure: str, image: Geometry, mask: Geometry) -> list[Finding]:
    """Report a mask that is not on its image's grid."""
    difference = image.difference(mask)
    if difference is None:
        return []
    text = f"The mask is not on the grid of the image. {difference} Import it again, resampled."
    return [Finding(case, structure, "error", "grid", text)]


def check_ids(case: str, structure: str, label_map: NDArray[Any]) -> list[Finding]:
    """Report a mask file that holds several ids."""
    if label_map.max(initial=0) < 2:
        return []
    ids = np.flatnonzero(np.bincount(label_map[label_map > 0]))
    if len(ids) < 2:
        return []
    shown = ", ".join(str(i) for i in ids[:5]) + (", ..." if len(ids) > 5 else "")
    text = f"The mask holds {len(ids)} ids ({shown}); all count as {structure}."
    return [Finding(case, structure, "warning", "ids", text)]


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


def check_finite(case: str, channel: str, array: NDArray[Any]) -> list[Finding]:
    """Report an image with NaN or infinite voxels."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return []
    wrong = ~np.isfinite(array)
    z, y, x = (int(i) for i in np.unravel_index(int(wrong.argmax()), wrong.shape))
    text = f"{np.count_nonzero(wrong)} voxels are NaN or infinite. Correct the image."
    return [Finding(case, channel, "error", "not_finite", text, (z, y, x))]


# --- several cases ------------------------------------------------------------------------------


def check_orientations(codes: Mapping[str, str]) -> list[Finding]:
    """Find cases whose axes point elsewhere than in most: a network trains along file axes.

    Parameters
    ----------
    codes : mapping of str to str
        Case -> where its index axes point, such as "LPS".
    """
    if not codes:
        return []
    usual, _ = Counter(codes.values()).most_common(1)[0]
    return [
        Finding(
            case,
            "",
            "warning",
            "orientation",
            f"The image is stored as {code}, most are {usual}. nnU-Net trains along the axes of "
            "the files: store all cases alike.",
        )
        for case, code in codes.items()
        if code != usual
    ]


def check_duplicates(digests: Mapping[str, str]) -> list[Finding]:
    """Report cases with the same voxels: one could be trained on and the other tested.

    Parameters
    ----------
    digests : mapping of str to str
        Case -> hash of its images' voxels.
    """
    cases: dict[str, list[str]] = {}
    for case, digest in digests.items():
        cases.setdefault(digest, []).append(case)
    return [
        Finding(case, "", "error", "duplicate", f"Its images are those of {first}. Remove one.")
        for first, *others in cases.values()
        for case in others
    ]


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
