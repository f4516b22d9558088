"""What an experiment would still run: iterations, space, and hours where a pace is known."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, nan
from pathlib import Path

from napari_backsplit.backend.experiments.draws import draws_of
from napari_backsplit.backend.experiments.footprint import footprint_gb
from napari_backsplit.backend.experiments.outcomes import FAILED, DrawResult, Outcome
from napari_backsplit.backend.experiments.pace import as_trained, kind_of, measured_paces
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.experiments.runner import jobs_of, results_of
from napari_backsplit.backend.jobs import Job
from napari_backsplit.backend.training.spec import RunSpec


@dataclass(frozen=True)
class PlannedRun:
    """A training of an experiment: its draw, arm, batches in all its folds, and how it stands."""

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
        Of training, `at_once` side by side, at the pace of earlier trainings of each kind in the
        same projects, or of a probe; not a number where there is none of either.
    needed_gb, free_gb : float
        Disk space that the runs to do fill, as those that are done or by arithmetic; and what is
        free.
    measured : bool
        Whether the space is measured.
    unknown : int
        Runs whose pace is not known, and which the hours leave out.
    """

    runs: tuple[PlannedRun, ...]
    to_do: int
    iterations: int
    hours: float
    needed_gb: float
    free_gb: float
    measured: bool = False
    unknown: int = 0


def forecast(
    plan: ExperimentPlan, folder: Path, *, at_once: int = 2, retry: bool = False
) -> Forecast:
    """Return what `run_experiment` would still run; changes nothing."""
    draws = draws_of(plan, folder.resolve())
    specs = {arm.name: as_trained(arm, plan.plan) for arm in plan.study_arms(0)}
    runs = tuple(_runs(plan, specs, results_of(plan, folder)))
    over = ("done",) if retry else ("done", *FAILED)
    to_do = [run for run in runs if run.outcome.state not in over]
    left = [run for run in to_do if not isfinite(run.outcome.hours)]
    done = sum(isfinite(run.outcome.hours) for run in runs)
    paces = measured_paces(draws, [specs[run.arm] for run in left])
    pace = {run: paces.get(kind_of(specs[run.arm])) for run in left}
    hours = [run.iterations * one for run, one in pace.items() if one is not None]
    whole = _size_gb(jobs_of(plan, folder)) / done if done else footprint_gb(plan, draws)
    place = folder.resolve()
    existing = next(path for path in (place, *place.parents) if path.exists())
    return Forecast(
        runs,
        len(to_do),
        sum(run.iterations for run in left),
        sum(hours) / at_once if hours or not left else nan,
        len(to_do) * whole / (1 if done else max(1, len(runs))),
        shutil.disk_usage(existing).free / 1e9,
        bool(done),
        len(left) - len(hours),
    )


def _runs(
    plan: ExperimentPlan, specs: Mapping[str, RunSpec], results: Sequence[DrawResult]
) -> list[PlannedRun]:
    folds = max(1, len(plan.folds))
    return [
        PlannedRun(result.seed, arm, folds * specs[arm].epochs * specs[arm].iterations, outcome)
        for result in results
        for arm, outcome in result.outcomes.items()
    ]


def _size_gb(jobs: Mapping[str, Job]) -> float:
    """Return the size of the trainings and predictions."""
    folders = [job.folder for job in jobs.values() if job.spec.task in ("train", "predict")]
    files = (file for folder in folders for file in folder.rglob("*") if file.is_file())
    return sum(file.stat().st_size for file in files) / 1e9
