"""The numbers behind the figures of a comparison, for two of its models."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

from napari_backsplit.backend.comparison.curves import OperatingPoint
from napari_backsplit.backend.shown import Shown, TableRow
from napari_backsplit.widgets._lesion_rows import Pair

OUTSIDE = "no support"


@dataclass(frozen=True)
class Dot:
    """Dice of a case by both models, 0 to 1."""

    case: str
    old: float
    new: float

    @property
    def words(self) -> str:
        """The case and what changed, in a line."""
        change = self.new - self.old
        sign = "+" if change > 0.005 else "\N{MINUS SIGN}" if change < -0.005 else "±"
        return f"{self.case}: Dice {self.old:.2f} → {self.new:.2f} ({sign}{abs(change):.2f})"


@dataclass(frozen=True)
class Share:
    """Of some lesions, how many each model finds; or how much of something each has.

    Attributes
    ----------
    name : str
        A class of size, or an organ.
    old, new : float
        What is drawn.
    said : tuple of str
        What stands at each bar.
    """

    name: str
    old: float
    new: float
    said: tuple[str, str]


def dots(shown: Shown, target: str, pair: Pair) -> list[Dot]:
    """Return the Dice of each lesion case, the largest gain last."""
    values: dict[str, dict[str, float]] = {}
    for row in shown.rows:
        if row.target == target and row.group == "lesion" and isfinite(row.measures.dice):
            values.setdefault(row.case, {})[row.arm] = row.measures.dice
    found = [
        Dot(case, arms[pair.baseline], arms[pair.new])
        for case, arms in values.items()
        if pair.baseline in arms and pair.new in arms
    ]
    return sorted(found, key=lambda dot: dot.new - dot.old)


def by_size(shown: Shown, target: str, pair: Pair) -> list[Share]:
    """Return which share of the lesions of each class of size both find, small ones first."""
    groups: dict[str, list[TableRow]] = {}
    for row in _of_kind(shown, target, "reference"):
        groups.setdefault(row.stratum or "all", []).append(row)
    ordered = sorted(groups.items(), key=lambda item: max(row.ml for row in item[1]))
    return [_found(name, rows, pair) for name, rows in ordered]


def _found(name: str, rows: Sequence[TableRow], pair: Pair) -> Share:
    each = [pair.finders(row) for row in rows]
    old, new = sum(one for one, _ in each), sum(two for _, two in each)
    count = len(rows)
    return Share(
        name.replace(">=", "≥"), old / count, new / count, (f"{old}/{count}", f"{new}/{count}")
    )


def false_by_organ(shown: Shown, target: str, pair: Pair) -> list[Share]:
    """Return the volume in ml of both models' false positives by the organ that they lie in."""
    volumes: dict[str, list[float]] = {}
    for row in _of_kind(shown, target, "false positive"):
        for which, marks in enumerate(pair.finders(row)):
            if marks:
                volumes.setdefault(row.organ or OUTSIDE, [0.0, 0.0])[which] += row.ml
    ordered = sorted(volumes.items(), key=lambda item: -max(item[1]))
    return [Share(name, old, new, (_ml(old), _ml(new))) for name, (old, new) in ordered]


def curve(shown: Shown, target: str, arm: str) -> list[tuple[float, float]]:
    """Return (false positives a case, sensitivity), rising; [] without probability maps."""
    points: Sequence[OperatingPoint] = shown.curves.get(target, {}).get(arm, ())
    found = [(p.false_positives_per_case, p.sensitivity) for p in points]
    return sorted((x, y) for x, y in found if isfinite(x) and isfinite(y))


def _of_kind(shown: Shown, target: str, kind: str) -> list[TableRow]:
    return [row for row in shown.table if row.kind == kind and row.target == target]


def _ml(ml: float) -> str:
    return f"{ml:.0f} ml" if ml >= 10 else f"{ml:.1f} ml"
