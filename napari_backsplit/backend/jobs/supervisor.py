"""Starts the queued jobs of a project: `python -m ...backend.jobs.supervisor PROJECT`.

One runs per project, detached from whoever asked for it. All it knows is in the project's files,
so it may be killed at any time: the next one goes on from there, and the jobs' workers, which
live in sessions of their own, do not notice. It ends when nothing is left that it could do.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from napari_backsplit.backend.errors import BackSplitError, JobError
from napari_backsplit.backend.files import write_text
from napari_backsplit.backend.jobs.elsewhere import Elsewhere
from napari_backsplit.backend.jobs.events import EventLog, Note
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.order import changing, read_order
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.queue import is_supervised, views
from napari_backsplit.backend.jobs.schedule import View, due, is_left
from napari_backsplit.backend.jobs.spec import State

LOOK_S = 0.3
TROUBLE_S = 5.0
PATIENCE_S = 3.0  # for the lock, while an earlier supervisor leaves
MOST_LOSSES = 5
BACK_OFF_S = 0.25  # doubled with each loss in a row
_LOG = logging.getLogger(__name__)


def main(project_folder: str | Path, command: Sequence[str] = ()) -> int:
    """Supervise a project's queue until nothing is left to do; 0, also where another does.

    Parameters
    ----------
    project_folder : str or Path
        The project.
    command : sequence of str
        The argv of the workers without the job folder; this package's own by default.
    """
    jobs = Path(project_folder).resolve() / "jobs"
    try:
        with FileLock(jobs / ".supervisor.lock", timeout=PATIENCE_S):
            _supervise(jobs, command)
    except Timeout:
        _LOG.info("Another supervisor runs.")
    return 0


def _supervise(jobs: Path, command: Sequence[str]) -> None:
    supervisor, left = Supervisor(jobs, command), True
    while left and jobs.is_dir():
        try:
            left = supervisor.look()
        except (BackSplitError, OSError) as error:  # A full disk, or one that is gone.
            _LOG.warning("%s", error)
            time.sleep(TROUBLE_S)
        time.sleep(LOOK_S * left)


class Supervisor:
    """Looks at a queue and does what is due.

    Parameters
    ----------
    jobs : Path
        The project's jobs folder.
    command : sequence of str
        The argv of the workers; empty for this package's own.
    elsewhere : Elsewhere, optional
        Follows the jobs of other machines.
    """

    def __init__(
        self, jobs: Path, command: Sequence[str] = (), elsewhere: Elsewhere | None = None
    ) -> None:
        self._folder = jobs
        self._command = tuple(command) or None
        self._jobs: dict[str, Job] = {}
        self._over: dict[str, tuple[tuple[int, int], View]] = {}
        self._resting: dict[tuple[str, int], float] = {}
        self._elsewhere = elsewhere or Elsewhere()

    def look(self) -> bool:
        """Look once, and start what is due; False when nothing is left to do."""
        self._show_oneself()
        views, order = self._views(), read_order(self._folder)
        self._elsewhere.look(self._jobs)
        self._end_cancelled(order, views)
        for job in due(order, views, self._still_resting(order, views)):
            if views[job].state is State.LOST and not self._jobs[job].spec.where:
                self._revive(self._jobs[job])
        return self._act()

    def _show_oneself(self) -> None:
        """Say who supervises, also where one that came in vain has said so of itself."""
        if not is_supervised(self._folder.parent):
            with suppress(OSError):
                write_text(self._folder / "supervisor.json", mark().model_dump_json())

    def _act(self) -> bool:
        """Start jobs and clear the order, under its lock: nobody takes a job out meanwhile."""
        with changing(self._folder) as order:
            views = self._views()
            order[:] = [job for job in order if job in views and not views[job].over]
            starts = due(order, views, self._still_resting(order, views))
            for job in starts:
                if self._jobs[job].spec.where:
                    self._elsewhere.hand_over(self._jobs[job])
                elif views[job].state is State.PENDING:
                    self._start(self._jobs[job])
            if is_left(order, self._views() if starts else views):
                return True
            # Whoever enqueues next sees no supervisor, and starts one.
            (self._folder / "supervisor.json").unlink(missing_ok=True)
            return False

    def _views(self) -> dict[str, View]:
        self._jobs = {path.name: self._jobs.get(path.name) or Job(path) for path in self._found()}
        seen = {name: self._view(job) for name, job in self._jobs.items()}
        return {job: self._elsewhere.seen(job, view) for job, view in seen.items()}

    def _found(self) -> list[Path]:
        """Return the jobs' folders, oldest first; one that is still being made is left out."""
        folders = (path for path in self._folder.iterdir() if path.name[0].isdecimal())
        return sorted(
            path for path in folders if path.name in self._jobs or (path / "job.json").exists()
        )

    def _view(self, job: Job) -> View:
        """Return how a job stands; of one that is over the files are read once."""
        version = JobFolder(job.folder).version()
        kept = self._over.get(job.id)
        if kept is not None and kept[0] == version:
            return kept[1]
        (view,) = views([job]).values()
        if view.over and version is not None:
            self._over[job.id] = version, view
        return view

    def _still_resting(self, order: Sequence[str], views: dict[str, View]) -> set[str]:
        lost = [job for job in order if job in views and views[job].state is State.LOST]
        resting = {job for job in order if self._elsewhere.rests(job)}
        return resting | {job for job in lost if self._rests(self._jobs[job])}

    def _rests(self, job: Job) -> bool:
        """Whether a lost job shall wait a moment, the longer the oftener it was lost in a row."""
        key = (job.id, job.status().attempt)
        if key not in self._resting:
            self._resting[key] = time.monotonic() + BACK_OFF_S * 2 ** job.losses()
        return time.monotonic() < self._resting[key]

    def _end_cancelled(self, order: Sequence[str], views: dict[str, View]) -> None:
        """End jobs that a person cancelled and whose workers were lost before they could."""
        for job in order:
            lost = job in views and views[job].state is State.LOST
            if lost and JobFolder(self._jobs[job].folder).cancel_file.exists():
                self._jobs[job].cancel()

    def _revive(self, job: Job) -> None:
        """Open a lost job anew, unless it was lost too often."""
        try:
            if job.losses() >= MOST_LOSSES:
                job.give_up(
                    f"The job's worker was lost {MOST_LOSSES} times in a row without getting any "
                    "further.",
                    "The job's log may say why; mend it, then resume the job.",
                    "killed",
                )
                return
            job.resume(start=False, keep_wishes=True)
            _note(job, "The job's worker was gone; it goes on where it had saved last.")
        except JobError as error:
            _LOG.warning("%s", error)
            self._resting[job.id, job.status().attempt] = time.monotonic() + TROUBLE_S

    def _start(self, job: Job) -> None:
        try:
            job.start(command=self._command)
        except (BackSplitError, OSError) as error:
            _LOG.warning("%s cannot start: %s", job.id, error)
            with suppress(JobError):
                job.give_up(f"The job cannot start: {error}", "Mend it, then resume the job.")


def _note(job: Job, text: str) -> None:
    with suppress(OSError):
        log = EventLog(JobFolder(job.folder).events_file)
        try:
            log.append(Note("warning", text))
        finally:
            log.close()


if __name__ == "__main__":
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.INFO)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
