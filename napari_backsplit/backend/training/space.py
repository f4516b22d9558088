"""How much a training takes on disk and in memory, by arithmetic; and sizes in plain words."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from multiprocessing import get_all_start_methods

KEPT = 0.6
"""Share of its plain size that a preprocessed image takes on disk, compressed."""

LABEL_SHARE = 0.1
"""Share of its plain size that a preprocessed label map takes on disk, compressed."""

CHECKPOINTS = 3
"""Checkpoints that a run keeps: best, latest and final."""

SPAWNED_BYTES = 450_000_000
"""What a process that augments takes beside its batches: the interpreter with torch."""

FORKED_BYTES = 100_000_000
"""The same where it is forked, and so shares most of it with the training."""

CACHED = 6
"""Batches that wait ready-made for the network, in nnU-Net's own pool of workers."""


def size_text(size: float) -> str:
    """Return a number of bytes for a person: "6.2 GB", "340 MB"."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if size >= 0.9995 * bytes_:
            value = size / bytes_
            return f"{value:.1f} {unit}" if value < 100 else f"{value:.0f} {unit}"
    return f"{max(size, 0) / 1e3:.0f} kB"


def duration_text(seconds: float) -> str:
    """Return a duration for a person: "3 h 10 min", "12 min", "40 s"; finer is not known."""
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(round(seconds / 3600), 24)
    return f"{days} days {hours} h" if hours else f"{days} days"


def resampled_voxels(
    shape: Sequence[int], spacing_mm: Sequence[float], target_mm: Sequence[float]
) -> int:
    """Return the voxels of an image at another spacing; a 2D target leaves the first axis alone."""
    wanted = [*spacing_mm[: len(spacing_mm) - len(target_mm)], *target_mm]
    return prod(
        max(1, round(size * own / other))
        for size, own, other in zip(shape, spacing_mm, wanted, strict=True)
    )


def image_bytes(voxels: int, channels: int) -> int:
    """Return what the preprocessed image of a case takes on disk."""
    return int(voxels * channels * 4 * KEPT)


def label_bytes(voxels: int) -> int:
    """Return what the preprocessed label map of a case takes on disk, and its raw one."""
    return int(voxels * 4 * LABEL_SHARE)


def batch_bytes(patch: Sequence[int], batch: int, channels: int) -> int:
    """Return the size of a batch: images, and the label maps at every resolution."""
    return int(prod(patch) * batch * (channels * 4 + 2 * 8 / 7))


def worker_bytes(patch: Sequence[int], batch: int, channels: int) -> int:
    """Return what one process that augments takes at its most: it, and what it works on.

    Patches are drawn about 1.7 times as large before they are rotated, and some copies are made.
    """
    own = FORKED_BYTES if get_all_start_methods()[0] == "fork" else SPAWNED_BYTES
    return own + 8 * batch_bytes(patch, batch, channels)
