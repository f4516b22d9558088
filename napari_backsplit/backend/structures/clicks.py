"""Simulated clicks: random positive points in a reference mask (paper, Sec. 4.5 and Table 5)."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.structures.prompts import Point


def draw_clicks(
    reference: NDArray[Any], count: int, seed: int, case: str, structure: str
) -> tuple[Point, ...]:
    """Draw positive clicks, every voxel of the mask as likely as any other, none of them twice.

    The paper draws seven and ten clicks in the whole mask, so parts that do not touch are not
    treated apart. The same (seed, case, structure) gives the same clicks, and fewer clicks are
    the first of more.

    Parameters
    ----------
    reference : ndarray
        (z, y, x), canonical; nonzero is the structure. An empty one gets no clicks.
    count : int
        How many; all voxels where there are fewer.

    Returns
    -------
    tuple of Point
        In the order in which they are clicked.

    Raises
    ------
    InputError
        `count` is less than 1.
    """
    if count < 1:
        raise InputError(f"{count} clicks are too few.", "Draw at least 1.")
    voxels = np.flatnonzero(reference)
    rng = _generator(seed, case, structure)
    drawn: dict[int, None] = {}  # in order
    while len(drawn) < min(count, len(voxels)):
        drawn[int(rng.integers(len(voxels)))] = None
    places = np.unravel_index(voxels[list(drawn)], reference.shape)
    return tuple(Point(at=(int(z), int(y), int(x))) for z, y, x in zip(*places, strict=True))


def _generator(seed: int, case: str, structure: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{case}/{structure}".encode()).digest()
    words = np.frombuffer(digest, "<u4")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, *map(int, words)])))
