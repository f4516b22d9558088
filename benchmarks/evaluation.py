"""Evaluation of one case against surface-distance and cc3d: seconds and their ratio.

Dice, HD-95, NSD and lesion counts of 300x512x512 voxels at 2.5 x 0.8 x 0.8 mm.
"""

from __future__ import annotations

import statistics
import sys
import time

import cc3d
import numpy as np

from napari_backsplit.backend.comparison.metrics import Segmentation, measure

SHAPE = (300, 512, 512)
SPACING_MM = (2.5, 0.8, 0.8)
REPEATS = 3


def scattered(seed=0, count=45):
    """Small lesions all over the volume; the prediction shifts each, and adds five."""
    rng = np.random.default_rng(seed)
    reference, prediction = np.zeros((2, *SHAPE), bool)
    z, y, x = np.ogrid[-3:4, -9:10, -9:10]
    ball = (z / 3) ** 2 + (y / 9) ** 2 + (x / 9) ** 2 <= 1
    for k in range(count + 5):
        corner = rng.integers((10, 20, 20), np.subtract(SHAPE, 40))
        if k < count:
            paint(reference, corner, ball)
        paint(prediction, corner + 1, ball)
    return reference, prediction


def organ():
    """One large structure, shifted."""
    reference, prediction = np.zeros((2, *SHAPE), bool)
    reference[100:220, 200:320, 200:320] = True
    prediction[102:221, 199:322, 203:320] = True
    return reference, prediction


def paint(mask, corner, ball):
    box = tuple(slice(a, a + n) for a, n in zip(corner, ball.shape, strict=True))
    mask[box] |= ball


def ours(reference, prediction):
    result = measure(
        Segmentation.of(reference, SPACING_MM), Segmentation.of(prediction, SPACING_MM)
    )
    return result.dice, result.hd95_mm, result.nsd


def theirs(reference, prediction):
    import surface_distance as peer

    distances = peer.compute_surface_distances(reference, prediction, SPACING_MM)
    for mask in (reference, prediction):
        cc3d.connected_components(mask, connectivity=26)
    return (
        peer.compute_dice_coefficient(reference, prediction),
        peer.compute_robust_hausdorff(distances, 95),
        peer.compute_surface_dice_at_tolerance(distances, 2.0),
    )


def timed(function, masks, repeats):
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        result = function(*masks)
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), result


def main():
    for name, masks in (("scattered lesions", scattered()), ("one organ", organ())):
        mine, our_values = timed(ours, masks, REPEATS)
        peer, their_values = timed(theirs, masks, 1)
        assert np.allclose(our_values, their_values), (our_values, their_values)
        print(
            f"evaluation, {name}: {mine:.2f} s, surface-distance + cc3d {peer:.2f} s, "
            f"ratio {peer / mine:.1f}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
