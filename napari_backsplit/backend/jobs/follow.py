"""Follow a job from its first event to its end."""

from __future__ import annotations

import time
from collections.abc import Iterator

from napari_backsplit.backend.jobs.events import Event
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.queue import is_supervised
from napari_backsplit.backend.jobs.spec import JobStatus, State


def follow(job: Job, *, since: int = 0, poll_s: float = 0.2) -> Iterator[Event | JobStatus]:
    """Yield a job's events and each change of its state, until it is over or lost.

    A queued job that is lost is followed on: its project's supervisor resumes it.

    Parameters
    ----------
    job : Job
        The job to follow.
    since : int
        Position of the first event, from `Job.events`.
    poll_s : float
        Seconds between two looks.

    Yields
    ------
    Event or JobStatus
        The last value is the status in which the job ended; all events come before it.
    """
    seen: State | None = None
    while True:
        status = job.status()
        events, since = job.events(since)
        over = (status.final or status.state is State.LOST) and not _is_resumed(job, status)
        if status.state is not seen and not over:
            yield status
        seen = status.state
        yield from events
        if over:
            yield status
            return
        time.sleep(poll_s)


def _is_resumed(job: Job, status: JobStatus) -> bool:
    stands = status.state is State.LOST or job.interrupted
    return stands and job.queued and is_supervised(job.folder.parent.parent)
