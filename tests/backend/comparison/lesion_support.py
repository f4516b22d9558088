"""Lesions found the slow way, component by component, for the tests of the fast one."""

from __future__ import annotations

from itertools import permutations

import cc3d
import numpy as np


def label(mask, connectivity=26):
    """Label with cc3d, padded: it fails on some volumes of a few voxels."""
    padded = np.pad(mask, 2)
    labels, count = cc3d.connected_components(padded, connectivity=connectivity, return_N=True)
    return labels[2:-2, 2:-2, 2:-2], count


def pieces(mask, connectivity=26):
    """Each component as a mask."""
    labels, count = label(mask, connectivity)
    return [labels == k for k in range(1, count + 1)]


def iou(one, other):
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def matched(ours, theirs, settings):
    """The pairs (i, j) that count as found, all ways tried where only some may."""
    close = {
        (i, j): iou(one, other)
        for i, one in enumerate(ours)
        for j, other in enumerate(theirs)
        if (one & other).any()
    }
    if settings.matching == "any overlap":
        return set(close)
    enough = {pair: value for pair, value in close.items() if value >= settings.iou_threshold}
    return set(enough) if settings.matching == "IoU" else _best_assignment(enough)


def _best_assignment(pairs):
    """Most pairs, then the largest sum of IoU, by trying every order of the lesions."""
    ours, theirs = (sorted({pair[k] for pair in pairs}) for k in (0, 1))
    short, long, swapped = (ours, theirs, 0) if len(ours) <= len(theirs) else (theirs, ours, 1)
    best, best_value = set(), (0, 0.0)
    for chosen in permutations(long, len(short)):
        taken = {(i, j)[:: -1 if swapped else 1] for i, j in zip(short, chosen, strict=True)}
        taken &= set(pairs)
        value = (len(taken), sum(pairs[pair] for pair in taken))
        if value > best_value:
            best, best_value = taken, value
    return best
