"""What a check finds, and what it puts up with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
Position = tuple[int, int, int]


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
        An error keeps the case from being trained on; a warning wants to be looked at.
    code : str
        A stable name of the kind of finding.
    message : str
        One sentence; it says what to do where something can be done.
    position_zyx : tuple of int, optional
        A voxel to look at.
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


@dataclass(frozen=True)
class Limits:
    """What an audit puts up with.

    Attributes
    ----------
    overlap_share
        Overlap of two supports, as a share of the smaller one.
    island_ml
        Components below this, or of a single voxel, are tiny.
    robust_z
        Distance of a volume from the cohort's median (Iglewicz and Hoaglin, 1993).
    cohort
        Fewest cases for which a volume can be an outlier.
    """

    overlap_share: float = 0.05
    island_ml: float = 0.05
    robust_z: float = 3.5
    cohort: int = 5
