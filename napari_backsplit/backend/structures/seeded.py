"""The engine without a model: regions grown from clicks. No download, no GPU.

See docs/engines-seeded.md for how it works and what was measured.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import TypeVar

import numpy as np

from napari_backsplit.backend.structures.engines import (
    About,
    Answer,
    EngineCancelled,
    EngineState,
    Request,
    Scene,
)
from napari_backsplit.backend.structures.prompts import (
    KINDS,
    Bounds,
    Box,
    Lasso,
    Point,
    Scribble,
    bounds_of,
    slices,
    union,
)
from napari_backsplit.backend.structures.seeded_growth import (
    Floats,
    Index,
    Mask,
    Region,
    Tile,
    factors,
    grow,
    make_tile,
    tile_bounds,
)
from napari_backsplit.backend.structures.seeded_rim import refine

Drawn = Point | Box | Scribble | Lasso
T = TypeVar("T")
MODEL = "curvature flow, like intensity cut at necks, local contrast at the rim"
TITLE = "Seeded (classical)"
SEEDS = 5
TILES, REGIONS = 6, 256
AGREED, GIANT = 0.6, 2.0
HAND_MM, ALONE_MM = 6.0, 25.0


class Seeded:
    """Grows a region from every prompt. Equal requests have equal answers.

    It remembers smoothed windows and grown regions of one image, some tens of MB at most.
    """

    kinds: tuple[str, ...] = KINDS

    def __init__(self, settings: object = None) -> None:
        self._scene = ""
        self._tiles: OrderedDict[Hashable, Tile] = OrderedDict()
        self._regions: OrderedDict[Hashable, Region] = OrderedDict()

    @staticmethod
    def look(settings: object) -> EngineState:
        """Return that it is ready: it needs nothing."""
        return EngineState("seeded", TITLE, "ready", model=MODEL)

    def start(self, tell: Callable[[str], None]) -> About:
        """Return what is recorded with its masks; there is nothing to start."""
        return About("seeded", MODEL)

    def close(self) -> None:
        """Forget the image."""
        self._scene = ""
        self._tiles.clear()
        self._regions.clear()

    def segment(self, request: Request, cancelled: Callable[[], bool]) -> Answer:
        """Answer a request: what all of its prompts say of `start`.

        Raises
        ------
        EngineCancelled
            `cancelled` came true; looked at between steps of a fraction of a second.
        """
        if request.scene.key != self._scene:
            self.close()
            self._scene = request.scene.key
        positive = [p for p in request.prompts if p.positive]
        negative = [p for p in request.prompts if not p.positive]
        mask = self._grown(request, positive, cancelled)
        for prompt in negative:
            self._take_away(request, prompt, positive, mask, cancelled)
        _enforce(mask, positive, negative, request.forbidden)
        return _changed(request, mask)

    def _grown(
        self, request: Request, positive: Sequence[Drawn], cancelled: Callable[[], bool]
    ) -> Mask:
        scene = request.scene
        empty = np.zeros(scene.image.shape, bool)
        mask = empty if request.start is None else request.start.copy()
        clicks: list[Index] = []
        for prompt in positive:
            if isinstance(prompt, Box | Lasso):
                seeds = _inner_seeds(scene, prompt)
                self._add(scene, seeds, _extrusion(scene, prompt), mask, cancelled)
            else:
                clicks += _seeds(prompt)
        boxes = [_extrusion(scene, p) for p in positive if isinstance(p, Box)]
        limit = union(boxes) if boxes else None
        self._add(scene, clicks, limit, mask, cancelled)
        return mask

    def _add(
        self,
        scene: Scene,
        seeds: Sequence[Index],
        limit: Bounds | None,
        mask: Mask,
        cancelled: Callable[[], bool],
    ) -> None:
        """Add what grows from seeds, within limits, to a mask."""
        if not seeds:
            return
        at, inside = refine(scene, self._joined(scene, seeds, cancelled))
        _stop_if(cancelled)
        if limit is not None:
            kept = np.zeros_like(mask[slices(at)])
            local = _local(limit, at)
            kept[local] = inside[local]
            inside = kept
        mask[slices(at)] |= inside

    def _joined(
        self, scene: Scene, seeds: Sequence[Index], cancelled: Callable[[], bool]
    ) -> Region:
        """Return the regions of some seeds as one, but for those that ran away."""
        by = factors(scene.spacing_mm)
        coarse = [_down(seed, by) for seed in seeds]
        regions = [self._region(scene, seed, cancelled) for seed in seeds]
        return _union(_trimmed(_agreed(regions, coarse), coarse))

    def _region(self, scene: Scene, seed: Index, cancelled: Callable[[], bool]) -> Region:
        _stop_if(cancelled)
        at = _down(seed, factors(scene.spacing_mm))

        def grown() -> Region:
            bounds = tile_bounds(scene, seed)
            tile = _kept(self._tiles, bounds, lambda: make_tile(scene, bounds), TILES)
            _stop_if(cancelled)
            return grow(tile, at)

        return _kept(self._regions, at, grown, REGIONS)

    def _take_away(
        self,
        request: Request,
        prompt: Drawn,
        positive: Sequence[Drawn],
        mask: Mask,
        cancelled: Callable[[], bool],
    ) -> None:
        """Take from a mask what grows from a negative prompt and lies nearer to it."""
        scene = request.scene
        if isinstance(prompt, Box):
            mask[slices(prompt.bounds())] = False
            return
        seeds = _seeds(prompt)
        at, other = refine(scene, self._joined(scene, seeds, cancelled))
        _stop_if(cancelled)
        around = union([at, _hand(scene, prompt)])
        unlike = np.zeros(mask[slices(around)].shape, bool)
        unlike[_local(at, around)] = other
        wanted = [seed for p in positive for seed in _seeds(p)]
        near, from_hand = _nearer(scene, around, seeds, wanted)
        mask[slices(around)] &= ~(near & (unlike | from_hand))


def _agreed(regions: Sequence[Region], seeds: Sequence[Index]) -> list[Region]:
    """Leave out regions far larger than the middle one that holds most seeds: they ran away."""
    sizes = [int(region.mask.sum()) for region in regions]
    need = max(2, int(np.ceil(AGREED * len(seeds))))
    bodies = [
        size
        for region, size in zip(regions, sizes, strict=True)
        if sum(region.holds(seed) for seed in seeds) >= need
    ]
    if not bodies:
        return list(regions)
    most = GIANT * sorted(bodies)[(len(bodies) - 1) // 2]
    return [region for region, size in zip(regions, sizes, strict=True) if size <= most]


def _trimmed(regions: Sequence[Region], seeds: Sequence[Index]) -> list[Region]:
    """Of three or more regions, take what only one has whose own seeds others have too.

    A seed in a part that no other region reaches keeps all of its region.
    """
    if len(regions) < 3:
        return list(regions)
    whole = _union(regions)
    votes = np.zeros(whole.mask.shape, np.uint8)
    for region in regions:
        votes[_local(region.bounds, whole.bounds)] += region.mask
    kept = []
    for region in regions:
        shared = votes[_local(region.bounds, whole.bounds)]
        held = [seed for seed in seeds if region.holds(seed)]
        others = [seed for seed in held if any(r.holds(seed) for r in regions if r is not region)]
        alone = len(others) < len(held)
        kept.append(region if alone else Region(region.low, region.mask & (shared > 1)))
    return kept


def _union(regions: Sequence[Region]) -> Region:
    bounds = union([region.bounds for region in regions])
    low = (bounds[0][0], bounds[1][0], bounds[2][0])
    mask = np.zeros([b - a for a, b in bounds], bool)
    for region in regions:
        mask[_local(region.bounds, bounds)] |= region.mask
    return Region(low, mask)


def _seeds(prompt: Drawn) -> list[Index]:
    """Return a few voxels of a prompt, spread evenly."""
    if isinstance(prompt, Point):
        return [prompt.at]
    if isinstance(prompt, Box):
        z, y, x = ((a + b - 1) // 2 for a, b in prompt.bounds())
        return [(z, y, x)]
    on = np.argwhere(prompt.mask()) + [a for a, _ in prompt.bounds()]
    chosen = np.unique(np.linspace(0, len(on) - 1, 2 * SEEDS + 1).astype(int)[1::2])
    return [(int(z), int(y), int(x)) for z, y, x in on[chosen]]


def _inner_seeds(scene: Scene, prompt: Box | Lasso) -> list[Index]:
    """Return a few voxels of the inner half of a box or lasso, of its most usual intensity."""
    bounds = prompt.bounds()
    inner = [((3 * a + b) // 4, max((a + 3 * b + 3) // 4, (3 * a + b) // 4 + 1)) for a, b in bounds]
    part = scene.image[tuple(slice(a, b) for a, b in inner)]
    on = np.ones(part.shape, bool)
    if isinstance(prompt, Lasso):
        on = prompt.mask()[
            tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(inner, bounds, strict=True))
        ]
        on = on if on.any() else np.ones_like(on)
    usual = np.abs(part - np.median(part[on]))
    usual[~on] = np.inf
    order = np.argsort(usual, axis=None, kind="stable")[: max(1, int(on.sum()) // 4)]
    chosen = np.sort(order)[
        np.linspace(0, len(order) - 1, min(3, len(order)) + 2).astype(int)[1:-1]
    ]
    low = np.asarray([a for a, _ in inner])
    at = np.stack(np.unravel_index(chosen, part.shape), axis=1) + low
    return [(int(z), int(y), int(x)) for z, y, x in at]


def _extrusion(scene: Scene, prompt: Box | Lasso) -> Bounds:
    """Return a box drawn in a slice as one that is as deep as it is long; a 3D box as it is.

    A lasso has a quarter of its size for play: it is drawn by hand around a part.
    """
    bounds = prompt.bounds()
    sizes = [(b - a) * s for (a, b), s in zip(bounds, scene.spacing_mm, strict=True)]
    flat = [axis for axis, (a, b) in enumerate(bounds) if b - a == 1]
    play = 0.25 * max(sizes) if isinstance(prompt, Lasso) else 0.0
    sides = []
    for axis, ((a, b), step, n) in enumerate(
        zip(bounds, scene.spacing_mm, scene.image.shape, strict=True)
    ):
        more = round((max(sizes) if axis in flat else play) / step)
        sides.append((max(a - more, 0), min(b + more, n)))
    return sides[0], sides[1], sides[2]


def _hand(scene: Scene, prompt: Drawn) -> Bounds:
    """Return the bounds of a prompt and 6 mm around it, within the image."""
    sides = zip(prompt.bounds(), scene.spacing_mm, scene.image.shape, strict=True)
    z, y, x = (
        (max(a - int(HAND_MM / s) - 1, 0), min(b + int(HAND_MM / s) + 1, n))
        for (a, b), s, n in sides
    )
    return z, y, x


def _nearer(
    scene: Scene, bounds: Bounds, seeds: Sequence[Index], others: Sequence[Index]
) -> tuple[Mask, Mask]:
    """Return which voxels are nearer to seeds than to others, and which within 6 mm of seeds.

    Where there are no others, those within 25 mm of seeds are near.
    """
    mine = _square_mm(scene, bounds, seeds)
    theirs = _square_mm(scene, bounds, others) if others else np.float32(ALONE_MM**2)
    return np.asarray(mine < theirs), np.asarray(mine <= HAND_MM**2)


def _square_mm(scene: Scene, bounds: Bounds, seeds: Sequence[Index]) -> Floats:
    grid = np.ogrid[slices(bounds)]
    nearest = np.full([b - a for a, b in bounds], np.inf, np.float32)
    for seed in seeds:
        z, y, x = (
            np.square((g - c) * s, dtype=np.float32)
            for g, c, s in zip(grid, seed, scene.spacing_mm, strict=True)
        )
        np.minimum(nearest, z + y + x, out=nearest)
    return nearest


def _enforce(
    mask: Mask, positive: Sequence[Drawn], negative: Sequence[Drawn], forbidden: Mask | None
) -> None:
    """Give the drawn voxels what was drawn; finished structures stay as they are."""
    for prompt in (*positive, *negative):
        if isinstance(prompt, Scribble | Lasso):
            mask[slices(prompt.bounds())][prompt.mask()] = prompt.positive
        elif isinstance(prompt, Point):
            mask[prompt.at] = prompt.positive
        elif not prompt.positive:
            mask[slices(prompt.bounds())] = False
    if forbidden is not None:
        mask &= ~forbidden


def _changed(request: Request, mask: Mask) -> Answer:
    """Return the new mask within bounds of all that changed."""
    changed = bounds_of(mask != request.mask) or ((0, 1), (0, 1), (0, 1))
    return Answer(changed, mask[slices(changed)].copy())


def _kept(cache: OrderedDict[Hashable, T], key: Hashable, make: Callable[[], T], most: int) -> T:
    if key not in cache:
        cache[key] = make()
        while len(cache) > most:
            cache.popitem(last=False)
    cache.move_to_end(key)
    return cache[key]


def _stop_if(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise EngineCancelled


def _down(at: Index, by: Index) -> Index:
    z, y, x = (a // f for a, f in zip(at, by, strict=True))
    return z, y, x


def _local(bounds: Bounds, within: Bounds) -> tuple[slice, slice, slice]:
    """Return the common part of two bounds as an index into the second."""
    z, y, x = (
        slice(max(a, c) - c, max(min(b, d), max(a, c)) - c)
        for (a, b), (c, d) in zip(bounds, within, strict=True)
    )
    return z, y, x
