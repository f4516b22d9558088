"""What an experiment leaves in its folder: results.json and a Markdown page."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.page import new_page, write_page
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.table import notes, plain_results, tables
from napari_backsplit.backend.files import write_json, write_text
from napari_backsplit.backend.jobs import Job, State

RESULTS = "results.json"


def write_results(
    plan: ExperimentPlan,
    results: Sequence[DrawResult],
    jobs: Iterable[Job],
    folder: Path,
    page: Path | None = None,
) -> dict[str, Any]:
    """Write results.json and <name>.md, and the tables into `page`; return what results.json holds.

    Raises
    ------
    InputError
        `page` exists and has no place for the tables.
    """
    text = report_text(plan, results, jobs)
    plain = plain_results(plan, results)
    write_json(folder / RESULTS, plain)
    write_text(folder / f"{plan.name}.md", new_page(plan, text))
    if page is not None:
        write_page(page, plan, text)
    return plain


def report_text(plan: ExperimentPlan, results: Sequence[DrawResult], jobs: Iterable[Job]) -> str:
    """Return the tables, the notes and what was measured with, in Markdown."""
    listed = "\n".join(f"- {line}" for line in notes(plan, results))
    parts = [*(table.markdown() for table in tables(plan, results)), listed, measured_with(jobs)]
    return "\n\n".join(part for part in parts if part)


def measured_with(jobs: Iterable[Job]) -> str:
    """Return the versions that the trainings ran with and the day of the last; may be empty."""
    trained = [(job, job.status()) for job in jobs if job.spec.task == "train"]
    done = [(job, status.ended) for job, status in trained if status.state is State.SUCCEEDED]
    days = sorted(ended for _, ended in done if ended)
    if not days:
        return ""
    used = [_versions(job, name) for name in ("torch", "nnunetv2") for job, _ in done[-1:]]
    return f"Measured with {' and '.join(used)}, one thread a job, {days[-1]:%Y-%m-%d}."


def _versions(job: Job, package: str) -> str:
    return f"{package} {job.spec.versions.get(package, '?').partition('+')[0]}"
