"""What a check finds, and what it puts up with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
Position = tuple[int, int, int]

_RANK: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}


@dataclass(frozen=True)
class Finding:
    """One thing that an audit found.

    Attributes
    ----------
    case : str
        "" for the project as a whole.
    structure : str
        The structure or channel, "" for the case as a whole.
    severity : {"error", "warning", "info"}
        An error is to be mended before training; a warning wants to be looked at.
    code : str
        A stable name of the kind of finding.
    message : str
        One sentence; it says what to do where something can be done.
    position_zyx : tuple of int, optional
        A voxel to look at, an index of the grid that the masks lie on.
    """

    case: str
    structure: str
    severity: Severity
    code: str
    message: str
    position_zyx: Position | None = None

    def __str__(self) -> str:
        place = " ".join(part for part in (self.case, self.structure) if part)
        return f"{self.severity}: {place}: {self.message}"


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """Return findings with the gravest first, otherwise in their order."""
    return sorted(findings, key=lambda finding: _RANK[finding.severity])


@dataclass(frozen=True)
class Limits:
    """What an audit puts up with.

    Attributes
    ----------
    overlap_share
        Overlap of two supports, as a share of the smaller one, 0..1.
    island_ml
        Components below this, or of a single voxel, are tiny.
    hole_ml
        Holes from this on are warned of; smaller ones, which real bowel loops enclose too, are
        only told.
    robust_z
        Distance of a volume from the cohort's median, in robust standard deviations of the
        logarithm (Iglewicz and Hoaglin, 1993).
    volume_factor
        A volume within this factor of the median is no outlier, however alike the others are.
    cohort
        Fewest cases for which a volume can be an outlier.
    pair_mm
        How far the left one of a pair must lie to the right of the right one.
    side_mm
        How far a structure named left or right must lie beyond the midline where its partner has
        no mask.
    shift_vox
        The shortest shift of a mask against the image that is told, in voxels.
    shift_peak, shift_gain, shift_lead
        How clear it must be: see `quality_shift.ShiftFit`.
    shift_surface
        Fewest voxels of a mask's surface for which a shift is looked for.
    lesions
        Most lesions of a case and target that are told of one by one; the rest is counted.
    """

    overlap_share: float = 0.05
    island_ml: float = 0.05
    hole_ml: float = 0.5
    robust_z: float = 3.5
    volume_factor: float = 2.0
    cohort: int = 5
    pair_mm: float = 5.0
    side_mm: float = 20.0
    shift_vox: float = 2.0
    shift_peak: float = 6.0
    shift_gain: float = 0.4
    shift_lead: float = 0.1
    shift_surface: int = 150
    lesions: int = 20
