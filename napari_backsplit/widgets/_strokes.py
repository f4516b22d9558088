"""What a brush of napari did: told by the history atoms that its `paint` event carries.

The event may come before the voxels are written (fill) or after (brush), so what changed is worked
out from the atoms alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.structures.prompts import Bounds, slices, union


@dataclass(frozen=True, eq=False)
class Stroke:
    """Where a stroke turns a mask over, in the layer's own axes.

    Attributes
    ----------
    bounds : Bounds
    difference : ndarray of bool
        (z, y, x), of the bounds' size.
    written : bool
        The layer's array shows it already.
    """

    bounds: Bounds
    difference: NDArray[np.bool_]
    written: bool


def stroke_of(data: NDArray[np.uint8], atoms: Sequence[Any]) -> Stroke | None:
    """Return what a stroke changes in a mask; None where it changes nothing.

    Parameters
    ----------
    data : ndarray of uint8
        The layer's array, (z, y, x), before or after the stroke.
    atoms : sequence
        As napari gives them: masked boxes (napari 0.9), or (indices, old values, new values).
    """
    if not atoms:
        return None
    bounds = union(_bounds(atom) for atom in atoms)
    now = data[slices(bounds)]
    before = now.copy()
    for atom in reversed(atoms):
        _put(before, atom, bounds, old=True)
    after = before.copy()
    for atom in atoms:
        _put(after, atom, bounds, old=False)
    difference = (before != 0) ^ (after != 0)
    written = bool(((now != 0) == (after != 0)).all())
    return Stroke(bounds, difference, written) if difference.any() else None


def _bounds(atom: Any) -> Bounds:
    if hasattr(atom, "slice_key"):
        z, y, x = ((int(side.start), int(side.stop)) for side in atom.slice_key)
    else:
        z, y, x = ((int(np.min(i)), int(np.max(i)) + 1) for i in atom[0])
    return z, y, x


def _put(crop: NDArray[np.uint8], atom: Any, bounds: Bounds, *, old: bool) -> None:
    """Put the values of an atom, old or new, into the part of the mask within bounds."""
    lows = [low for low, _ in bounds]
    if hasattr(atom, "slice_key"):
        sides = zip(atom.slice_key, lows, strict=True)
        box = crop[tuple(slice(side.start - low, side.stop - low) for side, low in sides)]
        box[... if atom.mask is None else atom.mask] = atom.old_values if old else atom.new_value
    else:
        indices, before, after = atom
        index = tuple(np.asarray(i) - low for i, low in zip(indices, lows, strict=True))
        crop[index] = before if old else after
