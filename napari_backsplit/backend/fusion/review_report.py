"""The review of a cohort as one page: verdicts, volumes, contact sheet, findings, recipes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from napari_backsplit import __version__
from napari_backsplit.backend import NOTICE
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.files import atomic_path, write_text, writing
from napari_backsplit.backend.fusion.audit import Audit
from napari_backsplit.backend.fusion.cases import Admit
from napari_backsplit.backend.fusion.contact_sheet import (
    Tile,
    make_tiles,
    sheet_pages,
    shown_as,
    tile_png,
)
from napari_backsplit.backend.fusion.findings import Finding, Severity
from napari_backsplit.backend.fusion.review import CaseState, MaskState, survey
from napari_backsplit.backend.fusion.review_table import (
    WORDS,
    Volumes,
    case_words,
    csv_text,
    mask_words,
    review_rows,
    volume_words,
    volumes_ml,
)
from napari_backsplit.backend.fusion.volume_plot import plot_volumes
from napari_backsplit.backend.pictures import DARK, LIGHT, Theme, data_uri
from napari_backsplit.backend.project import ProjectReader

_TEMPLATE = "review.html.j2"
_MARKS: Mapping[Severity, str] = {"error": "✗", "warning": "!", "info": "·"}


@dataclass(frozen=True)
class _Page:
    """What the page is made of."""

    project: ProjectReader
    states: Mapping[str, CaseState]
    audit: Audit
    volumes: Volumes
    pictures: Mapping[str, str]
    notes: Mapping[str, str]


def write_review(
    project: ProjectReader,
    audit: Audit,
    folder: Path,
    *,
    admit: Admit = "unreviewed",
    created: datetime | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the report of a review: review.html, review.csv and contact-sheet-<page>.png.

    Parameters
    ----------
    project : ProjectReader
    audit : Audit
        Of the same project; its findings and volumes are shown.
    folder : Path
        New or empty.
    admit : Admit
        Which masks of supports are outlined.
    created : datetime, optional
        When; now by default.
    progress : callable
        Told the cases drawn and their number after each; it may raise to stop.

    Returns
    -------
    Path
        The report. It needs no other file and no network, and holds neutral ids only.

    Raises
    ------
    InputError
        The folder is not empty.
    ProjectError
        It cannot be written.
    """
    require_new(folder)
    states = survey(project)
    volumes = volumes_ml(states.values(), audit.measures)
    pictures, notes = _draw_cases(project, states, folder, admit, progress)
    page = _Page(project, states, audit, volumes, pictures, notes)
    rows, html = review_rows(project, states.values(), volumes), folder / "review.html"
    with writing("The report"):
        write_text(folder / "review.csv", csv_text(rows))
        write_text(html, _render(page, created or datetime.now(UTC)))
    return html


def require_new(folder: Path) -> None:
    """Refuse a folder that holds something.

    Raises
    ------
    InputError
        It does.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty.", "Choose a new folder.")


def _draw_cases(
    project: ProjectReader,
    states: Mapping[str, CaseState],
    folder: Path,
    admit: Admit,
    progress: Callable[[int, int], None],
) -> tuple[dict[str, str], dict[str, str]]:
    """Write the contact sheets; return a picture and a note for each case."""
    pictures: dict[str, str] = {}
    notes: dict[str, str] = {}

    def keep(tile: Tile) -> None:
        image = tile_png(tile, project.schema)
        pictures[tile.case] = data_uri(image) if image else ""
        notes[tile.case] = tile.note
        progress(len(notes), len(states))

    tiles = make_tiles(project, states.values(), admit)
    pages = sheet_pages(tiles, project.schema, len(states), after=keep)
    for number, page in enumerate(pages, start=1):
        file = folder / f"contact-sheet-{number:02d}.png"
        with writing("The report"), atomic_path(file) as temporary:
            temporary.write_bytes(page)
    return pictures, notes


def _render(page: _Page, created: datetime) -> str:
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    schema = page.project.schema
    return environment.from_string(template).render(
        created=created.strftime("%Y-%m-%d %H:%M %Z"),
        version=__version__,
        notice=NOTICE,
        counts=_counts(page.states),
        structures=schema.structures,
        targets=schema.target_names,
        fused=schema.fused_supports,
        recipes=[recipe.words for recipe in schema.recipes],
        shown_as=shown_as(schema),
        cases=[_case(page, state) for state in page.states.values()],
        remarks=[remark for state in page.states.values() for remark in _remarks(state)],
        plots=_plots(page),
        summary=page.audit.summary,
        findings=_alike(page.audit.findings),
        found=Counter(finding.severity for finding in page.audit.findings),
    )


def _counts(states: Mapping[str, CaseState]) -> list[tuple[str, int]]:
    """Return how many cases stand how, those that need something last."""
    found = Counter(state.state for state in states.values())
    return [(WORDS[state], found[state]) for state in WORDS if found[state]]


def _case(page: _Page, state: CaseState) -> dict[str, Any]:
    return {
        "case": state.case,
        "reserved": page.project.case(state.case).test,
        "words": case_words(state),
        "look": "" if state.edited else state.state,
        "verdict": state.verdict,
        "masks": [_mask(page, state.case, mask) for mask in state.masks],
        "picture": page.pictures[state.case],
        "note": page.notes[state.case],
    }


def _mask(page: _Page, case: str, mask: MaskState) -> dict[str, str]:
    ml = page.volumes.get(mask.structure, {}).get(case)
    return {
        "structure": mask.structure,
        "ml": volume_words(ml),
        "words": mask_words(mask),
        "look": mask.state,
    }


def _remarks(state: CaseState) -> list[dict[str, Any]]:
    """Return the last verdicts on the case and on its masks, those that say the same together."""
    judged = [("the case", state.verdict, case_words(state))]
    judged += [(mask.structure, mask.verdict, mask_words(mask)) for mask in state.masks]
    alike: dict[tuple[str, ...], dict[str, Any]] = {}
    for name, verdict, words in judged:
        if verdict is not None:
            key = (words, verdict.who, verdict.comment, verdict.when[:10])
            row = {"case": state.case, "words": words, "verdict": verdict, "names": []}
            alike.setdefault(key, row)["names"].append(name)
    return list(alike.values())


def _plots(page: _Page) -> list[dict[str, str]]:
    return [
        {
            "structure": structure.name,
            "light": _plot(page, structure.name, structure.colour, LIGHT),
            "dark": _plot(page, structure.name, structure.colour, DARK),
        }
        for structure in page.project.schema.structures
        if page.volumes.get(structure.name)
    ]


def _plot(page: _Page, structure: str, colour: str, theme: Theme) -> str:
    far = [f.case for f in page.audit.findings if (f.code, f.structure) == ("volume", structure)]
    return data_uri(plot_volumes(structure, page.volumes[structure], colour, theme, far))


def _alike(findings: Sequence[Finding]) -> list[dict[str, Any]]:
    """Return the findings in their order, those that say the same of several cases together."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    for finding in findings:
        key = (finding.severity, finding.structure, finding.code, finding.message)
        row = {
            "severity": finding.severity,
            "mark": _MARKS[finding.severity],
            "structure": finding.structure,
            "message": finding.message,
            "cases": [],
        }
        rows.setdefault(key, row)["cases"].append(finding.case)
    return list(rows.values())
