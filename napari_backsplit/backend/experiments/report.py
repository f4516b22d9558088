"""What an experiment leaves: figures as JSON, and tables in Markdown between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from napari_backsplit.backend.comparison.statistics import Draws
from napari_backsplit.backend.comparison.tables import without_nan
from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.figures import FIGURES, Figure, Figures, targets_of
from napari_backsplit.backend.experiments.layout import plain_layout
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.tables import notes, tables
from napari_backsplit.backend.files import write_json, write_text
from napari_backsplit.backend.jobs import Job, State

FORMAT_VERSION = 1


def write_results(
    plan: ExperimentPlan,
    results: Sequence[DrawResult],
    jobs: Iterable[Job],
    folder: Path,
    page: Path | None = None,
) -> dict[str, Any]:
    """Write <name>-results.json and <name>.md, and the tables into `page`; return the figures.

    Raises
    ------
    InputError
        `page` exists and has no place for the tables.
    """
    text = report_text(plan, results, jobs)
    plain = plain_results(plan, results)
    write_json(folder / f"{plan.name}-results.json", plain)
    write_text(folder / f"{plan.name}.md", new_page(plan, text))
    if page is not None:
        write_page(page, plan, text)
    return plain


# ---------------------------------------------------------------------- figures


def plain_results(plan: ExperimentPlan, results: Sequence[DrawResult]) -> dict[str, Any]:
    """Return all figures as JSON holds them; an undefined one is null."""
    values = {
        "format_version": FORMAT_VERSION,
        "plan": plan.model_dump(mode="json", exclude={"data": {"folder"}}),
        "baseline": plan.baseline,
        "draws": [
            {
                "draw": result.seed,
                "compared": result.summary is not None,
                "reason": result.reason,
                "arms": {name: asdict(outcome) for name, outcome in result.outcomes.items()},
            }
            for result in results
        ],
        "targets": {t: _plain(Figures(plan, results, t)) for t in targets_of(results)},
        "layout": plain_layout(plan, results),
        "notes": notes(plan, results),
    }
    plain: dict[str, Any] = without_nan(values)
    return plain


def _plain(figures: Figures) -> dict[str, Any]:
    means = [
        {
            "arm": arm,
            **_named(figure),
            "values": figures.values(arm, figure),
            "over_draws": _dict(figures.mean(arm, figure)),
        }
        for arm in figures.arms
        for figure in FIGURES
    ]
    differences = [
        {"arm": arm, "against": against, **_named(figure), "wins": figure.wins(draws)}
        | asdict(draws)
        for arm, against in figures.pairs
        for figure in FIGURES
        if (draws := figures.difference(arm, against, figure))
    ]
    return {
        "figures": means,
        "differences": differences,
        "matched_sensitivity": [asdict(figures.matched(*pair)) for pair in figures.pairs],
        "training_hours": {arm: _dict(figures.hours(arm)) for arm in figures.arms},
    }


def _named(figure: Figure) -> dict[str, str]:
    return {"group": figure.group, "metric": figure.name}


def _dict(draws: Draws | None) -> dict[str, Any] | None:
    return None if draws is None else asdict(draws)


# ---------------------------------------------------------------------- Markdown


def report_text(plan: ExperimentPlan, results: Sequence[DrawResult], jobs: Iterable[Job]) -> str:
    """Return the tables, the notes and what was measured with, in Markdown."""
    listed = "\n".join(f"- {line}" for line in notes(plan, results))
    parts = [*(table.markdown() for table in tables(plan, results)), listed, _measured_with(jobs)]
    return "\n\n".join(part for part in parts if part)


def _measured_with(jobs: Iterable[Job]) -> str:
    """Return the versions that the trainings ran with and the day of the last; may be empty."""
    trained = [(job.status(), job.spec.versions) for job in jobs if job.spec.task == "train"]
    done = [(s.ended, used) for s, used in trained if s.state is State.SUCCEEDED and s.ended]
    if not done:
        return ""
    ended, used = max(done, key=lambda one: one[0])
    named = (f"{name} {used.get(name, '?').partition('+')[0]}" for name in ("torch", "nnunetv2"))
    return f"Measured with {' and '.join(named)}, one thread a job, {ended:%Y-%m-%d}."


def marks(name: str) -> tuple[str, str]:
    """Return the lines around the tables of an experiment."""
    return f"<!-- backsplit experiment {name} -->", f"<!-- end of {name} -->"


def new_page(plan: ExperimentPlan, text: str) -> str:
    """Return a page of its own: title, what it is about, and the tables between marks."""
    about = f"{plan.about.strip()}\n\n" if plan.about.strip() else ""
    return f"# {plan.title}\n\n{about}{_marked(plan.name, text)}\n"


def write_page(file: Path, plan: ExperimentPlan, text: str) -> None:
    """Write the tables between the marks of a page and leave the rest; make a missing page.

    Raises
    ------
    InputError
        The file exists, and is no text that has each mark once, the first before the second.
    """
    if not file.exists():
        write_text(file, new_page(plan, text))
        return
    before, after = around_tables(file, plan.name)
    write_text(file, f"{before}{_marked(plan.name, text)}{after}")


def around_tables(file: Path, name: str) -> tuple[str, str]:
    """Return what stands before and after the tables in a page; nothing of a missing page.

    Raises
    ------
    InputError
        As for `write_page`.
    """
    try:
        text = file.read_text(encoding="utf-8") if file.exists() else "".join(marks(name))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read: {error}.", "Name a Markdown file.") from None
    begin, end = marks(name)
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found or text.count(begin) != 1 or text.count(end) != 1:
        raise InputError(
            f"{file} has no place for the tables of {name!r}.",
            f"Write {begin} and {end} where they belong, once each.",
        )
    return before, after


def _marked(name: str, text: str) -> str:
    begin, end = marks(name)
    return f"{begin}\n\n{text.strip()}\n\n{end}"
