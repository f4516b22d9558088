"""Several jobs that need one another: what is done is skipped, what broke off is resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.queue import list_jobs, submit
from napari_backsplit.backend.jobs.spec import JobStatus, State

Results = Mapping[str, dict[str, Any]]


@dataclass(frozen=True)
class Step:
    """A job of a batch.

    Attributes
    ----------
    name : str
        Unique in the batch; later steps name it in `needs`.
    task : str
        A name of the task registry.
    params : callable
        From the results of the steps in `needs` to the job's parameters.
    needs : tuple of str
        Steps that must have succeeded.
    """

    name: str
    task: str
    params: Callable[[Results], dict[str, Any]]
    needs: tuple[str, ...] = ()


def run_batch(
    project_folder: Path,
    steps: Sequence[Step],
    *,
    at_once: int = 1,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
    tell: Callable[[str, JobStatus], None] = lambda name, status: None,
    poll_s: float = 0.2,
) -> dict[str, dict[str, Any]]:
    """Run steps in their order, `at_once` side by side, and return each one's result.

    A step whose job (same task, same parameters) has succeeded in this project is not run again;
    one that failed, was cancelled or got lost is resumed. So a batch that was broken off goes on.

    Parameters
    ----------
    env, command
        As for `submit`.
    tell : callable
        Called with a step's name and status when it starts and when it ends.

    Raises
    ------
    JobError
        A step did not succeed; the others that run are left to end.
    """
    waiting, running = list(steps), dict[str, Job]()
    results: dict[str, dict[str, Any]] = {}
    while waiting or running:
        for step in list(_ready(waiting, results)):
            if len(running) >= at_once:
                break
            waiting.remove(step)
            params = step.params(results)
            running[step.name] = _begin(project_folder, step, params, env=env, command=command)
            tell(step.name, running[step.name].status())
        for name, status in _ended(running):
            del running[name]
            tell(name, status)
            results[name] = _result(name, status)
        time.sleep(poll_s)
    return results


def _ready(steps: Sequence[Step], results: Results) -> Iterator[Step]:
    return (step for step in steps if all(need in results for need in step.needs))


def _begin(project_folder: Path, step: Step, params: dict[str, Any], **how: Any) -> Job:
    for job in list_jobs(project_folder):
        if job.spec.task == step.task and job.spec.params == params:
            status = job.status()
            if status.resumable:
                job.resume(**how)
            elif status.state is State.PENDING and not job.launched:
                job.start(**how)
            return job
    return submit(project_folder, step.task, params, step.name, **how)


def _ended(running: Mapping[str, Job]) -> list[tuple[str, JobStatus]]:
    statuses = [(name, job.status()) for name, job in running.items()]
    return [(name, s) for name, s in statuses if s.final or s.state is State.LOST]


def _result(name: str, status: JobStatus) -> dict[str, Any]:
    if status.state is not State.SUCCEEDED:
        raise JobError(
            f"{name} ended as {status.state}: {status.error or 'its worker is gone'}.",
            "Mend the cause and run it again: what is done is kept.",
        )
    return status.result or {}
