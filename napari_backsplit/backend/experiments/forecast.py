"""What an experiment would still run: iterations, and hours and space where they are known."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

from napari_backsplit.backend.experiments.draws import Draw, draws_of
from napari_backsplit.backend.experiments.outcomes import DrawResult, Outcome
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.jobs import Job

OVER = ("done", "failed", "diverged", "not run")


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
    plan: ExperimentPlan,
    folder: Path,
    results: Sequence[DrawResult],
    jobs: Mapping[str, Job],
    *,
    at_once: int = 2,
    retry: bool = False,
) -> Forecast:
    """Return what an experiment would still run; changes nothing.

    Parameters
    ----------
    results, jobs
        From `results_of` and `jobs_of`.
    at_once, retry
        As for `run_experiment`.
    """
    runs = tuple(_runs(plan, results))
    over = ("done",) if retry else OVER
    to_do = [run for run in runs if run.outcome.state not in over]
    trained = [run for run in runs if isfinite(run.outcome.hours)]
    left = sum(run.iterations for run in to_do if not isfinite(run.outcome.hours))
    hours, batches = (sum(values) for values in _columns(trained))
    size_gb = sum(_size_gb(plan, draw, jobs) for draw in draws_of(plan, folder.resolve()))
    return Forecast(
        runs,
        len(to_do),
        left,
        left * hours / batches / at_once if trained else nan,
        len(to_do) * size_gb / len(trained) if trained else nan,
        shutil.disk_usage(_existing(folder.resolve())).free / 1e9,
    )


def _runs(plan: ExperimentPlan, results: Sequence[DrawResult]) -> list[PlannedRun]:
    specs = {arm.name: plan.spec(arm, 0) for arm in plan.arms}
    return [
        PlannedRun(result.seed, arm, specs[arm].epochs * specs[arm].iterations, outcome)
        for result in results
        for arm, outcome in result.outcomes.items()
    ]


def _columns(runs: Sequence[PlannedRun]) -> tuple[list[float], list[int]]:
    return [run.outcome.hours for run in runs], [run.iterations for run in runs]


def _size_gb(plan: ExperimentPlan, draw: Draw, jobs: Mapping[str, Job]) -> float:
    """Return the size of a draw's trainings and predictions."""
    names = [name for arm in plan.arms for name in (arm.name, f"predict {arm.name}")]
    folders = [jobs[draw.step(n)].folder for n in names if draw.step(n) in jobs]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e9


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
