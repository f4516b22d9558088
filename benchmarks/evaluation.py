"""Evaluation of one case against surface-distance and MONAI: seconds, ratios, memory, equality.

All metrics but the FROC of 300 x 512 x 512 voxels at 2.5 x 0.8 x 0.8 mm, from two masks in
memory, against surface-distance's Dice, HD-95, NSD and average surface distances, and MONAI's
Dice, HD-95 and NSD of the same masks. The sides take turns; one thread each.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import sys
import warnings
from time import process_time

import numpy as np

from napari_backsplit.backend.comparison.metrics import Segmentation, SurfaceDistances, measure

SHAPE = (300, 512, 512)
SPACING_MM = (2.5, 0.8, 0.8)
TOLERANCE_MM = 2.0
LESIONS, FALSE = 40, 5
# Required: times as fast as surface-distance and as MONAI, and added memory in GB.
REQUIRED = {"40 scattered lesions": (100, 30), "one organ-sized lesion": (4, 12)}
REQUIRED_GB = 0.1


def scattered(seed=0):
    """Small lesions all over the volume; the prediction shifts each, and adds some."""
    rng = np.random.default_rng(seed)
    reference, prediction = empty(), empty()
    z, y, x = np.ogrid[-3:4, -9:10, -9:10]
    ball = (z / 3) ** 2 + (y / 9) ** 2 + (x / 9) ** 2 <= 1
    for k in range(LESIONS + FALSE):
        corner = rng.integers((10, 20, 20), np.subtract(SHAPE, 40))
        if k < LESIONS:
            paint(reference, corner, ball)
        paint(prediction, corner + 1, ball)
    return reference, prediction


def organ():
    """One lesion of 120 x 120 x 120 voxels; the prediction shifts every face."""
    reference, prediction = empty(), empty()
    reference[100:220, 200:320, 200:320] = True
    prediction[102:221, 199:322, 203:320] = True
    return reference, prediction


def empty():
    """A volume whose memory is really there: untouched zeros would be read for nothing."""
    mask = np.empty(SHAPE, bool)
    mask[:] = False
    return mask


def paint(mask, corner, ball):
    box = tuple(slice(a, a + n) for a, n in zip(corner, ball.shape, strict=True))
    mask[box] |= ball


def ours(reference, prediction):
    masks = [Segmentation.of(mask, SPACING_MM) for mask in (reference, prediction)]
    measured = measure(*masks, TOLERANCE_MM)
    return {"dice": measured.dice, "hd95": measured.hd95_mm, "nsd": measured.nsd}


def surface_distance(reference, prediction):
    import surface_distance as peer

    distances = peer.compute_surface_distances(reference, prediction, SPACING_MM)
    there, back = peer.compute_average_surface_distance(distances)
    return {
        "dice": peer.compute_dice_coefficient(reference, prediction),
        "hd95": peer.compute_robust_hausdorff(distances, 95),
        "nsd": peer.compute_surface_dice_at_tolerance(distances, TOLERANCE_MM),
        "there": there,
        "back": back,
    }


def monai(reference, prediction):
    import torch
    from monai.metrics import compute_dice, compute_hausdorff_distance, compute_surface_dice

    torch.set_num_threads(1)
    tensors = [torch.from_numpy(mask[None, None]) for mask in (prediction, reference)]
    where = {"include_background": True, "spacing": SPACING_MM}
    return {
        "dice": compute_dice(*tensors).item(),
        "hd95": compute_hausdorff_distance(*tensors, percentile=95, **where).item(),
        "nsd": compute_surface_dice(*tensors, class_thresholds=[TOLERANCE_MM], **where).item(),
    }


def added_gb(masks):
    """Return by how much an evaluation raises the peak of the process's memory."""
    before = peak_gb()
    ours(*masks)
    return peak_gb() - before


def peak_gb():
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def difference(reference, prediction, theirs):
    """Return the largest difference to surface-distance's values, the directed averages too."""
    masks = [Segmentation.of(mask, SPACING_MM) for mask in (reference, prediction)]
    there, back = SurfaceDistances.between(*(mask.surface for mask in masks)).average_mm
    mine = {**ours(reference, prediction), "there": there, "back": back}
    return max(abs(mine[name] - theirs[name]) for name in theirs)


def take_turns(masks, rounds):
    """Return the median seconds of each side, and what surface-distance measured."""
    seconds = {side: [] for side in (ours, surface_distance, monai)}
    values = {}
    for k in range(rounds):
        for side in list(seconds)[:: 1 if k % 2 else -1]:
            began = process_time()
            values[side] = side(*masks)
            seconds[side].append(process_time() - began)
    return [statistics.median(taken) for taken in seconds.values()], values[surface_distance]


def main():
    warnings.simplefilter("ignore")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    cases = {"40 scattered lesions": scattered(), "one organ-sized lesion": organ()}
    ours(np.eye(8, dtype=bool)[None], np.eye(8, dtype=bool)[None])
    added = {name: added_gb(masks) for name, masks in cases.items()}
    short = []
    for name, masks in cases.items():
        (mine, theirs, monais), values = take_turns(masks, rounds)
        ratios, off = (theirs / mine, monais / mine), difference(*masks, values)
        print(
            f"evaluation, {name}: {mine:.3f} s; surface-distance {theirs:.2f} s, ratio "
            f"{ratios[0]:.1f}; MONAI {monais:.2f} s, ratio {ratios[1]:.1f}; added memory "
            f"{added[name]:.3f} GB; largest difference to surface-distance {off:.1e}"
        )
        kept = [ratio >= least for ratio, least in zip(ratios, REQUIRED[name], strict=True)]
        if not all(kept) or added[name] > REQUIRED_GB or off > 1e-9:
            short.append(name)
    print(f"falls short: {', '.join(short)}" if short else "all as required")
    return 1 if short else 0


if __name__ == "__main__":
    sys.exit(main())
