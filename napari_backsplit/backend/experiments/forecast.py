"""What an experiment would still run: iterations, and hours and space where they are known."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

from napari_backsplit.backend.experiments.outcomes import FAILED, DrawResult, Outcome
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.runner import jobs_of, results_of
from napari_backsplit.backend.jobs import Job


@dataclass(frozen=True)
class PlannedRun:
    """A training of an experiment: its draw, arm, batches in all, and how it stands."""

    draw: int
    arm: str
    iterations: int
    outcome: Outcome


@dataclass(frozen=True)
class Forecast:
    """What an experiment would still run.

    Attributes
    ----------
    runs : tuple of PlannedRun
        All of them, those that are done too.
    to_do : int
        How many a call would still run.
    iterations : int
        Batches of the runs to do.
    hours : float
        Of training at the pace of the runs that are done, `at_once` side by side; not a number
        before the first is done.
    needed_gb, free_gb : float
        Disk space that the runs to do fill (not a number before the first is done), and what is
        free.
    """

    runs: tuple[PlannedRun, ...]
    to_do: int
    iterations: int
    hours: float
    needed_gb: float
    free_gb: float


def forecast(
    plan: ExperimentPlan, folder: Path, *, at_once: int = 2, retry: bool = False
) -> Forecast:
    """Return what `run_experiment` would still run; changes nothing."""
    runs = tuple(_runs(plan, results_of(plan, folder)))
    over = ("done",) if retry else ("done", *FAILED)
    to_do = [run for run in runs if run.outcome.state not in over]
    trained = [run for run in runs if isfinite(run.outcome.hours)]
    left = sum(run.iterations for run in to_do if not isfinite(run.outcome.hours))
    hours = needed_gb = nan
    if trained:
        pace = sum(run.outcome.hours for run in trained) / sum(run.iterations for run in trained)
        hours = left * pace / at_once
        needed_gb = len(to_do) * _size_gb(jobs_of(plan, folder)) / len(trained)
    place = folder.resolve()
    existing = next(path for path in (place, *place.parents) if path.exists())
    free_gb = shutil.disk_usage(existing).free / 1e9
    return Forecast(runs, len(to_do), left, hours, needed_gb, free_gb)


def _runs(plan: ExperimentPlan, results: Sequence[DrawResult]) -> list[PlannedRun]:
    specs = {arm.name: plan.spec(arm, 0) for arm in plan.arms}
    return [
        PlannedRun(result.seed, arm, specs[arm].epochs * specs[arm].iterations, outcome)
        for result in results
        for arm, outcome in result.outcomes.items()
    ]


def _size_gb(jobs: Mapping[str, Job]) -> float:
    """Return the size of the trainings and predictions."""
    folders = [job.folder for job in jobs.values() if job.spec.task in ("train", "predict")]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e9
