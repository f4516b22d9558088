"""The jobs of a queue that run on other machines, as the supervisor follows them."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from napari_backsplit.backend.errors import BackSplitError, JobError
from napari_backsplit.backend.jobs.cluster import SchedulerAway
from napari_backsplit.backend.jobs.events import EventLog, Note
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.schedule import View
from napari_backsplit.backend.jobs.spec import State

if TYPE_CHECKING:
    from napari_backsplit.backend.jobs.cluster import Handle

MOST_TRIES = 6
BACK_OFF_S = 1.0  # doubled with each try in vain
_LOG = logging.getLogger(__name__)

RunOn = Callable[[str, Path], "Handle"]


def _run_on(where: str, folder: Path) -> Handle:
    from napari_backsplit.backend.jobs.cluster import run_on

    return run_on(where, folder)


@dataclass
class _Handed:
    """A job on its way to a scheduler, or there."""

    thread: threading.Thread | None = None
    handle: Handle | None = None
    error: BackSplitError | None = None
    tries: int = 0
    rests_until: float = 0.0

    @property
    def coming(self) -> bool:
        """Whether it is being handed over just now."""
        return self.thread is not None and self.thread.is_alive()


class Elsewhere:
    """Hands jobs to schedulers and remembers which of them have what.

    A scheduler resumes by itself what one of its workers loses. Handing over takes seconds where
    none answers, so each is done in a thread; one that fails is tried again a few times.

    Parameters
    ----------
    run_on : callable, optional
        Hands a job's folder to the scheduler at an address.
    """

    def __init__(self, run_on: RunOn = _run_on) -> None:
        self._run_on = run_on
        self._handed: dict[str, _Handed] = {}

    def seen(self, job: str, view: View) -> View:
        """Return a job as the queue shall see it: what a scheduler has occupies its place."""
        waiting = view.state in (State.PENDING, State.LOST) and self._has(job)
        return View(State.PENDING, view.needs, view.place, launched=True) if waiting else view

    def rests(self, job: str) -> bool:
        """Whether a job that could not be handed over is not tried again yet."""
        handed = self._handed.get(job)
        return handed is not None and time.monotonic() < handed.rests_until

    def hand_over(self, job: Job) -> None:
        """Hand a job to its scheduler, in a thread."""
        handed = self._handed.setdefault(job.id, _Handed())
        if handed.coming:
            return
        _close(handed)
        handed.tries += 1
        handed.rests_until = time.monotonic() + BACK_OFF_S * 2**handed.tries
        handed.thread = threading.Thread(target=self._do, args=(job, handed), daemon=True)
        handed.thread.start()

    def look(self, jobs: Mapping[str, Job]) -> None:
        """Let go of jobs that are over, and let those have failed that no scheduler brings on."""
        for name, handed in list(self._handed.items()):
            job = jobs.get(name)
            if handed.coming:
                continue
            with suppress(JobError):
                if job is None or job.status().final:
                    _close(self._handed.pop(name))
                elif job.status().state is State.RUNNING:
                    handed.tries = 0
                elif error := _hopeless(handed):
                    job.give_up(error.problem, error.remedy)

    def _has(self, job: str) -> bool:
        handed = self._handed.get(job)
        if handed is None:
            return False
        return handed.coming or (handed.handle is not None and handed.handle.standing == "waiting")

    def _do(self, job: Job, handed: _Handed) -> None:
        try:
            handed.handle = self._run_on(job.spec.where, job.folder)
            handed.error = None
        except BackSplitError as error:
            _LOG.warning("%s: %s", job.id, error)
            if isinstance(error, SchedulerAway):
                _await_return(job, handed, error)
            handed.error = error
        except Exception as error:
            _LOG.exception("%s cannot be handed over", job.id)
            handed.error = JobError(f"{job.id} cannot be handed over: {type(error).__name__}.")


def _await_return(job: Job, handed: _Handed, error: SchedulerAway) -> None:
    """Keep a job whose scheduler is away, however long; say why once."""
    handed.tries = min(handed.tries, MOST_TRIES - 2)
    if handed.error is None:
        with suppress(OSError):
            log = EventLog(JobFolder(job.folder).events_file)
            log.append(Note("warning", str(error)))
            log.close()


def _hopeless(handed: _Handed) -> BackSplitError | None:
    """Return why a job will not run: its scheduler gave it up, or never took it."""
    if handed.handle is not None and handed.handle.error is not None:
        return handed.handle.error
    if handed.tries < MOST_TRIES or time.monotonic() < handed.rests_until:
        return None
    if handed.handle is not None and handed.handle.standing == "waiting":
        return None
    gone = JobError("The scheduler takes the job and does not run it.", "See its log.")
    return handed.error or gone


def _close(handed: _Handed) -> None:
    if handed.handle is not None:
        handed.handle.close()
        handed.handle = None
