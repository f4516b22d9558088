"""What a draw's jobs left: the comparison, the networks' sizes, and what was clicked."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.clicked import click_quality, step_name
from napari_backsplit.backend.experiments.draws import Draw, facts_of
from napari_backsplit.backend.experiments.masks import read_quality
from napari_backsplit.backend.experiments.outcomes import DrawResult, line, outcomes_of, why_not
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.files import read_json
from napari_backsplit.backend.jobs import Job, State
from napari_backsplit.backend.study import parts_of


def draw_result(
    plan: ExperimentPlan, draw: Draw, jobs: Mapping[str, Job], folder: Path
) -> DrawResult:
    """Return how a draw stands, from the jobs that its steps have had."""
    statuses = {name: job.status() for name, job in jobs.items()}
    outcomes = outcomes_of(plan, draw, statuses)
    found: dict[str, Any] = {
        "parameters": _parameters(plan, draw, jobs),
        "quality": {
            step_name(count): click_quality(jobs.get(draw.step(step_name(count))))
            for count in plan.clicks
        }
        | (read_quality(draw.quality_file(folder)) if plan.quality else {}),
    }
    compared = statuses.get(draw.step("compare"))
    if compared is None or compared.state is not State.SUCCEEDED:
        reason = why_not(plan, outcomes, compared)
        return DrawResult(draw.seed, outcomes, reason=reason, **found)
    report = draw.project / str((compared.result or {})["report"])
    try:
        summary = read_json(report.with_name("summary.json"))
    except InputError as error:
        return DrawResult(draw.seed, outcomes, reason=line(error.problem), **found)
    found["cases"] = _rows(report.with_name("cases.csv"))
    folds = facts_of(plan, draw).folds
    found["fold_of"] = {case: fold for fold, cases in folds.items() for case in cases}
    return DrawResult(draw.seed, outcomes, summary, **found)


def _rows(file: Path) -> list[dict[str, str]]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as opened:
        return list(csv.DictReader(opened))


def _parameters(plan: ExperimentPlan, draw: Draw, jobs: Mapping[str, Job]) -> dict[str, int]:
    """Return the parameters of the arms' networks, as their models' cards have them."""
    found = {}
    for arm in plan.arms:
        for part in parts_of(arm.name, plan.folds):
            job = jobs.get(draw.step(part.train))
            file = job.folder / "model" / "dataset.json" if job else None
            card = read_json(file).get("backsplit", {}) if file and file.exists() else {}
            count = (card.get("trained") or {}).get("parameters")
            if count:
                found[arm.name] = int(count)
    return found
