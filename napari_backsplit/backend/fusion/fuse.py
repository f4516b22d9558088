"""Masks -> label map: targets win, then supports by priority; and codes for what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import GeometryError, InputError

Mask = NDArray[np.bool_]
LabelMap = NDArray[Any]
Box = tuple[slice, slice, slice]

BACKGROUND = "background"


@dataclass(frozen=True)
class LabelScheme:
    """Which structure has which id: 0 background, targets 1..T, then supports.

    Parameters
    ----------
    targets, supports : tuple of str
        In order of priority: where two overlap, the first wins, and targets win over supports.

    Raises
    ------
    InputError
        There is no target, or a name is used twice or is "background".
    """

    targets: tuple[str, ...]
    supports: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError("The label scheme has no target.", "Name at least one.")
        twice = sorted({n for n in self.names if self.names.count(n) > 1 or n == BACKGROUND})
        if twice:
            raise InputError(
                f"The label scheme uses the name {', '.join(twice)} twice.",
                "Give each structure a name of its own.",
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Targets, then supports: the order of priority."""
        return self.targets + self.supports

    @property
    def ids(self) -> dict[str, int]:
        """Name -> id, background first."""
        return {name: label for label, name in enumerate((BACKGROUND, *self.names))}

    @property
    def count(self) -> int:
        """The number K of classes, background included."""
        return 1 + len(self.names)


@dataclass(frozen=True, eq=False)
class Fused:
    """A label map and what was found while making it.

    Attributes
    ----------
    label_map : ndarray
        Ids (z, y, x), uint8, or uint16 where they do not fit.
    overlaps : dict of (str, str) to int
        Voxels that both masks claim, the winner first; pairs that do not overlap are left out.
    voxels : dict of str to int
        Voxels of each given structure in the label map.
    missing : tuple of str
        Structures of the scheme without a mask, in the order of the scheme. An empty mask is
        not missing: the structure is known not to be there.
    """

    label_map: LabelMap
    overlaps: dict[tuple[str, str], int]
    voxels: dict[str, int]
    missing: tuple[str, ...]


def fuse(
    masks: Mapping[str, Mask],
    scheme: LabelScheme,
    shape: tuple[int, int, int],
    boxes: Mapping[str, Box | None] | None = None,
) -> Fused:
    """Fuse masks into one label map.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool
        Each of `shape` (z, y, x). Structures of the scheme may be missing.
    scheme : LabelScheme
        Ids and priorities.
    shape : tuple of int
        The image's shape.
    boxes : mapping, optional
        Known bounding boxes, None for an empty mask; those not given are found.

    Raises
    ------
    InputError
        A mask is not in the scheme, or not bool.
    GeometryError
        A mask has another shape.
    """
    given = [name for name in scheme.names if name in masks]
    _check(masks, scheme, shape)
    known = boxes or {}
    found = {n: known[n] if n in known else bounding_box(masks[n]) for n in given}
    label_map = np.zeros(shape, np.min_scalar_type(scheme.count - 1))
    voxels = {n: _paint(label_map, masks[n], found[n], scheme.ids[n]) for n in given}
    overlaps = {(a, b): _overlap(masks, found, a, b) for a, b in combinations(given, 2)}
    missing = tuple(name for name in scheme.names if name not in masks)
    return Fused(label_map, {pair: n for pair, n in overlaps.items() if n}, voxels, missing)


def _check(masks: Mapping[str, Mask], scheme: LabelScheme, shape: tuple[int, int, int]) -> None:
    for name, mask in masks.items():
        if name not in scheme.names:
            raise InputError(
                f"The mask {name!r} is not in the label scheme.",
                f"Leave it out, or add it to {', '.join(scheme.names)}.",
            )
        if mask.dtype != np.bool_:
            raise InputError(f"The mask {name!r} has type {mask.dtype}.", "Give a bool array.")
        if mask.shape != tuple(shape):
            raise GeometryError(
                f"The mask {name!r} has shape {mask.shape}, the image {tuple(shape)}.",
                "Resample the mask onto the image's grid.",
            )


def _paint(label_map: LabelMap, mask: Mask, box: Box | None, label: int) -> int:
    """Give the voxels of a mask that are still free their id; return their number."""
    if box is None:
        return 0
    free = mask[box] & (label_map[box] == 0)
    np.copyto(label_map[box], label_map.dtype.type(label), where=free)
    return int(np.count_nonzero(free))


def _overlap(
    masks: Mapping[str, Mask], boxes: Mapping[str, Box | None], one: str, other: str
) -> int:
    """Return the number of voxels that two masks share."""
    box = shared_box(boxes[one], boxes[other])
    return int(np.count_nonzero(masks[one][box] & masks[other][box])) if box else 0


def bounding_box(mask: Mask) -> Box | None:
    """Return the smallest half-open box around a mask (z, y, x), None if it is empty."""
    z = _span(np.logical_or.reduce(mask, axis=(1, 2)))
    if z is None:
        return None
    plane = np.logical_or.reduce(mask[z], axis=0)
    y, x = _span(plane.any(axis=1)), _span(plane.any(axis=0))
    return (z, y, x) if y and x else None


def _span(line: NDArray[np.bool_]) -> slice | None:
    hits = np.flatnonzero(line)
    return slice(int(hits[0]), int(hits[-1]) + 1) if len(hits) else None


def shared_box(one: Box | None, other: Box | None) -> Box | None:
    """Return where two boxes meet, None if they do not."""
    if one is None or other is None:
        return None
    z, y, x = (
        slice(max(a.start, b.start), min(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return (z, y, x) if all(s.start < s.stop for s in (z, y, x)) else None


def widened(box: Box, steps: Sequence[int], shape: Sequence[int]) -> Box:
    """Return a box with some voxels more on both sides of each axis, as far as the image goes."""
    z, y, x = (
        slice(max(0, s.start - n), min(size, s.stop + n))
        for s, n, size in zip(box, steps, shape, strict=True)
    )
    return z, y, x


def within(box: Box, outer: Box) -> Box:
    """Return where a box lies in one that holds it."""
    z, y, x = (slice(s.start - o.start, s.stop - o.start) for s, o in zip(box, outer, strict=True))
    return z, y, x


# --- partial cases ------------------------------------------------------------------------------


@dataclass(frozen=True)
class PartialCodes:
    """Codes for "background or any missing support": one for each set of missing supports.

    A partial case holds its set's code where a complete case holds background. The codes follow
    the ids of the scheme: K, K + 1, ... A known support stays what it is, although a missing one
    of higher priority might claim some of its voxels.

    Parameters
    ----------
    scheme : LabelScheme
    missing_sets : tuple of tuple of str
        Each set of supports that some case lacks.

    Raises
    ------
    InputError
        A set is empty, is there twice, or has a name that is no support of the scheme.
    """

    scheme: LabelScheme
    missing_sets: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for missing in self.missing_sets:
            _check_supports(missing, self.scheme)
        sets = [frozenset(missing) for missing in self.missing_sets]
        if frozenset() in sets or len(set(sets)) < len(sets):
            raise InputError(
                f"A set of missing supports is empty or there twice in {self.missing_sets}.",
                "Give each set once.",
            )

    @property
    def codes(self) -> tuple[int, ...]:
        """The code of each missing set."""
        return tuple(range(self.scheme.count, self.scheme.count + len(self.missing_sets)))

    @property
    def label_sets(self) -> tuple[frozenset[int], ...]:
        """What each code stands for: 0 and the ids of the missing supports."""
        ids = self.scheme.ids
        return tuple(frozenset({0, *(ids[n] for n in names)}) for names in self.missing_sets)

    def code(self, missing: Sequence[str]) -> int:
        """Return the code of a set of missing supports, in any order; 0 if none is missing.

        Raises
        ------
        InputError
            The set is not one of `missing_sets`.
        """
        if not missing:
            return 0
        for code, names in zip(self.codes, self.missing_sets, strict=True):
            if set(names) == set(missing):
                return code
        raise InputError(
            f"The missing supports {', '.join(missing)} have no code.",
            "Make the codes from all cases.",
        )


def partial_codes(
    scheme: LabelScheme, missing_by_case: Mapping[str, Sequence[str]]
) -> PartialCodes:
    """Return the codes that some cases need; the same sets give the same codes in any order."""
    order = scheme.ids
    for missing in missing_by_case.values():
        _check_supports(missing, scheme)
    sets = {tuple(sorted(missing, key=order.__getitem__)) for missing in missing_by_case.values()}
    return PartialCodes(scheme, tuple(sorted(sets - {()})))


def encode_partial(label_map: LabelMap, missing: Sequence[str], codes: PartialCodes) -> LabelMap:
    """Turn the background of a partial case into its code.

    Parameters
    ----------
    label_map : ndarray
        Ids of `codes.scheme`, (z, y, x).
    missing : sequence of str
        The supports that the case lacks; none: the label map is returned as it is.
    codes : PartialCodes

    Returns
    -------
    ndarray
        uint8, or uint16 where ids and codes do not fit.

    Raises
    ------
    InputError
        A target is missing, which no code stands for, or the set has no code.
    """
    _check_supports(missing, codes.scheme)
    code = codes.code(missing)
    dtype = np.result_type(label_map.dtype, np.min_scalar_type(code))
    return np.where(label_map == 0, dtype.type(code), label_map) if code else label_map


def decode_partial(encoded: LabelMap, scheme: LabelScheme) -> LabelMap:
    """Turn codes back into background: the label map as a person sees it."""
    return np.where(encoded < scheme.count, encoded, encoded.dtype.type(0))


def _check_supports(names: Sequence[str], scheme: LabelScheme) -> None:
    strange = [name for name in names if name not in scheme.supports]
    if strange:
        raise InputError(
            f"{', '.join(strange)} cannot be missing: it is no support of the label scheme.",
            "Make the mask of a target, an empty one if there is no lesion.",
        )
