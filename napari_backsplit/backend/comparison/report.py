"""The report of a comparison: its tables as files, and a report.html that needs no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import resources
from itertools import groupby
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
from markupsafe import Markup

from napari_backsplit import __version__
from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.comparison import charts, contents, method_tables
from napari_backsplit.backend.comparison.agreement import CLASSES, OUTLINE_COLOURS
from napari_backsplit.backend.comparison.compare import CaseInput
from napari_backsplit.backend.comparison.definitions import definitions
from napari_backsplit.backend.comparison.results import GROUPS, PRIMARY, Comparison, Verdict
from napari_backsplit.backend.comparison.slices import draw_slice
from napari_backsplit.backend.comparison.soft_agreement import (
    is_soft,
    soft_contrasts,
    soft_notes,
)
from napari_backsplit.backend.comparison.sources import Sources
from napari_backsplit.backend.comparison.tables import write_tables
from napari_backsplit.backend.comparison.telling import KINDS, TellingCase, telling_cases
from napari_backsplit.backend.files import write_text
from napari_backsplit.backend.pictures import standalone

CaseLoader = Callable[[str], CaseInput]

_TEMPLATE, _STYLE, _SCRIPT = "report.html.j2", "report.css", "report.js"
_FILES = {
    "cases.csv": "every case under every arm",
    "lesions.csv": "every lesion and false positive",
    "froc.json": "the operating points of the FROC",
    "summary.json": "settings, summaries, differences and verdicts",
}


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
    sources : Sources
        Models, versions and licences.
    """

    title: str = "Comparison"
    arms: Mapping[str, str] | None = None
    notes: tuple[str, ...] = ()
    created: datetime | None = None
    sources: Sources = field(default_factory=Sources)


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
        Where the tables, report.html and figures/ go.
    load_case : callable, optional
        Returns a case, with its image, by its id; without it there are no pictures.
    info : ReportInfo, optional
        Title, remarks and sources.

    Returns
    -------
    Path
        The report. It needs no other file and no network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_tables(comparison, folder)
    figures = _Figures(folder / "figures")
    html = render(comparison, figures, load_case, info or ReportInfo(), _written(folder))
    report = folder / "report.html"
    write_text(report, html)
    return report


def _written(folder: Path) -> dict[str, str]:
    return {name: text for name, text in _FILES.items() if (folder / name).exists()}


class _Figures:
    """Keeps each figure as a file of its own, and returns it for the page."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, name: str, element: str) -> Markup:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / f"{name}.svg", standalone(element))
        return Markup(element)

    def panels(self, panels: Sequence[charts.Panel | None]) -> list[dict[str, Any]]:
        return [
            {"title": panel.title, "svg": self.keep(panel.name, panel.svg)}
            for panel in panels
            if panel is not None
        ]


def render(
    comparison: Comparison,
    figures: _Figures,
    load_case: CaseLoader | None,
    info: ReportInfo,
    files: Mapping[str, str],
) -> str:
    """Return the report as HTML."""
    environment = Environment(
        loader=FunctionLoader(_source),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _source(_SCRIPT)
    return environment.get_template(_TEMPLATE).render(
        info=info,
        notes=(*comparison.notes, *info.notes),
        created=(info.created or datetime.now(UTC)).strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        notice=NOTICE,
        style=Markup(_source(_STYLE)),
        script=Markup(script),
        script_hash=_hash(script),
        settings=comparison.settings,
        primary=_primary(comparison),
        arms=_arms(comparison, info),
        targets=[
            _target(comparison, number, target, figures, load_case)
            for number, target in enumerate(comparison.targets, start=1)
        ],
        unseen=method_tables.unseen(comparison),
        counts=_counts(comparison),
        definitions=definitions(soft=is_soft(comparison.rows)),
        coverage=method_tables.coverage(comparison, "coverage"),
        models=method_tables.models(info.sources, comparison.arms, "models"),
        versions=method_tables.versions(info.sources, "versions"),
        licences=method_tables.licences(info.sources, "licences"),
        files=files,
        parts=CLASSES,
        outlines=OUTLINE_COLOURS,
        plural=contents.plural,
    )


def _source(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")


def _hash(script: str) -> str:
    """Return the script's hash as a content security policy names it: no other one runs."""
    digest = hashlib.sha256(script.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


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


def _primary(comparison: Comparison) -> str:
    labels = {c.metric.name: c.metric.label for c in comparison.contrasts}
    return ", ".join(labels[name] for name in PRIMARY if name in labels)


def _counts(comparison: Comparison) -> list[dict[str, Any]]:
    """Return how many cases and patients enter, for each target."""
    baseline = comparison.settings.baseline
    lines = []
    for target in comparison.targets:
        rows = charts.counted_rows(comparison, target, baseline)
        lesion = [row for row in rows if row.group == "lesion"]
        lines.append(
            {
                "target": target,
                "cases": len(rows),
                "all": len({row.case for row in comparison.rows}),
                "patients": len({row.patient for row in rows}),
                "lesion": len(lesion),
                "free": len(rows) - len(lesion),
                "lesions": sum(row.measures.reference_lesions for row in lesion),
            }
        )
    return lines


# --- one target ---------------------------------------------------------------------------------


def _target(
    comparison: Comparison,
    number: int,
    target: str,
    figures: _Figures,
    load_case: CaseLoader | None,
) -> dict[str, Any]:
    arms, lesions = comparison.arms, comparison.lesions
    verdicts = sorted(
        (v for v in comparison.verdicts if v.target == target),
        key=lambda v: (v.arm in comparison.settings.controls, v.against != _baseline(comparison)),
    )
    lesion_panels = [
        charts.size_panel(comparison, target, arms, f"size-{number}"),
        charts.froc_panel(comparison, target, arms, f"froc-{number}"),
        charts.organ_panel(comparison, lesions, target, arms, f"organs-{number}"),
    ]
    return {
        "name": target,
        "pairs": [
            _pair(comparison, f"{number}-{k}", verdict, figures, load_case if k == 1 else None)
            for k, verdict in enumerate(verdicts, start=1)
        ],
        "lesion_panels": figures.panels(lesion_panels),
        "has_froc": lesion_panels[1] is not None,
        "sizes": contents.found_sizes(comparison, target, arms, f"sizes-{number}"),
        "organs": contents.false_by_organ(lesions, target, arms, f"organ-table-{number}"),
        "distribution": figures.panels(
            charts.distribution_panels(comparison, target, f"distribution-{number}")
        ),
        "lesions": contents.lesion_table(lesions, target, arms, f"lesions-{number}"),
        "cases": contents.case_table(comparison, target, f"cases-{number}"),
        "soft": _soft(comparison, number, target),
    }


def _soft(comparison: Comparison, number: int, target: str) -> dict[str, Any] | None:
    """Return the tables of shares, and what they rest on; None where nothing was measured."""
    if not is_soft([row for row in comparison.rows if row.target == target]):
        return None
    tables = [
        contents.differences(comparison, own, group, f"soft-{group}-{number}-{k}")
        for k, (arm, against) in enumerate(comparison.pairs, start=1)
        for group in GROUPS
        if (own := soft_contrasts(comparison, target, arm, against))
    ]
    return {
        "notes": list(soft_notes(comparison, target)),
        "tables": [
            {"heading": table.caption[:1].upper() + table.caption[1:], "table": table}
            for table in tables
            if table is not None
        ],
    }


def _baseline(comparison: Comparison) -> str:
    return comparison.settings.baseline


def _pair(
    comparison: Comparison,
    number: str,
    verdict: Verdict,
    figures: _Figures,
    load_case: CaseLoader | None,
) -> dict[str, Any]:
    target, arm, against = verdict.target, verdict.arm, verdict.against
    contrasts = comparison.contrasts_of(target, arm, against, None)
    every = comparison.contrasts_of(target, arm, against)
    tables = [
        {
            "group": group,
            "table": contents.differences(comparison, every, group, f"{group}-{number}"),
            "missed": [comparison.summary(target, a, group).missed for a in (against, arm)],
        }
        for group in GROUPS
    ]
    paired = charts.paired_panels(comparison, target, arm, against, f"paired-{number}")
    return {
        "verdict": verdict,
        "mark": contents.MARKS.get(verdict.reading, "?"),
        "tables": tables,
        "by_size": contents.by_case_size(comparison, contrasts, f"strata-{number}"),
        "forest": figures.panels([charts.forest_panel(every, f"forest-{number}")]),
        "paired": figures.panels(paired),
        "pictures": list(_pictures(comparison, number, verdict, figures, load_case)),
    }


def _pictures(
    comparison: Comparison,
    number: str,
    verdict: Verdict,
    figures: _Figures,
    load_case: CaseLoader | None,
) -> Iterator[dict[str, Any]]:
    """Give the pictures of the telling cases, kind by kind."""
    if load_case is None:
        return
    target, arm, against = verdict.target, verdict.arm, verdict.against
    chosen = telling_cases(comparison, target, arm, against, comparison.lesions)
    drawn: dict[int, dict[str, Any]] = {}
    by_case = sorted(enumerate(chosen, start=1), key=lambda item: item[1].case)
    for case_id, group in groupby(by_case, key=lambda item: item[1].case):
        case = load_case(case_id)
        for k, telling in group:
            if found := _picture(case, telling, verdict, f"slice-{number}-{k}", figures):
                drawn[k] = found
    for kind, heading in KINDS.items():
        own = [drawn[k] for k in sorted(drawn) if chosen[k - 1].kind == kind]
        if own:
            yield {"heading": heading, "pictures": own}


def _picture(
    case: CaseInput, telling: TellingCase, verdict: Verdict, name: str, figures: _Figures
) -> dict[str, Any] | None:
    pair = (verdict.target, verdict.arm, verdict.against)
    picture = draw_slice(case, *pair, name, telling.voxel)
    if picture is None:
        return None
    figures.keep(name, picture.together)
    return {
        "case": telling.case,
        "why": telling.why,
        "position": picture.position,
        "panels": [
            {"title": title, "svg": Markup(element)}
            for title, element in (
                ("Outlines", picture.outlines),
                ("Where they agree", picture.parts),
                ("Image alone", picture.bare),
            )
        ],
    }
