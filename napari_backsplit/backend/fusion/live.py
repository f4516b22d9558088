"""The fusion of a case that is being edited: only the boxes that changed are fused again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.fusion.cases import known_of, unknown_supports
from napari_backsplit.backend.fusion.fuse import (
    Box,
    LabelMap,
    LabelScheme,
    Mask,
    bounding_box,
    shared_box,
    within,
)
from napari_backsplit.backend.fusion.recipes import Region, grown, lesion_regions, make_supports
from napari_backsplit.backend.project.recipes import sources_of
from napari_backsplit.backend.project.schema import Schema

SLAB = 16
"""Planes that are fused at once: what recipes make of whole masks is never held whole."""


class LiveFusion:
    """The label map of a case, kept right while its masks are edited.

    It holds on to the masks that it is given and reads them when it is told that they changed. One
    thread at a time changes it; another may ask for `voxels` meanwhile.

    Parameters
    ----------
    schema : Schema
        Structures, recipes and priorities.
    masks : mapping of str to ndarray of bool
        Those that enter, (z, y, x), of one shape.
    shape : tuple of int
    spacing_mm : tuple of float
        Voxel size (z, y, x).

    Attributes
    ----------
    label_map : ndarray
        (z, y, x), ids of `scheme`; the same array for good: a window may show it.
    claims : ndarray of uint8
        How many supports claim each voxel: from 2 on it is a conflict.
    conflicts : int
        The number of voxels in conflict.
    """

    def __init__(
        self,
        schema: Schema,
        masks: Mapping[str, Mask],
        shape: tuple[int, int, int],
        spacing_mm: tuple[float, float, float],
    ) -> None:
        self._spacing_mm = spacing_mm
        self.claims: NDArray[np.uint8] = np.zeros(shape, np.uint8)
        self._painted: Box | None = None
        self._boxes: dict[str, Box | None] = {}
        self._masks: dict[str, Mask] = {}
        self._regions: tuple[Region, ...] = ()
        self._set(schema, masks)
        self.label_map: LabelMap = np.zeros(shape, np.min_scalar_type(self.scheme.count - 1))
        self._fuse_all()

    # ------------------------------------------------------------------ what is there

    @property
    def entered(self) -> frozenset[str]:
        """The structures whose masks are fused."""
        return frozenset(self._masks)

    @property
    def missing(self) -> tuple[str, ...]:
        """The supports of which not everything is known."""
        return unknown_supports(self.schema, self._masks)

    def voxels(self) -> dict[str, int]:
        """Return the voxels of each structure in the label map."""
        scheme, counts = self._counted
        return {name: int(counts[label]) for name, label in scheme.ids.items() if label}

    def overlaps(self) -> dict[tuple[str, str], int]:
        """Return the voxels that two supports both claim, the winner first; none is left out."""
        found: dict[tuple[str, str], int] = {}
        for box in self._slabs():
            made = self._made(box)
            for pair in combinations([n for n in self.scheme.supports if n in made], 2):
                both = int(np.count_nonzero(made[pair[0]] & made[pair[1]]))
                found[pair] = found.get(pair, 0) + both
        return {pair: n for pair, n in found.items() if n}

    # ------------------------------------------------------------------ it changes

    def update(self, structure: str, box: Box) -> Box | None:
        """Fuse again after the mask of a structure changed within a box; return what changed.

        The box that is returned is larger where a recipe grows a support over a lesion there.
        """
        if structure not in self._masks:
            return None
        self._boxes[structure] = _union(self._boxes[structure], box)
        if structure in self.schema.target_names and self._grows:
            before, box = self._regions, self._widened(box)
            self._regions = self._find_regions()
            box = _with_gone(box, before, self._regions)
        box = self._widened(box)
        self._painted = _union(self._painted, box)
        self._fuse(box)
        return box

    def rearrange(self, schema: Schema, masks: Mapping[str, Mask]) -> None:
        """Fuse anew: other priorities or recipes, or other masks that enter.

        `label_map` is another array where the ids need a larger type.
        """
        before = self._painted
        self._set(schema, masks)
        needed = np.min_scalar_type(self.scheme.count - 1)
        if np.dtype(needed).itemsize > self.label_map.dtype.itemsize:
            self.label_map = np.zeros(self.claims.shape, needed)
        self._painted = _union(before, self._painted)
        self._fuse_all()

    # ------------------------------------------------------------------ inside

    def _set(self, schema: Schema, masks: Mapping[str, Mask]) -> None:
        known = {
            name: box for name, box in self._boxes.items() if self._masks[name] is masks.get(name)
        }
        self.schema = schema
        self.scheme = LabelScheme(
            schema.target_names, tuple(support.name for support in schema.fused_supports)
        )
        self._masks = dict(masks)
        self._boxes = {n: known[n] if n in known else bounding_box(m) for n, m in masks.items()}
        self._known = known_of(schema, masks)
        self._grows = any(recipe.kind == "grow" for recipe in schema.recipes)
        self._regions = self._find_regions()
        self._sources = {n: sources_of(n, schema.recipes) for n in self.scheme.names}
        self._painted = None
        for box in [*self._boxes.values(), *(region.box for region in self._regions)]:
            self._painted = _union(self._painted, box)

    def _find_regions(self) -> tuple[Region, ...]:
        targets = [self._masks[n] for n in self.schema.target_names if n in self._masks]
        return lesion_regions(targets, self._spacing_mm) if self._grows else ()

    def _widened(self, box: Box) -> Box:
        """Return a box with every region that it meets: growing looks at whole regions."""
        before = None
        while box != before:
            before = box
            for region in self._regions:
                if shared_box(region.box, box):
                    box = _joined(region.box, box)
        return box

    def _fuse_all(self) -> None:
        self._counts, self.conflicts = np.zeros(self.scheme.count, np.int64), 0
        self.label_map[:] = 0
        self.claims[:] = 0
        for box in self._slabs():
            self._fuse(box)
        self._counted = self.scheme, self._counts

    def _slabs(self) -> Iterator[Box]:
        """Yield boxes, one after the other along z, that hold all there is; none cuts a region."""
        if self._painted is None:
            return
        (z, y, x), start = self._painted, self._painted[0].start
        while start < z.stop:
            box = self._widened((slice(start, min(start + SLAB, z.stop)), y, x))
            yield box
            start = box[0].stop

    def _fuse(self, box: Box) -> None:
        made = self._made(box)
        before, claims = self.label_map[box], self.claims[box]
        self._counts -= np.bincount(before.ravel(), minlength=self.scheme.count)
        self.conflicts -= int(np.count_nonzero(claims > 1))
        label_map = np.zeros(before.shape, before.dtype)
        claims[:] = 0
        for name in reversed(self.scheme.names):
            if name in made:
                label_map[made[name]] = self.scheme.ids[name]
                if name in self.scheme.supports:
                    claims += made[name]
        self._counts += np.bincount(label_map.ravel(), minlength=self.scheme.count)
        self.conflicts += int(np.count_nonzero(claims > 1))
        before[:] = label_map

    def _made(self, box: Box) -> dict[str, Mask]:
        """Return targets and supports in a box; those that are not in it are left out."""
        crops = {name: mask[box] for name, mask in self._masks.items()}
        regions = [
            replace(region, box=within(region.box, box))
            for region in self._regions
            if shared_box(region.box, box) == region.box
        ]
        made = make_supports(
            crops, self._known, self.schema.recipes, lambda mask: grown(mask, regions)
        )
        return {n: mask for n, mask in made.items() if self._meets(n, box) or regions}

    def _meets(self, name: str, box: Box) -> bool:
        return any(shared_box(self._boxes.get(s), box) for s in self._sources.get(name, ()))


def _union(one: Box | None, other: Box | None) -> Box | None:
    if one is None or other is None:
        return one or other
    return _joined(one, other)


def _with_gone(box: Box, before: Iterable[Region], now: Iterable[Region]) -> Box:
    """Return a box with the regions that are no more: an edit that is told later took them."""
    there = [region.box for region in now]
    for region in before:
        box = box if region.box in there else _joined(box, region.box)
    return box


def _joined(one: Box, other: Box) -> Box:
    z, y, x = (
        slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(one, other, strict=True)
    )
    return z, y, x
