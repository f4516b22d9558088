"""What a metric is where a mask is empty: the one place that decides it."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot, nan
from typing import Literal

MissedDistance = Literal["leave out", "diagonal"]


@dataclass(frozen=True)
class EmptyMaskPolicy:
    """The empty-mask policy.

    Parameters
    ----------
    missed_hd95 : {"leave out", "diagonal"}
        HD-95 of a case with lesions in which nothing was predicted: not a number, counted as
        "missed", or the diagonal of the image in mm.
    """

    missed_hd95: MissedDistance = "leave out"

    def hd95_mm(self, shape: tuple[int, int, int], spacing_mm: tuple[float, ...]) -> float:
        """Return the HD-95, in mm, of a case with lesions in which nothing was predicted."""
        if self.missed_hd95 == "leave out":
            return nan
        return hypot(*(count * step for count, step in zip(shape, spacing_mm, strict=True)))

    @property
    def text(self) -> str:
        """The policy in words, as every report states it."""
        distance = {
            "leave out": "no HD-95: it is left out of the HD-95 mean and counted as missed",
            "diagonal": "the diagonal of its image, in mm, as HD-95",
        }[self.missed_hd95]
        return (
            "A case whose reference is empty is lesion-free: Dice, NSD, HD-95, precision, "
            "sensitivity and lesion F1 are not defined there and enter no mean; it is judged by "
            "the number and volume of its false positives, in a table of its own. A case with "
            "lesions in which nothing was predicted has Dice 0, NSD 0, sensitivity 0 and lesion "
            f"F1 0, no precision, and {distance}."
        )
