"""Runs an experiment: the jobs of all draws side by side, what is done skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.experiments.clicked import adopt_clicked, click_steps, step_name
from napari_backsplit.backend.experiments.draw_results import draw_result
from napari_backsplit.backend.experiments.draws import (
    Draw,
    draws_of,
    facts_of,
    make_project,
    require_same_data,
)
from napari_backsplit.backend.experiments.masks import measure_sources
from napari_backsplit.backend.experiments.outcomes import DrawResult
from napari_backsplit.backend.experiments.plan import ExperimentPlan
from napari_backsplit.backend.jobs import Job, JobStatus, State
from napari_backsplit.backend.jobs.batch import Results, Step, Tell, look_up, run_batch
from napari_backsplit.backend.project import Project
from napari_backsplit.backend.study import study_steps

ENV = {"OMP_NUM_THREADS": "1"}


def steps_of(plan: ExperimentPlan, draws: Sequence[Draw]) -> list[Step]:
    """Return the jobs of all draws, draw after draw."""
    return [_placed(step, draw) for draw in draws for step in _steps(plan, draw)]


def _steps(plan: ExperimentPlan, draw: Draw) -> list[Step]:
    facts = facts_of(plan, draw)
    arms = plan.study_arms(draw.seed, facts.supports)
    comparison = {**plan.comparison, "controls": list(plan.controls)}
    studied = study_steps(plan.plan, arms, plan.prediction, comparison, facts.folds) if arms else []
    return [*click_steps(plan, draw, facts), *studied]


def _placed(step: Step, draw: Draw) -> Step:
    """Return a step of a study as one of a draw: named after it, in its project."""
    prefix = draw.step("")

    def params(done: Results) -> dict[str, Any]:
        own = {n.removeprefix(prefix): r for n, r in done.items() if n.startswith(prefix)}
        return step.params(own)

    return replace(
        step,
        name=draw.step(step.name),
        needs=tuple(map(draw.step, step.needs)),
        wants=tuple(map(draw.step, step.wants)),
        params=params,
        folder=draw.project,
    )


def run_experiment(
    plan: ExperimentPlan,
    folder: Path,
    *,
    source: Path | None = None,
    at_once: int = 2,
    retry: bool = False,
    tell: Tell = lambda name, status: None,
    say: Callable[[str], None] = lambda text: None,
    **how: Any,
) -> list[DrawResult]:
    """Run what is missing of an experiment, and return what became of each draw.

    A run that fails ends only what needs it, and is not run again unless `retry` is asked; one
    that was cancelled, lost or never started goes on.

    Parameters
    ----------
    plan : ExperimentPlan
    folder : Path
        Where the projects of its draws are kept; made if missing.
    source : Path, optional
        Folder with `images/` and `labels/` of a plan on label maps; by default the plan's own
        in $BACKSPLIT_TEST_DATA.
    at_once : int
        Jobs side by side, one thread each.
    tell, say : callable
        Called with a step's name and status as it starts and ends; with a line for a person.
    **how
        Further arguments of `run_batch`.

    Raises
    ------
    InputError
        The folder holds other data or another process runs an experiment there, the data is
        missing, or a project lacks a support or a test set.
    """
    folder = folder.resolve()
    draws = draws_of(plan, folder)
    with _alone(folder):
        require_same_data(plan, folder)
        for draw in draws:
            make_project(plan, draw, source, say)
        steps = steps_of(plan, draws)
        run_batch(
            folder,
            steps,
            **{"at_once": at_once, "keep_going": True, "retry": retry, "env": ENV, **how},
            tell=_telling(plan, draws, folder, tell),
        )
        for draw in draws if plan.quality else ():
            measure_sources(draw.quality_file(folder), draw.project, plan.quality)
    return results_of(plan, folder)


def _telling(plan: ExperimentPlan, draws: Sequence[Draw], folder: Path, tell: Tell) -> Tell:
    """Tell, and take what was clicked into a draw's project before anything learns it."""
    clicks = {draw.step(step_name(count)): draw for draw in draws for count in plan.clicks}

    def told(name: str, status: JobStatus) -> None:
        if name in clicks and status.state is State.SUCCEEDED:
            job = jobs_of(plan, folder)[name]
            with Project.open(clicks[name].project) as project:
                adopt_clicked(project, job)
        tell(name, status)

    return told


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise InputError(
            f"An experiment runs in {folder} already.", "Wait for it, or choose another folder."
        ) from None


def jobs_of(plan: ExperimentPlan, folder: Path) -> dict[str, Job]:
    """Return the jobs that an experiment has had, by the names of its steps."""
    return look_up(folder, steps_of(plan, draws_of(plan, folder.resolve())))


def results_of(plan: ExperimentPlan, folder: Path) -> list[DrawResult]:
    """Return how each draw stands; runs nothing and writes nothing."""
    jobs = jobs_of(plan, folder)
    return [draw_result(plan, draw, jobs, folder) for draw in draws_of(plan, folder.resolve())]
