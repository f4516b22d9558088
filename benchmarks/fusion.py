"""Fusion of a lesion and ten organs of 300 x 512 x 512, the overlap of each pair counted.

Against reading the masks once and against painting and counting whole volumes in NumPy, all in one
run; and the memory that it takes.
"""

import argparse
import tracemalloc
from itertools import combinations
from math import prod
from statistics import median
from time import perf_counter

import numpy as np

from napari_backsplit.backend.fusion.fuse import LabelScheme, bounding_box, fuse
from napari_backsplit.backend.fusion.live import LiveFusion
from napari_backsplit.backend.project import Channel, Schema
from napari_backsplit.backend.project.recipes import Recipe
from napari_backsplit.backend.project.schema import coloured

STROKE_S = 0.05
NAMES = ("lesion", *(f"support{i}" for i in range(1, 11)))
SCHEME = LabelScheme(NAMES[:1], NAMES[1:])
RECIPES = {
    "no recipe": (),
    "two supports merged": (Recipe(kind="merge", support="both", sources=NAMES[1:3]),),
    "a support grown over the lesion beneath": (Recipe(kind="grow", support=NAMES[1]),),
}


def draw(shape, share=(0.05, 0.13), seed=0):
    """Ellipsoids with radii between two shares of the volume's width; some overlap."""
    rng = np.random.default_rng(seed)
    masks = {}
    for name in NAMES:
        size = np.array(shape)
        center, radii = rng.uniform(0.25, 0.75, 3) * size, rng.uniform(*share, 3) * size
        axes = np.ogrid[tuple(slice(n) for n in shape)]
        terms = (((a - c) / r) ** 2 for a, c, r in zip(axes, center, radii, strict=True))
        masks[name] = sum(terms) <= 1
    return masks


def read(masks):
    """Look at every voxel once: as bytes, since NumPy's "or" of bools stops at the first true."""
    return [np.bitwise_or.reduce(mask.view(np.uint8), axis=None) for mask in masks.values()]


def naive(masks, shape):
    label_map = np.zeros(shape, np.uint8)
    for name in reversed(NAMES):
        label_map[masks[name]] = SCHEME.ids[name]
    overlaps = {(a, b): int((masks[a] & masks[b]).sum()) for a, b in combinations(NAMES, 2)}
    return label_map, {pair: n for pair, n in overlaps.items() if n}


def clock(functions, rounds):
    """Return the median seconds of each function, run in turn, as the machine is shared."""
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            start = perf_counter()
            function()
            times[name].append(perf_counter() - start)
    return {name: median(taken) for name, taken in times.items()}


def peak(function):
    """Return the bytes that a function takes at most, its result included."""
    tracemalloc.start()
    try:
        result = function()
        return tracemalloc.get_traced_memory()[1], result
    finally:
        tracemalloc.stop()


def stroke(masks, shape, recipes, rounds):
    """Return the median seconds to fuse again after strokes at the lesion's edge."""
    first, *rest = coloured(NAMES)
    channel = Channel(name="CT")
    schema = Schema(name="p", channels=[channel], targets=[first], supports=rest, recipes=recipes)
    painted = {**masks, NAMES[1]: masks[NAMES[1]].copy()}
    live = LiveFusion(schema, painted, shape, (1.0, 0.8, 0.8))
    box = bounding_box(masks[NAMES[0]])
    times = []
    for number in range(4 * rounds):
        z = box[0].start + number % (box[0].stop - box[0].start)
        where = (slice(z, z + 1), *(slice(s.start, s.start + 61) for s in box[1:]))
        painted[NAMES[1]][where] ^= True
        start = perf_counter()
        live.update(NAMES[1], where)
        times.append(perf_counter() - start)
    return median(times)


def verdict(words, figure, holds):
    print(f"{words:44}{figure:>16}   {'holds' if holds else 'DOES NOT HOLD'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--radii", type=float, nargs=2, default=(0.05, 0.13))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    shape = tuple(options.shape)
    masks = draw(shape, options.radii)
    boxes = {name: bounding_box(mask) for name, mask in masks.items()}
    sides = {
        "reading all masks once": lambda: read(masks),
        "whole volumes in NumPy": lambda: naive(masks, shape),
        "fuse, boxes found": lambda: fuse(masks, SCHEME, shape),
        "fuse, boxes known": lambda: fuse(masks, SCHEME, shape, boxes),
    }
    times = clock(sides, options.rounds)
    reading, whole, _, known, *_ = times.values()

    expected, pairs = sides["whole volumes in NumPy"]()
    found = sides["fuse, boxes found"]()
    taken, fused = peak(sides["fuse, boxes known"])
    same = all(np.array_equal(f.label_map, expected) for f in (found, fused))
    allowed = fused.label_map.nbytes + prod(shape)

    print(f"{len(NAMES)} masks of {shape}, {len(pairs)} overlapping pairs, median of rounds:")
    for name, seconds in times.items():
        versus = f"{seconds / reading:7.2f}x reading {whole / seconds:7.1f}x faster than NumPy"
        print(f"  {name:24}{seconds * 1e3:9.1f} ms {versus}")
    print("\nboxes known:")
    verdict("  at most 2x reading", f"{known / reading:.2f}x", known <= 2 * reading)
    verdict(
        "  at least 30x faster than whole volumes", f"{whole / known:.0f}x", whole >= 30 * known
    )
    verdict(
        f"  adds at most {allowed / 2**20:.0f} MiB: label map + 1 B a voxel",
        f"{taken / 2**20:.0f} MiB",
        taken <= allowed,
    )
    verdict("  label map and overlaps as NumPy's", "", same and fused.overlaps == pairs)
    print("\na brush stroke of 61 x 61 voxels, followed:")
    for words, recipes in RECIPES.items():
        seconds = stroke(masks, shape, recipes, options.rounds)
        verdict(f"  {words}", f"{seconds * 1e3:.1f} ms", seconds <= STROKE_S)


if __name__ == "__main__":
    main()
