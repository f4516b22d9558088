"""Fusion of 11 masks of 300 x 512 x 512: against painting and counting whole volumes."""

import argparse
from itertools import combinations
from statistics import median
from time import perf_counter

import numpy as np

from napari_backsplit.backend.fusion.fuse import LabelScheme, bounding_box, fuse

NAMES = ("lesion", *(f"support{i}" for i in range(1, 11)))
SCHEME = LabelScheme(NAMES[:1], NAMES[1:])


def draw(shape, seed=0):
    """Ellipsoids of a tenth to a quarter of the volume's width; many overlap."""
    rng = np.random.default_rng(seed)
    masks = {}
    for name in NAMES:
        size = np.array(shape)
        center, radii = rng.uniform(0.25, 0.75, 3) * size, rng.uniform(0.05, 0.13, 3) * size
        axes = np.ogrid[tuple(slice(n) for n in shape)]
        terms = (((a - c) / r) ** 2 for a, c, r in zip(axes, center, radii, strict=True))
        masks[name] = sum(terms) <= 1
    return masks


def naive(masks, shape):
    label_map = np.zeros(shape, np.uint8)
    for name in reversed(NAMES):
        label_map[masks[name]] = SCHEME.ids[name]
    overlaps = {(a, b): int((masks[a] & masks[b]).sum()) for a, b in combinations(NAMES, 2)}
    return label_map, {pair: n for pair, n in overlaps.items() if n}


def clock(function, repeats):
    times = []
    for _ in range(repeats):
        start = perf_counter()
        result = function()
        times.append(perf_counter() - start)
    return median(times), result


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", type=int, nargs=3, default=(300, 512, 512))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    shape = tuple(options.shape)
    masks = draw(shape)
    boxes = {name: bounding_box(mask) for name, mask in masks.items()}
    slow, (expected, pairs) = clock(lambda: naive(masks, shape), options.repeats)
    found, fused = clock(lambda: fuse(masks, SCHEME, shape), options.repeats)
    known, boxed = clock(lambda: fuse(masks, SCHEME, shape, boxes), options.repeats)
    same = all(np.array_equal(f.label_map, expected) for f in (fused, boxed))
    print(f"{len(NAMES)} masks of {shape}, {len(pairs)} overlapping pairs")
    print(f"whole volumes      {slow * 1e3:8.0f} ms   1x")
    print(f"fuse, boxes found  {found * 1e3:8.0f} ms   {slow / found:.0f}x")
    print(f"fuse, boxes known  {known * 1e3:8.0f} ms   {slow / known:.0f}x")
    print(f"identical: {same and fused.overlaps == boxed.overlaps == pairs}")


if __name__ == "__main__":
    main()
