"""Rows of the lesion table: what they say of two models, how they are sorted, which are meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from napari_backsplit.backend.shown import TableRow
from napari_backsplit.widgets._layout import short

NONE = "–"


@dataclass(frozen=True)
class Pair:
    """The two models that are looked at."""

    baseline: str
    new: str

    def finders(self, row: TableRow) -> tuple[bool, bool]:
        """Return whether the baseline, and whether the new model, marks a row."""
        return self.baseline in row.found_by, self.new in row.found_by


Wanted = Callable[[TableRow, Pair], bool]


def is_lesion(row: TableRow, pair: Pair) -> bool:
    """Whether it is a lesion of the reference."""
    return row.kind == "reference"


def is_missed(row: TableRow, pair: Pair) -> bool:
    """Whether it is a lesion that the new model misses."""
    return row.kind == "reference" and not pair.finders(row)[1]


def is_gained(row: TableRow, pair: Pair) -> bool:
    """Whether it is a lesion that the new model alone finds."""
    return row.kind == "reference" and pair.finders(row) == (False, True)


def is_lost(row: TableRow, pair: Pair) -> bool:
    """Whether it is a lesion that the baseline alone finds."""
    return row.kind == "reference" and pair.finders(row) == (True, False)


def is_false(row: TableRow, pair: Pair) -> bool:
    """Whether it is no lesion, though one of the two marks it."""
    return row.kind == "false positive" and any(pair.finders(row))


def is_disagreement(row: TableRow, pair: Pair) -> bool:
    """Whether one of the two marks it and the other does not."""
    baseline, new = pair.finders(row)
    return row.kind in ("reference", "false positive") and baseline != new


def is_listed(row: TableRow, pair: Pair) -> bool:
    """Whether it concerns the two at all: another model's false positive does not."""
    return row.kind != "false positive" or is_false(row, pair)


FILTERS: dict[str, tuple[Wanted, str]] = {
    "All": (is_listed, "Lesions, false positives, and cases without either"),
    "Disagreements": (is_disagreement, "What one of the two marks and the other does not"),
    "Missed": (is_missed, "Lesions that the new model misses"),
    "Found only by new": (is_gained, "Lesions that the baseline misses"),
    "Found only by baseline": (is_lost, "Lesions that the baseline finds and the new one misses"),
    "False positives": (is_false, "What either of the two marks though it is no lesion"),
    "Lesions": (is_lesion, "Lesions of the reference"),
}
"""What the table can be narrowed to: title -> which rows, and words for a tool tip."""


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes
    ----------
    head, tip : str
    text : callable
        What it shows of a row.
    key : callable
        What it is sorted by.
    right : bool
        A number, which stands at the right.
    """

    head: str
    tip: str
    text: Callable[[TableRow, Pair], str]
    key: Callable[[TableRow, Pair], Any]
    width: int
    right: bool = False


def found_text(row: TableRow, pair: Pair) -> str:
    """Say by whom a row is marked, in a word."""
    if row.kind in ("nothing", "case", "no reference"):
        words = {"nothing": "no lesion", "case": "not listed", "no reference": "no reference"}
        return words[row.kind]
    baseline, new = pair.finders(row)
    if baseline and new:
        return "●● both"
    if new:
        return "○● new"
    return "●○ baseline" if baseline else "○○ neither"


def lesion_text(row: TableRow, pair: Pair) -> str:
    """Say which of its case a lesion is."""
    names = {"reference": f"{row.lesion}", "false positive": f"FP {row.lesion}"}
    return names.get(row.kind, NONE)


def number(value: float, digits: int) -> str:
    """Write a number; a dash where there is none."""
    return f"{value:.{digits}f}" if isfinite(value) else NONE


def volume(ml: float) -> str:
    """Write a volume in ml with the digits that mean something."""
    return number(ml, 0 if ml >= 100 else 1 if ml >= 1 else 2)


def support_text(row: TableRow, pair: Pair) -> str:
    """Say how far the nearest support is from a false positive."""
    if row.kind != "false positive" or not isfinite(row.distance_mm):
        return NONE
    return f"{row.distance_mm:.0f} mm {short(row.nearest, 18)}"


def _dice(which: str) -> Callable[[TableRow, Pair], float]:
    def value(row: TableRow, pair: Pair) -> float:
        return float(row.dice.get(getattr(pair, which), float("nan")))

    return value


def _known(value: float) -> float:
    """Return what a number is sorted by: one that is not known stands last."""
    return value if isfinite(value) else inf


_OLD, _NEW = _dice("baseline"), _dice("new")

COLUMNS = (
    Column(
        "Case",
        "The case; choose a row to go there",
        lambda row, pair: row.case,
        lambda row, pair: (row.case, row.target, row.kind != "reference", row.lesion),
        70,
    ),
    Column(
        "No.",
        "The lesion, the largest first; FP: a false positive",
        lesion_text,
        lambda row, pair: (row.kind != "reference", row.lesion),
        40,
    ),
    Column(
        "ml",
        "Volume in ml",
        lambda row, pair: volume(row.ml),
        lambda row, pair: _known(row.ml),
        42,
        True,
    ),
    Column(
        "Found by",
        "Which of the two marks it: first circle the baseline, second the new model",
        found_text,
        lambda row, pair: (row.kind, pair.finders(row)),
        82,
    ),
    Column(
        "Dice old",
        "Dice of the lesion by the baseline",
        lambda row, pair: number(_OLD(row, pair), 2),
        lambda row, pair: _known(_OLD(row, pair)),
        56,
        True,
    ),
    Column(
        "Dice new",
        "Dice of the lesion by the new model",
        lambda row, pair: number(_NEW(row, pair), 2),
        lambda row, pair: _known(_NEW(row, pair)),
        58,
        True,
    ),
    Column(
        "Organ",
        "The support structure it lies in mostly",
        lambda row, pair: row.organ or NONE,
        lambda row, pair: row.organ or "\uffff",
        70,
    ),
    Column(
        "To support",
        "Distance of a false positive to the nearest support structure, in mm",
        support_text,
        lambda row, pair: _known(row.distance_mm if row.kind == "false positive" else inf),
        110,
    ),
)


def following(
    rows: Sequence[TableRow], here: TableRow | None, wanted: Wanted, pair: Pair, step: int
) -> tuple[TableRow | None, bool]:
    """Return the next wanted row after (before) one, and whether it began anew from the end.

    Parameters
    ----------
    rows : sequence of TableRow
        In the order of the table.
    here : TableRow, optional
        None: from the first (or the last) on.
    step : int
        1 or -1.
    """
    ordered = list(rows)[::step]
    start = next((n + 1 for n, row in enumerate(ordered) if row is here), 0)
    for number, row in enumerate([*ordered[start:], *ordered[:start]]):
        if row is not here and wanted(row, pair):
            return row, number >= len(ordered) - start
    return None, False
