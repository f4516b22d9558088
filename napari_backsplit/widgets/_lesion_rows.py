"""Rows of the lesion table: what they say of two models, how they are sorted, which are meant."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Any

from napari_backsplit.backend.shown import TableRow

NONE = "–"
THIN = "\N{THIN SPACE}"


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
    sample : str
        A text that fits in.
    right : bool
        A number, which stands at the right.
    words : callable, optional
        What its tip says of a row; by default what it shows.
    """

    head: str
    tip: str
    text: Callable[[TableRow, Pair], str]
    key: Callable[[TableRow, Pair], Any]
    sample: str
    right: bool = False
    words: Callable[[TableRow, Pair], str] | None = None


_MARKS = {
    (True, True): ("●●", "Marked by both"),
    (True, False): ("●○", "Marked by the baseline only"),
    (False, True): ("○●", "Marked by the new model only"),
    (False, False): ("○○", "Marked by neither"),
}
_WITHOUT = {
    "nothing": "no lesion",
    "case": NONE,
    "no reference": "no ref.",
    "not measured": NONE,
}
"""What is said of a row that is no lesion."""


def found_text(row: TableRow, pair: Pair) -> str:
    """Say by whom a row is marked, in two circles: the baseline, the new model."""
    return NONE if row.kind in _WITHOUT else _MARKS[_finders(row, pair)][0]


def found_words(row: TableRow, pair: Pair) -> str:
    """Say by whom a row is marked, in words."""
    return _WITHOUT.get(row.kind) or _MARKS[_finders(row, pair)][1]


def _finders(row: TableRow, pair: Pair) -> tuple[bool, bool]:
    baseline, new = pair.finders(row)
    return bool(baseline), bool(new)


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


def place_text(row: TableRow, pair: Pair) -> str:
    """Say in which support a row lies; of a false positive outside of all, how far from one."""
    if row.kind in _WITHOUT:
        return _WITHOUT[row.kind]
    if row.organ:
        return row.organ
    if row.kind == "false positive" and isfinite(row.distance_mm):
        return f"{row.distance_mm:.0f} mm {row.nearest}"
    return NONE


def place_key(row: TableRow, pair: Pair) -> tuple[float, str]:
    """Return what a place is sorted by: within a support, then by the distance to one."""
    if row.organ:
        return 0.0, row.organ
    return (row.distance_mm if place_text(row, pair) != NONE else inf), row.nearest


def dice_text(row: TableRow, pair: Pair) -> str:
    """Write the Dice of a lesion by the baseline, then by the new model."""
    old, new = _OLD(row, pair), _NEW(row, pair)
    if not isfinite(old) and not isfinite(new):
        return NONE
    return f"{number(old, 2)}{THIN}→{THIN}{number(new, 2)}"


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
        "case_001",
    ),
    Column(
        "No.",
        "The lesion, the largest first; FP: a false positive",
        lesion_text,
        lambda row, pair: (row.kind != "reference", row.lesion),
        "FP 10",
    ),
    Column(
        "ml",
        "Volume in ml",
        lambda row, pair: volume(row.ml),
        lambda row, pair: _known(row.ml),
        "10.0",
        True,
    ),
    Column(
        "Found",
        "Which of the two marks it: the first circle is the baseline, the second the new model",
        found_text,
        lambda row, pair: (row.kind, pair.finders(row)),
        "●●",
        words=found_words,
    ),
    Column(
        "Dice",
        "Dice of the lesion by the baseline → by the new model; sorted by the change",
        dice_text,
        lambda row, pair: _known(_NEW(row, pair) - _OLD(row, pair)),
        f"0.00{THIN}→{THIN}0.00",
        True,
    ),
    Column(
        "Where",
        "The support structure it lies in mostly; of a false positive outside of all, how far it "
        "is from the nearest",
        place_text,
        place_key,
        "kidney",
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
