"""What the recipes of a project do to masks: union, difference, and growing over lesions.

Nothing here changes a mask that is given; see `project.recipes` for what a recipe is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from scipy import ndimage

from napari_backsplit.backend.fusion.components import components
from napari_backsplit.backend.fusion.fuse import Box, Mask, widened, within
from napari_backsplit.backend.project.recipes import Known, Recipe, known_supports

HOLDS = 0.25
"""Share of a lesion, or of its shell one voxel thick, that the organ around it has at least: half
of a lesion that bulges out of the organ's surface is outside."""

GAP_MM = 10.0
"""A gap between an organ and its lesion that reaches farther from the lesion is no gap."""

Spacing = tuple[float, float, float]


Grow = Callable[[Mask], Mask]
"""What "grow" does to a mask."""


def make_supports(
    masks: Mapping[str, Mask], known: Mapping[str, Known], recipes: Iterable[Recipe], grow: Grow
) -> dict[str, Mask]:
    """Return the masks with the recipes applied, in order.

    Parameters
    ----------
    masks : mapping of str to ndarray of bool
        Structure -> mask, all of one shape (z, y, x): of whole images, or of a box of them.
    known : mapping of str to {"whole", "part", "none"}
        How much of each structure the masks tell.
    recipes : iterable of Recipe
    grow : Grow

    Returns
    -------
    dict of str to ndarray of bool
        Targets and supports. Of a support that is known in part, that part; none of one of which
        nothing is known for certain.
    """
    result, known = dict(masks), dict(known)
    for recipe in recipes:
        there = [result[source] for source in recipe.sources if source in result]
        known = known_supports(known, [recipe])
        if recipe.kind == "merge":
            for source in recipe.sources:
                result.pop(source, None)
            if there:
                result[recipe.support] = _union(there)
        elif known.get(recipe.support, "none") == "none":
            result.pop(recipe.support, None)
        elif recipe.kind == "grow":
            result[recipe.support] = grow(result[recipe.support])
        else:
            result[recipe.support] = result[recipe.support] & ~_union(there)
    return result


def _union(masks: Sequence[Mask]) -> Mask:
    """Return the union of one or more masks; of one, itself. Never all of them in one array."""
    return reduce(np.logical_or, masks)


@dataclass(frozen=True, eq=False)
class Region:
    """A lesion and its surroundings, `GAP_MM` more on every side: all that growing looks at.

    Attributes
    ----------
    box : Box
        Where it lies in the image.
    lesion : ndarray of bool
        The one lesion, (z, y, x), of the box's size.
    """

    box: Box
    lesion: Mask


def lesion_regions(lesions: Iterable[Mask], spacing_mm: Spacing) -> tuple[Region, ...]:
    """Return the region of every 26-connected lesion.

    Parameters
    ----------
    lesions : iterable of ndarray of bool
        The targets' masks, (z, y, x).
    spacing_mm : tuple of float
        Voxel size (z, y, x).
    """
    return tuple(
        _region(lesion, box, mask.shape, spacing_mm)
        for mask in lesions
        for lesion, box in components(mask)
    )


def _region(lesion: Mask, box: Box, shape: tuple[int, ...], spacing_mm: Spacing) -> Region:
    steps = [max(1, int(np.ceil(GAP_MM / mm))) for mm in spacing_mm]
    around = widened(box, steps, shape)
    whole = np.zeros([s.stop - s.start for s in around], bool)
    whole[within(box, around)] = lesion
    return Region(around, whole)


def grown(organ: Mask, regions: Iterable[Region]) -> Mask:
    """Return an organ that has taken its own lesions, and the gaps around them.

    A lesion is the organ's own where the organ has `HOLDS` of it or of its shell. The organ gains
    the lesion and every gap: background that touches the lesion and that organ and lesion enclose
    (6-connected) within `GAP_MM` of the lesion.

    Parameters
    ----------
    organ : ndarray of bool
        (z, y, x).
    regions : iterable of Region
        With boxes in the organ's array.

    Returns
    -------
    ndarray of bool
        `organ` itself where it holds no lesion.
    """
    result = organ
    for region in regions:
        here = organ[region.box]
        if share_of(here, region.lesion) >= HOLDS:
            result = organ.copy() if result is organ else result
            result[region.box] |= region.lesion | _gaps(here, region.lesion)
    return result


def share_of(organ: Mask, lesion: Mask) -> float:
    """Return which share of a lesion, or of its shell where that is more, an organ has.

    Both are bool (z, y, x), in a box with room around the lesion. So it matters neither whether
    the organ's mask contains its lesions, nor how large they are. The shell is the voxels that
    share a face with the lesion: of one that lies flat on a neighbour's surface, a sixth of it.
    """
    shell = ndimage.binary_dilation(lesion) & ~lesion
    return max(_share(organ, lesion), _share(organ, shell))


def _share(organ: Mask, region: Mask) -> float:
    return np.count_nonzero(organ & region) / max(int(np.count_nonzero(region)), 1)


def _gaps(organ: Mask, lesion: Mask) -> Mask:
    """Return the enclosed background that touches a lesion."""
    outside = ~(organ | lesion)
    names, _ = ndimage.label(outside)
    at_edge = {int(n) for axis in range(3) for end in (0, -1)
               for n in np.unique(np.take(names, end, axis))}  # fmt: skip
    touching = np.unique(names[ndimage.binary_dilation(lesion) & outside])
    gaps = [n for n in touching.tolist() if n and n not in at_edge]
    return np.asarray(np.isin(names, gaps))
