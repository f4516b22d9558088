"""The report of a comparison: cases.csv, summary.json and a report.html that holds its figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from napari_backsplit import __version__
from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison import charts, slices
from napari_backsplit.backend.comparison.compare import CaseInput
from napari_backsplit.backend.comparison.results import (
    GROUPS,
    METRICS,
    Comparison,
    Contrast,
    Group,
    Metric,
    Row,
    Verdict,
)
from napari_backsplit.backend.comparison.seen import SEEN_TEXT
from napari_backsplit.backend.comparison.tables import write_cases, write_summary
from napari_backsplit.backend.comparison.verdicts import MINUS, interval, reading_of, signed
from napari_backsplit.backend.files import atomic_path, write_text
from napari_backsplit.backend.pictures import DARK, LIGHT, Theme, data_uri

CaseLoader = Callable[[str], CaseInput]
_TEMPLATE = "report.html.j2"
_MARKS = {"better": "▲", "worse": "▼", "not shown to differ": "="}
_DASH = "–"


@dataclass(frozen=True)
class ReportInfo:
    """What a report says beyond its figures. Neutral words only: it may leave the house.

    Parameters
    ----------
    title : str
        Title of the report.
    arms : mapping of str to str
        Arm -> one line that says what it is.
    notes : tuple of str
        Remarks for the reader, such as arms of different plan sets.
    created : datetime, optional
        When; now by default.
    """

    title: str = "Comparison"
    arms: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    created: datetime | None = None


def write_report(
    comparison: Comparison,
    folder: Path,
    load_case: CaseLoader | None = None,
    info: ReportInfo | None = None,
) -> Path:
    """Write the tables, the figures and the report of a comparison.

    Parameters
    ----------
    comparison : Comparison
        What was measured.
    folder : Path
        Where cases.csv, summary.json, report.html and figures/ go.
    load_case : callable, optional
        Returns a case, with its image, by its id; without it there are no slices.
    info : ReportInfo, optional
        Title and remarks.

    Returns
    -------
    Path
        The report. It needs no other file and no network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_cases(comparison, folder / "cases.csv")
    write_summary(comparison, folder / "summary.json")
    figures = _Figures(folder / "figures")
    html = render(comparison, figures, load_case, info or ReportInfo())
    report = folder / "report.html"
    write_text(report, html)
    return report


class _Figures:
    """Keeps each figure as a file and returns it as an address that holds it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, name: str, image: bytes) -> str:
        with atomic_path(self.folder / f"{name}.png") as temporary:
            temporary.write_bytes(image)
        return data_uri(image)

    def pair(self, name: str, draw: Callable[[Theme], bytes]) -> dict[str, str]:
        """Return a chart for a light and for a dark page."""
        return {
            "light": self.keep(name, draw(LIGHT)),
            "dark": data_uri(draw(DARK)),
        }


def render(
    comparison: Comparison, figures: _Figures, load_case: CaseLoader | None, info: ReportInfo
) -> str:
    """Return the report as HTML."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    return environment.from_string(template).render(
        info=info,
        created=(info.created or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        notice=NOTICE,
        settings=comparison.settings,
        policy=comparison.settings.policy.text,
        arms=_arms(comparison, info),
        targets=[
            _target(comparison, number, target, figures, load_case)
            for number, target in enumerate(comparison.targets, start=1)
        ],
        seen=_seen(comparison),
        reference_colour=charts.OKABE_ITO["reference"],
    )


def _arms(comparison: Comparison, info: ReportInfo) -> list[dict[str, str]]:
    colours = charts.arm_colours(comparison)
    roles = dict.fromkeys(comparison.settings.controls, "control")
    roles[comparison.settings.baseline] = "baseline"
    return [
        {
            "name": arm,
            "colour": colours[arm],
            "role": roles.get(arm, ""),
            "text": (info.arms or {}).get(arm, ""),
        }
        for arm in comparison.arms
    ]


def _seen(comparison: Comparison) -> list[dict[str, Any]]:
    status = {row.case: row.seen for row in comparison.rows}
    return [
        {"name": name, "count": list(status.values()).count(name), "text": text}
        for name, text in SEEN_TEXT.items()
        if name in status.values()
    ]


def _target(
    comparison: Comparison,
    number: int,
    target: str,
    figures: _Figures,
    load_case: CaseLoader | None,
) -> dict[str, Any]:
    verdicts = sorted(
        (v for v in comparison.verdicts if v.target == target),
        key=lambda v: v.arm in comparison.settings.controls,
    )
    distribution = figures.pair(
        f"distribution-{number}",
        lambda theme: charts.distribution_chart(comparison, target, theme),
    )
    return {
        "name": target,
        "distribution": distribution,
        "pairs": [
            _pair(comparison, f"{number}-{k}", verdict, figures, load_case if k == 1 else None)
            for k, verdict in enumerate(verdicts, start=1)
        ],
        "rows": [_case(row) for row in comparison.rows if row.target == target],
    }


def _pair(
    comparison: Comparison,
    number: str,
    verdict: Verdict,
    figures: _Figures,
    load_case: CaseLoader | None,
) -> dict[str, Any]:
    target, arm, against = verdict.target, verdict.arm, verdict.against
    contrasts = [
        c for c in comparison.contrasts if (c.target, c.arm, c.against) == (target, arm, against)
    ]
    return {
        "verdict": verdict,
        "mark": _MARKS.get(verdict.reading, "?"),
        "tables": [_table(comparison, verdict, contrasts, group) for group in GROUPS],
        "paired": figures.pair(
            f"paired-{number}",
            lambda theme: charts.paired_chart(comparison, target, arm, against, theme),
        ),
        "forest": figures.pair(
            f"forest-{number}", lambda theme: charts.forest_chart(contrasts, theme)
        ),
        "slices": _slices(comparison, number, verdict, figures, load_case),
    }


def _slices(
    comparison: Comparison,
    number: str,
    verdict: Verdict,
    figures: _Figures,
    load_case: CaseLoader | None,
) -> list[dict[str, str]]:
    if load_case is None:
        return []
    target, arm, against = verdict.target, verdict.arm, verdict.against
    drawn: list[dict[str, str]] = []
    for telling in slices.telling_cases(comparison, target, arm, against):
        image = slices.draw_slice(load_case(telling.case), target, arm, against, comparison)
        if image is not None:
            uri = figures.keep(f"slice-{number}-{len(drawn) + 1}", image)
            drawn.append({"case": telling.case, "why": telling.why, "image": uri})
    return drawn


def _table(
    comparison: Comparison, verdict: Verdict, contrasts: list[Contrast], group: Group
) -> dict[str, Any]:
    ours = comparison.summary(verdict.target, verdict.arm, group)
    theirs = comparison.summary(verdict.target, verdict.against, group)
    return {
        "group": group,
        "cases": ours.cases,
        "patients": ours.patients,
        "lesions": ours.reference_lesions,
        "missed": (theirs.missed, ours.missed),
        "lines": [
            _line(comparison, contrast)
            for contrast in contrasts
            if contrast.group == group and contrast.difference.pairs
        ],
    }


def _line(comparison: Comparison, contrast: Contrast) -> dict[str, Any]:
    metric, difference = contrast.metric, contrast.difference
    reading = reading_of(comparison, contrast)
    return {
        "label": metric.label,
        "unit": metric.unit,
        "better": "↑" if metric.higher_is_better else "↓",
        "against": _number(difference.baseline, metric.digits),
        "arm": _number(difference.arm, metric.digits),
        "difference": signed(difference.value, metric.digits),
        "interval": interval(difference, metric.digits),
        "pairs": difference.pairs,
        "reading": reading,
        "mark": _MARKS.get(reading, ""),
    }


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", MINUS) if isfinite(value) else _DASH


def _case(row: Row) -> dict[str, Any]:
    measures = row.measures
    shown = {m.name: _cell(row, m) for m in METRICS[row.group] if not m.pooled_by}
    return {
        "case": row.case,
        "patient": row.patient,
        "arm": row.arm,
        "group": row.group,
        "seen": row.seen,
        "missed": row.missed,
        "lesions": f"{measures.found_lesions} of {measures.reference_lesions}",
        "reference_ml": _number(measures.reference_ml, 2),
        "difference_ml": signed(measures.difference_ml, 2),
        "false_positives": measures.false_positives,
        "values": {name: shown.get(name, _DASH) for name in _CASE_METRICS},
    }


_CASE_METRICS = (
    "dice",
    "nsd",
    "hd95_mm",
    "lesion_f1",
    "precision",
    "sensitivity",
    "false_positive_ml",
    "false_negative_ml",
)


def _cell(row: Row, metric: Metric) -> str:
    return _number(row.value(metric.name), min(metric.digits, 2))
