"""The tables of the report, as text with what each cell sorts by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, nan

from napari_backsplit.backend.comparison.charts import at_least, false_ml_by_organ, found_by_size
from napari_backsplit.backend.comparison.lesion_table import LesionRow
from napari_backsplit.backend.comparison.results import (
    ALL,
    METRICS,
    PRIMARY,
    Comparison,
    Contrast,
    Group,
    Metric,
    Row,
)
from napari_backsplit.backend.comparison.verdicts import MINUS, interval, reading_of, signed

MARKS = {"better": "▲", "worse": "▼", "not shown to differ": "="}
DASH = "–"


@dataclass(frozen=True)
class Cell:
    """A cell: its text, what it sorts by (a number or a text), and how it is emphasised."""

    text: str
    key: float | str
    tone: str = ""


@dataclass(frozen=True)
class Column:
    """A column: heading, unit, whether it holds words, and what its tool tip says."""

    label: str
    unit: str = ""
    words: bool = False
    tip: str = ""


@dataclass(frozen=True)
class Table:
    """A table that sorts, with a caption for those who cannot see it.

    Parameters
    ----------
    name : str
        Its id in the page.
    caption : str
    columns : tuple of Column
    rows : tuple of tuple of Cell
    search : str
        What the field that filters it asks for; empty without one.
    """

    name: str
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    search: str = ""


def words(text: str, tone: str = "") -> Cell:
    """Return a cell that sorts as text."""
    return Cell(text, text, tone)


def number(value: float, digits: int) -> Cell:
    """Return a cell of a number; a dash where it is not defined."""
    text = f"{value:.{digits}f}".replace("-", MINUS) if isfinite(value) else DASH
    return Cell(text, value if isfinite(value) else "")


def p_value(value: float) -> Cell:
    """Return a cell of a p value."""
    if not isfinite(value):
        return Cell(DASH, "")
    return Cell("< 0.001" if value < 0.001 else f"{value:.3f}", value)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, as in "1 case" and "24 cases"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


# --- differences --------------------------------------------------------------------------------


def differences(
    comparison: Comparison, contrasts: Sequence[Contrast], group: Group, name: str
) -> Table | None:
    """Return the differences of a pair in one group of cases; None if there is no such case."""
    own = [c for c in contrasts if c.group == group and c.stratum == ALL and c.difference.pairs]
    if not own:
        return None
    arm, against = own[0].arm, own[0].against
    columns = (
        Column("Metric", words=True),
        Column(against),
        Column(arm),
        Column("Difference", tip=f"{arm} minus {against}"),
        Column("Interval"),
        Column("p", tip="Wilcoxon's signed-rank test"),
        Column("p, Holm", tip="After Holm's correction over the primary metrics"),
        Column("Cases"),
        Column("Reading", words=True),
    )
    rows = tuple(_difference(comparison, contrast) for contrast in own)
    return Table(name, f"{group} cases: {arm} against {against}", columns, rows)


def _difference(comparison: Comparison, contrast: Contrast) -> tuple[Cell, ...]:
    metric, difference = contrast.metric, contrast.difference
    way = "↑" if metric.higher_is_better else "↓"
    return (
        words(f"{_labelled(metric)} {way}", "primary" if metric.name in PRIMARY else ""),
        number(difference.baseline, metric.digits),
        number(difference.arm, metric.digits),
        _change(contrast),
        _interval(contrast),
        p_value(difference.wilcoxon_p),
        p_value(difference.holm_p),
        Cell(str(difference.pairs), difference.pairs),
        _reading(comparison, contrast),
    )


def _labelled(metric: Metric) -> str:
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def _change(contrast: Contrast) -> Cell:
    value = contrast.difference.value
    if not isfinite(value):
        return Cell(DASH, "")
    return Cell(signed(value, contrast.metric.digits), value)


def _interval(contrast: Contrast) -> Cell:
    difference = contrast.difference
    if not (isfinite(difference.low) and isfinite(difference.high)):
        return Cell(DASH, "")
    return Cell(interval(difference, contrast.metric.digits), difference.low)


def _reading(comparison: Comparison, contrast: Contrast) -> Cell:
    reading = reading_of(comparison, contrast)
    probably = contrast.difference.hedged and reading in ("better", "worse")
    text = f"{MARKS.get(reading, '')} {'probably ' if probably else ''}{reading}".strip()
    return words(text, reading if reading in MARKS else "other")


def by_case_size(comparison: Comparison, contrasts: Sequence[Contrast], name: str) -> Table | None:
    """Return the primary differences by the lesion volume of a case; None where all is one."""
    own = [
        c for c in contrasts if c.stratum != ALL and c.difference.pairs and c.metric.name in PRIMARY
    ]
    if len({c.stratum for c in own}) < 2:
        return None
    columns = (
        Column("Lesions of the case", words=True, tip="Their volume together"),
        Column("Metric", words=True),
        Column("Cases"),
        Column(own[0].against),
        Column(own[0].arm),
        Column("Difference"),
        Column("Interval"),
        Column("Reading", words=True),
    )
    rank = {stratum: k for k, stratum in enumerate(comparison.strata)}
    return Table(
        name,
        "Differences by the volume of a case's lesions",
        columns,
        tuple(_sized(comparison, c, rank[c.stratum]) for c in own),
    )


def _sized(comparison: Comparison, contrast: Contrast, rank: int) -> tuple[Cell, ...]:
    difference, digits = contrast.difference, contrast.metric.digits
    return (
        Cell(at_least(contrast.stratum), rank),
        words(_labelled(contrast.metric)),
        Cell(str(difference.pairs), difference.pairs),
        number(difference.baseline, digits),
        number(difference.arm, digits),
        _change(contrast),
        _interval(contrast),
        _reading(comparison, contrast),
    )


# --- lesions ------------------------------------------------------------------------------------


def found_sizes(
    comparison: Comparison, target: str, arms: Sequence[str], name: str
) -> Table | None:
    """Return which share of the lesions of each size each arm finds; None without a lesion."""
    sizes = found_by_size(comparison, target, arms)
    if not sizes:
        return None
    rows = tuple(
        (Cell(at_least(size), k), *(_share(*each[arm]) for arm in arms))
        for k, (size, each) in enumerate(sizes)
    )
    columns = (Column("Size of the lesion", words=True), *(Column(arm) for arm in arms))
    return Table(name, "Lesions found, by their size", columns, rows)


def _share(found: int, total: int) -> Cell:
    if not total:
        return Cell(DASH, "")
    return Cell(f"{found} of {total} ({100 * found / total:.0f} %)", found / total)


def false_by_organ(
    lesions: Sequence[LesionRow], target: str, arms: Sequence[str], name: str
) -> Table | None:
    """Return the false positive volume in each organ; None without a false positive."""
    organs = false_ml_by_organ(lesions, target, arms)
    if not organs:
        return None
    rows = tuple((words(organ), *(number(each[arm], 2) for arm in arms)) for organ, each in organs)
    columns = (Column("Organ", words=True), *(Column(arm, "ml") for arm in arms))
    return Table(name, "False positive volume by organ", columns, rows)


def lesion_table(
    lesions: Sequence[LesionRow], target: str, arms: Sequence[str], name: str
) -> Table | None:
    """Return every lesion and false positive; None where none is known."""
    own = [row for row in lesions if row.target == target]
    if not own:
        return None
    columns = (
        Column("Case", words=True),
        Column("Kind", words=True),
        Column("No.", tip="1 is the largest of its kind in the case"),
        Column("Volume", "ml"),
        Column("Lies in", words=True),
        Column("Nearest organ", words=True),
        Column("Distance", "mm"),
        *(Column(arm, tip="Found (with its Dice), or predicted") for arm in arms),
    )
    rows = tuple(_lesion(row, arms) for row in own)
    return Table(name, "Every lesion and false positive", columns, rows, "case, organ, missed …")


def _lesion(row: LesionRow, arms: Sequence[str]) -> tuple[Cell, ...]:
    return (
        words(row.case),
        words("lesion" if row.kind == "reference" else "false positive"),
        Cell(str(row.lesion), row.lesion),
        number(row.ml, 2),
        words(row.organ or DASH),
        words(row.nearest or DASH),
        number(row.distance_mm, 0),
        *(_found(row, arm) for arm in arms),
    )


def _found(row: LesionRow, arm: str) -> Cell:
    found = arm in row.found_by
    if row.kind == "false positive":
        return Cell("predicted" if found else DASH, float(found), "worse" if found else "")
    dice = row.dice.get(arm, nan)
    if not found:
        return Cell("missed", -1.0, "worse")
    return Cell(f"Dice {dice:.2f}" if isfinite(dice) else "found", dice if isfinite(dice) else 1.0)


# --- cases --------------------------------------------------------------------------------------

_CASE_METRICS = (
    ("dice", "Dice", "", 2),
    ("nsd", "NSD", "", 2),
    ("hd95_mm", "HD-95", "mm", 1),
    ("assd_mm", "ASSD", "mm", 1),
    ("lesion_f1", "Lesion F1", "", 2),
    ("precision", "Prec.", "", 2),
    ("sensitivity", "Sens.", "", 2),
    ("false_positives", "FP", "", 0),
    ("false_positive_ml", "FP", "ml", 2),
    ("false_negative_ml", "FN", "ml", 2),
    ("reference_ml", "Reference", "ml", 2),
    ("difference_ml", "Volume diff.", "ml", 2),
)


def case_table(comparison: Comparison, target: str, name: str) -> Table:
    """Return every case under every arm; whether it was unseen, where that is not one for all."""
    own = [row for row in comparison.rows if row.target == target]
    mixed = len({row.seen for row in own}) > 1
    columns = (
        Column("Case", words=True),
        Column("Arm", words=True),
        *([Column("Unseen", words=True)] if mixed else []),
        Column("Lesions found"),
        *(Column(label, unit) for _, label, unit, _ in _CASE_METRICS),
        Column("Patient", words=True),
    )
    rows = tuple(_case(row, mixed) for row in own)
    return Table(name, "Every case", columns, rows, "case, patient, arm …")


def _case(row: Row, mixed: bool) -> tuple[Cell, ...]:
    measures = row.measures
    found = Cell(
        f"{measures.found_lesions} of {measures.reference_lesions}",
        measures.found_lesions / max(measures.reference_lesions, 1),
    )
    return (
        words(row.case),
        words(row.arm),
        *([words(row.seen)] if mixed else []),
        found if measures.reference_lesions else Cell("no lesion", ""),
        *(number(_value(row, name), digits) for name, _, _, digits in _CASE_METRICS),
        words(row.patient),
    )


def _value(row: Row, name: str) -> float:
    """Return a metric of a case; those of overlap are not defined without a lesion."""
    defined: tuple[Metric, ...] = METRICS[row.group]
    always = ("false_positives", "false_positive_ml", "reference_ml", "difference_ml")
    if row.group == "lesion-free" and name not in always and name not in [m.name for m in defined]:
        return nan
    return row.value(name)
