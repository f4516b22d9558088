"""The tables of a comparison: cases.csv, lesions.csv, froc.json and summary.json."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, asdict, fields
from math import isfinite, nan
from pathlib import Path
from typing import Any

from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison.lesion_table import write_lesions
from napari_backsplit.backend.comparison.lesions import StratumCount
from napari_backsplit.backend.comparison.metrics import Measures
from napari_backsplit.backend.comparison.results import PRIMARY, Comparison, Contrast, Row
from napari_backsplit.backend.comparison.soft_agreement import soft_summary
from napari_backsplit.backend.comparison.soft_metrics import KINDS, NUMBERS, SoftMeasures
from napari_backsplit.backend.comparison.verdicts import reading_of
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import write_json, write_text

FORMAT_VERSION = 2
"""2 added strata, tests and lesions.csv; 1 is still read."""

_IDS = ("case", "patient", "target", "arm", "seen")
_NUMBERS = {each.name: each for each in fields(Measures) if each.name != "by_stratum"}
_KINDS: dict[str, Callable[[str], Any]] = {
    name: int if each.type == "int" else float for name, each in _NUMBERS.items()
}
_ADDED = tuple(name for name, each in _NUMBERS.items() if each.default is not MISSING)
_COUNTS: dict[str, Callable[[str], Any]] = {
    each.name: int if each.type == "int" else float
    for each in fields(StratumCount)
    if each.name != "name"
}
_BETWEEN = ": "
COLUMNS = (*_IDS, "group", *_NUMBERS, "average_precision")


def write_tables(comparison: Comparison, folder: Path) -> None:
    """Write cases.csv, lesions.csv, froc.json and summary.json."""
    folder.mkdir(parents=True, exist_ok=True)
    write_cases(comparison, folder / "cases.csv")
    write_lesions(comparison.lesions, folder / "lesions.csv")
    write_froc(comparison, folder / "froc.json")
    write_summary(comparison, folder / "summary.json")


def write_cases(comparison: Comparison, path: Path) -> None:
    """Write one line per case, target and arm; an undefined metric is an empty cell.

    After `COLUMNS` come those of each size of lesion, as in "< 1 ml: found", and those of
    `SoftMeasures` where anything was measured of shares.
    """
    lines = [_cells(row) for row in comparison.rows]
    sized = dict.fromkeys(name for line in lines for name in line if name not in COLUMNS)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, (*COLUMNS, *sized), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    write_text(path, text.getvalue())


def _cells(row: Row) -> dict[str, Any]:
    numbers = {name: getattr(row.measures, name) for name in _NUMBERS}
    numbers["average_precision"] = row.average_precision
    for count in row.measures.by_stratum:
        numbers |= {f"{count.name}{_BETWEEN}{name}": getattr(count, name) for name in _COUNTS}
    kinds = {}
    if row.soft.soft_prediction:
        kinds = {name: getattr(row.soft, name) for name in KINDS}
        numbers |= {name: getattr(row.soft, name) for name in NUMBERS}
    written = {name: repr(value) if isfinite(value) else "" for name, value in numbers.items()}
    return {**{name: getattr(row, name) for name in _IDS}, "group": row.group, **written, **kinds}


def read_cases(path: Path) -> list[Row]:
    """Read what `write_cases` wrote; the counts at each threshold are not in it.

    Raises
    ------
    InputError
        A column is missing or a cell is not a number.
    """
    with path.open(newline="", encoding="utf-8") as file:
        try:
            reader = csv.DictReader(file)
            strata = _strata(reader.fieldnames or ())
            return [_row(cells, strata) for cells in reader]
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{path.name} is not a table of cases: {error}.") from None


def _strata(columns: Any) -> tuple[str, ...]:
    named = (name.partition(_BETWEEN)[0] for name in columns if _BETWEEN in name)
    return tuple(dict.fromkeys(named))


def _row(cells: Mapping[str, str], strata: tuple[str, ...]) -> Row:
    read = {**dict.fromkeys(_ADDED, ""), **cells}
    numbers: dict[str, Any] = {
        name: kind(read[name]) if read[name] else nan for name, kind in _KINDS.items()
    }
    counted = tuple(_stratum(cells, name) for name in strata)
    ids: dict[str, Any] = {name: cells[name] for name in _IDS}
    average = float(cells["average_precision"] or "nan")
    measures = Measures(**numbers, by_stratum=counted)
    return Row(**ids, measures=measures, average_precision=average, soft=_soft(cells))


def _soft(cells: Mapping[str, str]) -> SoftMeasures:
    numbers: dict[str, Any] = {name: float(cells.get(name) or "nan") for name in NUMBERS}
    kinds: dict[str, Any] = {name: cells.get(name) or "" for name in KINDS}
    return SoftMeasures(**numbers, **kinds)


def _stratum(cells: Mapping[str, str], stratum: str) -> StratumCount:
    return StratumCount(
        stratum,
        *(kind(cells[f"{stratum}{_BETWEEN}{name}"]) for name, kind in _COUNTS.items()),
    )


def write_froc(comparison: Comparison, path: Path) -> None:
    """Write the operating points of each target and arm, over the cases that count."""
    curves = {
        target: {arm: [asdict(point) for point in points] for arm, points in arms.items()}
        for target, arms in comparison.froc.items()
    }
    write_json(path, without_nan({"format_version": FORMAT_VERSION, "curves": curves}))


def write_summary(comparison: Comparison, path: Path) -> None:
    """Write settings, summaries, differences and verdicts as JSON; undefined is null."""
    write_json(path, without_nan(summary(comparison)))


def summary(comparison: Comparison) -> dict[str, Any]:
    """Return the settings, summaries, differences and verdicts as plain values.

    Of the differences those of the stratum "all" come first.
    """
    return {
        "format_version": FORMAT_VERSION,
        "notice": NOTICE,
        "title": comparison.title,
        "settings": asdict(comparison.settings),
        "empty_mask_policy": comparison.settings.policy.text,
        "primary_metrics": PRIMARY,
        "arms": comparison.arms,
        "targets": comparison.targets,
        "strata": comparison.strata,
        "folders": dict(comparison.folders),
        "notes": comparison.notes,
        "cases": {row.case: row.seen for row in comparison.rows},
        "verdicts": [asdict(verdict) for verdict in comparison.verdicts],
        "summaries": [asdict(item) for item in comparison.summaries],
        "differences": list(_differences(comparison)),
        "matched_sensitivity": [asdict(match) for match in comparison.matched],
        **_soft_figures(comparison),
    }


def _soft_figures(comparison: Comparison) -> dict[str, Any]:
    """Return what was measured of shares, under "soft"; nothing where nothing was."""
    targets = soft_summary(comparison)
    differences = [_difference(comparison, contrast) for contrast in comparison.soft]
    return {"soft": {"targets": targets, "differences": differences}} if targets else {}


def _differences(comparison: Comparison) -> Iterator[dict[str, Any]]:
    ordered = sorted(comparison.contrasts, key=lambda item: item.stratum != "all")
    return (_difference(comparison, item) for item in ordered)


def _difference(comparison: Comparison, contrast: Contrast) -> dict[str, Any]:
    figures = asdict(contrast.difference)
    means = {"mean": figures.pop("arm"), "mean_against": figures.pop("baseline")}
    return {
        "target": contrast.target,
        "arm": contrast.arm,
        "against": contrast.against,
        "group": contrast.group,
        "stratum": contrast.stratum,
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
