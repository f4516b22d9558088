"""The tables of a comparison: cases.csv and summary.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from dataclasses import asdict, fields
from math import isfinite, nan
from pathlib import Path
from typing import Any

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison.metrics import Measures
from napari_backsplit.backend.comparison.results import Comparison, Contrast, Row
from napari_backsplit.backend.comparison.verdicts import reading_of
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json, write_text

FORMAT_VERSION = 1

_IDS = ("case", "patient", "target", "arm", "seen")
_MEASURES: dict[str, Callable[[str], Any]] = {
    field.name: int if field.type == "int" else float for field in fields(Measures)
}
COLUMNS = (*_IDS, "group", *_MEASURES, "average_precision")


def write_cases(comparison: Comparison, path: Path) -> None:
    """Write one line per case, target and arm; an undefined metric is an empty cell."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_cells(row) for row in comparison.rows)
    write_text(path, text.getvalue())


def _cells(row: Row) -> dict[str, Any]:
    ids = {name: getattr(row, name) for name in _IDS}
    numbers = {**asdict(row.measures), "average_precision": row.average_precision}
    written = {name: repr(value) if isfinite(value) else "" for name, value in numbers.items()}
    return {**ids, "group": row.group, **written}


def read_cases(path: Path) -> list[Row]:
    """Read what `write_cases` wrote; the counts at each threshold are not in it.

    Raises
    ------
    InputError
        A column is missing or a cell is not a number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        try:
            return [_row(cells) for cells in csv.DictReader(file)]
        except (KeyError, ValueError) as error:
            raise InputError(f"{path.name} is not a table of cases: {error}.") from None


def _row(cells: dict[str, str]) -> Row:
    measures: dict[str, Any] = {
        name: kind(cells[name]) if cells[name] else nan for name, kind in _MEASURES.items()
    }
    ids: dict[str, Any] = {name: cells[name] for name in _IDS}
    average = float(cells["average_precision"] or "nan")
    return Row(**ids, measures=Measures(**measures), average_precision=average)


def write_summary(comparison: Comparison, path: Path) -> None:
    """Write settings, summaries, differences and verdicts as JSON; undefined is null."""
    write_json(path, without_nan(summary(comparison)))


def summary(comparison: Comparison) -> dict[str, Any]:
    """Return the settings, summaries, differences and verdicts as plain values."""
    return {
        "format_version": FORMAT_VERSION,
        "notice": NOTICE,
        "settings": asdict(comparison.settings),
        "empty_mask_policy": comparison.settings.policy.text,
        "arms": comparison.arms,
        "targets": comparison.targets,
        "cases": {row.case: row.seen for row in comparison.rows},
        "verdicts": [asdict(verdict) for verdict in comparison.verdicts],
        "summaries": [asdict(item) for item in comparison.summaries],
        "differences": [_difference(comparison, item) for item in comparison.contrasts],
        "matched_sensitivity": [asdict(match) for match in comparison.matched],
    }


def _difference(comparison: Comparison, contrast: Contrast) -> dict[str, Any]:
    figures = asdict(contrast.difference)
    means = {"mean": figures.pop("arm"), "mean_against": figures.pop("baseline")}
    return {
        "target": contrast.target,
        "arm": contrast.arm,
        "against": contrast.against,
        "group": contrast.group,
        "metric": contrast.metric.name,
        "unit": contrast.metric.unit,
        **means,
        **figures,
        "reading": reading_of(comparison, contrast),
    }


def without_nan(value: Any) -> Any:
    """Replace what JSON cannot say: not a number and infinity by null, tuples by lists."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value
