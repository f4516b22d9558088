"""What a brush of napari did: told by the history atoms that its `paint` event carries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.structures.prompts import Bounds, slices, union


def turned_over(
    data: NDArray[np.uint8], atoms: Sequence[Any]
) -> tuple[Bounds, NDArray[np.bool_]] | None:
    """Return where a stroke changed a mask, in the layer's own axes; None where it did not.

    Parameters
    ----------
    data : ndarray of uint8
        The layer's array, after the stroke. Labels other than 0 and 1 become 1 in it.
    atoms : sequence
        As napari gives them: masked boxes (napari 0.9), or (indices, old values, new values).
    """
    if not atoms:
        return None
    bounds = union(_bounds(atom) for atom in atoms)
    now = data[slices(bounds)]
    np.minimum(now, 1, out=now)
    before = now.copy()
    for atom in reversed(atoms):
        _restore(before, atom, bounds)
    difference = (before != 0) ^ (now != 0)
    return (bounds, difference) if difference.any() else None


def _bounds(atom: Any) -> Bounds:
    if hasattr(atom, "slice_key"):
        z, y, x = ((int(side.start), int(side.stop)) for side in atom.slice_key)
    else:
        z, y, x = ((int(np.min(i)), int(np.max(i)) + 1) for i in atom[0])
    return z, y, x


def _restore(before: NDArray[np.uint8], atom: Any, bounds: Bounds) -> None:
    lows = [low for low, _ in bounds]
    if hasattr(atom, "slice_key"):
        sides = zip(atom.slice_key, lows, strict=True)
        crop = before[tuple(slice(side.start - low, side.stop - low) for side, low in sides)]
        crop[... if atom.mask is None else atom.mask] = atom.old_values
    else:
        indices, old, _ = atom
        before[tuple(np.asarray(i) - low for i, low in zip(indices, lows, strict=True))] = old
