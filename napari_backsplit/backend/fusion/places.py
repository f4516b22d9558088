"""Where a lesion, or a false positive, lies among the supports: held, touched, how far away."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import KDTree

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.fusion.components import components
from napari_backsplit.backend.fusion.fuse import Box, Mask, bounding_box
from napari_backsplit.backend.fusion.recipes import HOLDS

FREQUENT = 0.2
"""Share of the lesions that a support must hold to be chosen; of the false positives, to be named
with them."""

ENOUGH_CASES = 40
"""Cases that tell where the lesions lie; a mask of a whole-body CT takes about a second to read."""

FEW = 3
"""Supports that a choice has at most: with nine a fine-tune gained nothing (BackSplit, App. J)."""

Spacing = tuple[float, float, float]


class Place(Protocol):
    """What a choice asks of a support: the shares, 0..1, of the lesions it holds and touches."""

    @property
    def support(self) -> str: ...  # noqa: D102
    @property
    def holds(self) -> float: ...  # noqa: D102
    @property
    def touches(self) -> float: ...  # noqa: D102


def choose_supports(found: Sequence[Place], most: int = FEW) -> tuple[str, ...]:
    """Return the supports that hold the lesions; where none does, those they touch most.

    At most `most`, and one at least: where the lesions touch none, the first ones.

    Parameters
    ----------
    found : sequence of Place
        The support that holds most first.
    most : int

    Raises
    ------
    InputError
        There is none to choose from.
    """
    if not found:
        raise InputError(
            "No training case has the mask of a support.", "Import or click a support first."
        )
    holding = [place.support for place in found if place.holds >= FREQUENT]
    nearest = sorted(found, key=lambda place: -place.touches)
    touching = [place.support for place in nearest if place.touches]
    return tuple((holding or touching or [place.support for place in found])[:most])


def enough_cases(cases: Sequence[str]) -> tuple[str, ...]:
    """Return some of the cases, `ENOUGH_CASES` at most, evenly spread over their order."""
    step = max(1, -(-len(cases) // ENOUGH_CASES))
    return tuple(cases[::step])


# --- a component and a support ------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Part:
    """A component: it and its shell, one voxel around it, bool (z, y, x) in a box of the image."""

    box: Box
    inside: Mask
    shell: Mask

    @property
    def voxels(self) -> int:
        """Its size."""
        return int(np.count_nonzero(self.inside))


@dataclass(frozen=True)
class Cover:
    """What a support has of a component.

    Attributes
    ----------
    share : float
        Of the component, or of its shell where that is more, 0..1. So an organ's mask may contain
        its lesions or leave them out, whatever their size.
    inside : float
        Of the component alone, 0..1.
    """

    share: float
    inside: float


def parts_of(mask: Mask) -> list[Part]:
    """Return the 26-connected components of a mask (z, y, x)."""
    return [_part(component, box, mask.shape) for component, box in components(mask)]


def _part(component: Mask, box: Box, shape: tuple[int, ...]) -> Part:
    sides = list(zip(box, shape, strict=True))
    room = [(int(side.start > 0), int(side.stop < size)) for side, size in sides]
    z, y, x = (slice(s.start - b, s.stop + a) for s, (b, a) in zip(box, room, strict=True))
    inside = np.pad(component, room)
    grown = ndimage.binary_dilation(inside, np.ones((3, 3, 3), bool))
    return Part((z, y, x), inside, grown & ~inside)


def cover_of(organ: Mask, part: Part) -> Cover:
    """Return what an organ, bool (z, y, x) of the whole image, has of a component."""
    here = organ[part.box]
    inside, shell = _share(here, part.inside), _share(here, part.shell)
    return Cover(max(inside, shell), inside)


def _share(organ: Mask, region: Mask) -> float:
    return float(np.count_nonzero(organ & region) / max(int(np.count_nonzero(region)), 1))


def holder(covers: Mapping[str, Cover]) -> str | None:
    """Return the support that holds a component: of all it has most, and `HOLDS` at least."""
    most = max(covers, key=lambda name: covers[name].share, default=None)
    return most if most is not None and covers[most].share >= HOLDS else None


def distances_mm(
    organ: Mask, parts: Sequence[Part], covers: Sequence[Cover], spacing_mm: Spacing
) -> list[float]:
    """Return how far from an organ each component lies, voxel centre to voxel centre, in mm.

    Parameters
    ----------
    organ : ndarray of bool
        (z, y, x).
    parts, covers : sequence
        The components, and what the organ has of each.
    spacing_mm : tuple of float
        Voxel size (z, y, x).

    Returns
    -------
    list of float
        0 where the organ meets the component or is one voxel away; infinity where it is empty.
    """
    box = bounding_box(organ)
    if box is None:
        return [np.inf for _ in parts]
    if all(cover.share for cover in covers):
        return [0.0 for _ in parts]
    tree = KDTree(_surface_mm(organ[box], box, spacing_mm), compact_nodes=False)
    return [
        0.0 if cover.share else _shortest(tree, _surface_mm(part.inside, part.box, spacing_mm))
        for part, cover in zip(parts, covers, strict=True)
    ]


def _shortest(tree: KDTree, points: NDArray[np.float64]) -> float:
    some = float(tree.query(points[0])[0])  # nothing farther need be looked for
    return min(some, float(tree.query(points, distance_upper_bound=some)[0].min()))


def _surface_mm(mask: Mask, box: Box, spacing_mm: Spacing) -> NDArray[np.float64]:
    """Return the positions in mm, (n, 3), of the voxels of a mask that have a free side."""
    padded = np.pad(mask, 1)
    inner = mask.copy()
    for axis in range(3):
        for step in (-1, 1):
            inner &= np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1]
    at = np.argwhere(mask & ~inner) + [side.start for side in box]
    return np.asarray(at * np.asarray(spacing_mm, float))
