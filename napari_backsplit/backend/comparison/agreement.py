"""Where two predictions agree with the reference, and with one another, voxel by voxel.

The seven parts are all a voxel can be that any of the three marks, so one uint8 map holds the
three masks: `members` gives each back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from napari_backsplit.backend.errors import InputError

Who = Literal["reference", "baseline", "new"]
LabelMap = NDArray[np.uint8]


@dataclass(frozen=True)
class AgreementClass:
    """One of the seven parts.

    Parameters
    ----------
    number : int
        Its id in the map.
    name : str
        As a legend has it.
    colour : str
        "#rrggbb", of Okabe and Ito: light where the part is right, darker where it is false; blue
        where it is the new model's alone, orange where it is the baseline's.
    words : str
        A sentence for a tool tip.
    """

    number: int
    name: str
    colour: str
    words: str


CLASSES = (
    AgreementClass(1, "Both right", "#009e73", "Lesion that both models find."),
    AgreementClass(2, "Only new right", "#56b4e9", "Lesion that only the new model finds."),
    AgreementClass(3, "Only baseline right", "#e69f00", "Lesion that only the baseline finds."),
    AgreementClass(4, "False in both", "#cc79a7", "Marked by both models, but not lesion."),
    AgreementClass(
        5, "False in new only", "#0072b2", "Marked by the new model alone, but not lesion."
    ),
    AgreementClass(
        6, "False in baseline only", "#d55e00", "Marked by the baseline alone, but not lesion."
    ),
    AgreementClass(7, "Missed by both", "#f0e442", "Lesion that neither model finds."),
)
"""What the ids of a map mean, where the case has a reference."""

CLASSES_WITHOUT_REFERENCE = (
    AgreementClass(4, "Both", "#cc79a7", "Marked by both models; there is no reference."),
    AgreementClass(
        5, "Only new", "#0072b2", "Marked by the new model alone; there is no reference."
    ),
    AgreementClass(
        6, "Only baseline", "#d55e00", "Marked by the baseline alone; there is no reference."
    ),
)
"""What they mean of a case without a reference: no voxel is said to be right or false."""

OUTLINE_COLOURS: dict[Who, str] = {
    "reference": "#f0e442",
    "baseline": "#e69f00",
    "new": "#56b4e9",
}
"""Of each outline; the reference has the colour of what is missed."""

_OF_BITS = np.array([0, 7, 6, 3, 5, 2, 4, 1], np.uint8)
"""The id of (reference, baseline, new) as bits 1, 2 and 4."""


def classes(has_reference: bool) -> tuple[AgreementClass, ...]:
    """Return the parts that a case with or without a reference can have."""
    return CLASSES if has_reference else CLASSES_WITHOUT_REFERENCE


def agreement(
    reference: NDArray[Any] | None, baseline: NDArray[Any], new: NDArray[Any]
) -> LabelMap:
    """Return which of the seven parts each voxel is of: 0 where none of the three marks it.

    Parameters
    ----------
    reference : ndarray of bool or uint8, optional
        (z, y, x); None for a case without one, whose map has the ids 4, 5 and 6 alone.
    baseline, new : ndarray of bool or uint8
        Of the same shape; what is not 0 is marked.

    Returns
    -------
    ndarray of uint8
        (z, y, x), C-contiguous; the ids of `CLASSES`, or of `CLASSES_WITHOUT_REFERENCE`.

    Raises
    ------
    InputError
        The shapes differ.
    """
    given = [mask for mask in (reference, baseline, new) if mask is not None]
    if len({mask.shape for mask in given}) > 1:
        shapes = ", ".join(str(mask.shape) for mask in given)
        raise InputError(f"The masks have the shapes {shapes}.", "Give masks on one grid.")
    bits = np.zeros(baseline.shape, np.uint8)
    for bit, mask in ((1, reference), (2, baseline), (4, new)):
        if mask is not None:
            bits |= (mask != 0).view(np.uint8) * np.uint8(bit)
    return np.take(_OF_BITS, bits)


def members(who: Who) -> tuple[int, ...]:
    """Return the ids of the parts that a mask is made of."""
    bit = {"reference": 1, "baseline": 2, "new": 4}[who]
    return tuple(int(_OF_BITS[bits]) for bits in range(8) if bits & bit)


def part_of(label_map: LabelMap, who: Who) -> NDArray[np.bool_]:
    """Return one of the three masks from a map, or from a slice of one."""
    wanted = np.zeros(256, bool)
    wanted[list(members(who))] = True
    return np.take(wanted, label_map)
