"""Which cases of a comparison are worth a look, and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

from napari_backsplit.backend.comparison.lesion_table import LesionRow
from napari_backsplit.backend.comparison.results import Comparison, Group, Row

Kind = Literal["gain", "loss", "worst", "missed", "false positive"]
Pair = tuple[Row, Row]

KINDS: dict[Kind, str] = {
    "gain": "Largest gains",
    "loss": "Largest losses",
    "worst": "Lowest Dice",
    "missed": "Missed lesions",
    "false positive": "False positives",
}
"""As headings have them."""


@dataclass(frozen=True)
class TellingCase:
    """A case worth a look, and why.

    Parameters
    ----------
    case : str
    kind : str
        One of `KINDS`.
    why : str
        In words, with its figures.
    voxel : tuple of int, optional
        A voxel (z, y, x) of the stored image to look at; None: where the arms differ most.
    """

    case: str
    kind: Kind
    why: str
    voxel: tuple[int, int, int] | None = None


def telling_cases(
    comparison: Comparison,
    target: str,
    arm: str,
    against: str,
    lesions: Sequence[LesionRow] = (),
    most: int = 3,
) -> list[TellingCase]:
    """Choose the largest gains and losses in Dice, missed lesions and false positives of an arm.

    Parameters
    ----------
    comparison : Comparison
    target, arm, against : str
        Which pair.
    lesions : sequence of LesionRow
        Where missed lesions and false positives lie; without them whole cases are chosen.
    most : int
        Of each kind. Ties go to the first case; a gain or loss that is none is left out, and a
        kind names a case once.
    """
    pairs = _pairs(comparison, target, arm, against, "lesion")
    free = _pairs(comparison, target, arm, against, "lesion-free")
    gains = _top(pairs, _gain, most)
    losses = _top(pairs, lambda pair: -_gain(pair), most)
    shown = {pair[0].case for pair in (*gains, *losses)}
    worst = _top([p for p in pairs if p[0].case not in shown], _shortfall, 1)
    return [
        *(_of_dice("gain", pair) for pair in gains),
        *(_of_dice("loss", pair) for pair in losses),
        *(_of_dice("worst", pair) for pair in worst),
        *_missed(pairs, [x for x in lesions if x.target == target], arm, against, most),
        *_false([*pairs, *free], [x for x in lesions if x.target == target], arm, against, most),
    ]


def _pairs(comparison: Comparison, target: str, arm: str, against: str, group: Group) -> list[Pair]:
    theirs = {row.case: row for row in comparison.select(target, against, group, counted=False)}
    ours = comparison.select(target, arm, group, counted=False)
    return [(row, theirs[row.case]) for row in ours]


def _top(pairs: Iterable[Pair], score: Callable[[Pair], float], most: int) -> list[Pair]:
    above = [pair for pair in pairs if score(pair) > 0]
    return sorted(above, key=lambda pair: (-score(pair), pair[0].case))[:most]


def _gain(pair: Pair) -> float:
    gain = pair[0].measures.dice - pair[1].measures.dice
    return gain if isfinite(gain) else 0.0


def _shortfall(pair: Pair) -> float:
    dice = pair[0].measures.dice
    return 1 - dice if isfinite(dice) else 0.0


def _of_dice(kind: Kind, pair: Pair) -> TellingCase:
    ours, theirs = pair
    why = f"Dice {theirs.measures.dice:.2f} ({theirs.arm}) → {ours.measures.dice:.2f} ({ours.arm})"
    return TellingCase(ours.case, kind, why)


# --- lesions ------------------------------------------------------------------------------------


def _missed(
    pairs: Sequence[Pair], lesions: Sequence[LesionRow], arm: str, against: str, most: int
) -> list[TellingCase]:
    if not lesions:
        chosen = _top(pairs, lambda pair: pair[0].measures.false_negative_ml, most)
        return [
            TellingCase(ours.case, "missed", f"{ours.measures.false_negative_ml:.2f} ml missed")
            for ours, _ in chosen
        ]
    rows = [x for x in lesions if x.kind == "reference" and arm not in x.found_by]
    return [
        TellingCase(x.case, "missed", _missed_words(x, arm, against), x.voxel)
        for x in _largest(rows, most)
    ]


def _false(
    pairs: Sequence[Pair], lesions: Sequence[LesionRow], arm: str, against: str, most: int
) -> list[TellingCase]:
    if not lesions:
        chosen = _top(pairs, lambda pair: pair[0].measures.false_positive_ml, most)
        return [TellingCase(ours.case, "false positive", _case_words(ours)) for ours, _ in chosen]
    rows = [x for x in lesions if x.kind == "false positive" and arm in x.found_by]
    return [
        TellingCase(x.case, "false positive", _false_words(x, arm, against), x.voxel)
        for x in _largest(rows, most)
    ]


def _largest(rows: Sequence[LesionRow], most: int) -> list[LesionRow]:
    """Return the largest of each case, the largest first."""
    by_case: dict[str, Any] = {}
    for row in sorted(rows, key=lambda row: (-row.ml, row.case)):
        by_case.setdefault(row.case, row)
    return list(by_case.values())[:most]


def _missed_words(row: LesionRow, arm: str, against: str) -> str:
    other = "found" if against in row.found_by else "missed too"
    return f"{row.ml:.2f} ml{_where(row)}: missed by {arm}, {other} by {against}"


def _false_words(row: LesionRow, arm: str, against: str) -> str:
    other = "also" if against in row.found_by else "not"
    return f"{row.ml:.2f} ml{_where(row)}: predicted by {arm}, {other} by {against}"


def _where(row: LesionRow) -> str:
    if row.organ:
        return f" in the {row.organ}"
    if row.nearest and isfinite(row.distance_mm):
        return f", {row.distance_mm:.0f} mm from the {row.nearest}"
    return ""


def _case_words(row: Row) -> str:
    where = " in a case without a lesion" if row.group == "lesion-free" else ""
    return f"{row.measures.false_positive_ml:.2f} ml{where}"
