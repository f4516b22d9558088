"""Several jobs that need one another: what is done is skipped, what broke off is resumed."""

from __future__ import annotations

import operator
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.queue import list_jobs, submit
from napari_backsplit.backend.jobs.spec import JobStatus, State

Params = Mapping[str, Any]
Results = Mapping[str, dict[str, Any]]
Tell = Callable[[str, JobStatus], None]


@dataclass(frozen=True)
class Step:
    """A job of a batch.

    Attributes
    ----------
    name : str
        Unique in the batch; later steps name it in `needs` and `wants`.
    task : str
        A name of the task registry.
    params : callable
        From the results of the steps that succeeded to the job's parameters.
    needs : tuple of str
        Steps that must have succeeded.
    wants : tuple of str
        Steps that must be over, well or not.
    least : int
        How many of `wants` must have succeeded.
    folder : Path, optional
        The job's project folder; None: the batch's.
    same : callable
        Whether an old job's parameters and the step's mean the same; equality by default.
    """

    name: str
    task: str
    params: Callable[[Results], dict[str, Any]]
    needs: tuple[str, ...] = ()
    wants: tuple[str, ...] = ()
    least: int = 0
    folder: Path | None = None
    same: Callable[[Params, Params], bool] = operator.eq

    def able(self, results: Results) -> bool:
        """Whether enough steps have succeeded for this one to run."""
        succeeded = sum(want in results for want in self.wants)
        return all(need in results for need in self.needs) and succeeded >= self.least


def run_batch(
    project_folder: Path,
    steps: Sequence[Step],
    *,
    at_once: int = 1,
    keep_going: bool = False,
    retry: bool = True,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    tell: Tell = lambda name, status: None,
    poll_s: float = 0.2,
) -> dict[str, dict[str, Any]]:
    """Run steps in their order, `at_once` side by side, and return the results of those that can.

    A step whose job (same task, same parameters) has succeeded in its project is not run again;
    one that was cancelled or got lost is resumed. So a batch that was broken off goes on.

    Parameters
    ----------
    steps : sequence of Step
        Each after those it needs.
    keep_going : bool
        A step that fails ends only those that need it, not the batch.
    retry : bool
        Resume jobs that failed; otherwise they count as failed again.
    env, command
        As for `submit`.
    tell : callable
        Called with a step's name and status when it starts and when it ends.

    Raises
    ------
    JobError
        A step did not succeed and `keep_going` is False; the others that run are left to end.
    """
    batch = _Batch(project_folder, list(steps), retry, {"env": env, "command": command}, tell)
    while batch.waiting or batch.running:
        batch.start(at_once)
        ended = batch.collect()
        if ended and not keep_going:
            _require_success(ended)
        if not ended:
            time.sleep(poll_s)
    return batch.results


def look_up(project_folder: Path, steps: Sequence[Step]) -> dict[str, Job]:
    """Return the jobs that steps have had, by the steps' names; starts none.

    Parameters
    ----------
    steps : sequence of Step
        Each after those it needs.
    """
    results: dict[str, dict[str, Any]] = {}
    jobs: dict[str, Job] = {}
    for step in steps:
        folder = step.folder or project_folder
        job = _find(folder, step, step.params(results)) if step.able(results) else None
        if job:
            jobs[step.name] = job
            status = job.status()
            if status.state is State.SUCCEEDED:
                results[step.name] = status.result or {}
    return jobs


@dataclass
class _Batch:
    folder: Path
    waiting: list[Step]
    retry: bool
    how: dict[str, Any]
    tell: Tell
    running: dict[str, Job] = field(default_factory=dict)
    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)

    def start(self, at_once: int) -> None:
        """Begin steps whose time has come while there is room; drop those that never can."""
        for step in list(self.waiting):
            if len(self.running) >= at_once:
                break
            if not self.over.issuperset((*step.needs, *step.wants)):
                continue
            self.waiting.remove(step)
            if step.able(self.results):
                self._begin(step)
            else:
                self.over.add(step.name)

    def _begin(self, step: Step) -> None:
        folder, params = step.folder or self.folder, step.params(self.results)
        job = _find(folder, step, params)
        if job is None:
            job = submit(folder, step.task, params, step.name, **self.how)
        else:
            self._go_on(job)
        self.running[step.name] = job
        status = job.status()
        if not status.final:
            self.tell(step.name, status)

    def _go_on(self, job: Job) -> None:
        status = job.status()
        if status.resumable and (self.retry or status.state is not State.FAILED):
            job.resume(**self.how)
        elif status.state is State.PENDING and not job.launched:
            job.start(**self.how)

    def collect(self) -> dict[str, JobStatus]:
        """Take the jobs that ended, and keep the results of those that succeeded."""
        statuses = {name: job.status() for name, job in self.running.items()}
        ended = {n: s for n, s in statuses.items() if s.final or s.state is State.LOST}
        for name, status in ended.items():
            del self.running[name]
            self.over.add(name)
            self.tell(name, status)
            if status.state is State.SUCCEEDED:
                self.results[name] = status.result or {}
        return ended


def _find(folder: Path, step: Step, params: dict[str, Any]) -> Job | None:
    """Return the job of a step: same task, and parameters that mean the same."""
    jobs = (job for job in list_jobs(folder) if job.spec.task == step.task)
    return next((job for job in jobs if step.same(job.spec.params, params)), None)


def _require_success(ended: Mapping[str, JobStatus]) -> None:
    for name, status in ended.items():
        if status.state is not State.SUCCEEDED:
            why = (status.error or "its worker is gone").rstrip(".")
            raise JobError(
                f"{name} ended as {status.state}: {why}.",
                "Mend the cause and run it again: what is done is kept.",
            )
