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
    missed_distance : {"leave out", "diagonal"}
        HD-95 and ASSD of a case with lesions in which nothing was predicted: not a number,
        counted as "missed", or the diagonal of the image in mm.
    """

    missed_distance: MissedDistance = "leave out"

    def distance_mm(self, shape: tuple[int, int, int], spacing_mm: tuple[float, ...]) -> float:
        """Return HD-95 and ASSD, in mm, of a case with lesions in which nothing was predicted."""
        if self.missed_distance == "leave out":
            return nan
        return hypot(*(count * step for count, step in zip(shape, spacing_mm, strict=True)))

    @property
    def text(self) -> str:
        """The policy in words, as every report states it."""
        distance = {
            "leave out": "no HD-95 and no ASSD: it is left out of their means and counted as "
            "missed",
            "diagonal": "the diagonal of its image, in mm, as HD-95 and ASSD",
        }[self.missed_distance]
        return (
            "A case whose reference is empty is lesion-free: Dice, IoU, NSD, HD-95, ASSD, "
            "precision, sensitivity, lesion F1 and the volume difference in percent are not "
            "defined there and enter no mean; it is judged by the number and volume of its false "
            "positives, of which it has none where nothing was predicted either, in a table of "
            "its own. A case with lesions in which nothing was predicted has Dice 0, IoU 0, "
            "NSD 0, sensitivity 0, lesion F1 0 and a volume difference of -100 %, no precision, "
            f"and {distance}."
        )
