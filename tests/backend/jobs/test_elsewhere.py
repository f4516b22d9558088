"""What the supervisor does with jobs of other machines; the scheduler here is made up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from job_support import listed, until

from napari_backsplit.backend.errors import BackSplitError, InputError, JobError
from napari_backsplit.backend.jobs import Job, State, elsewhere
from napari_backsplit.backend.jobs.elsewhere import MOST_TRIES, Elsewhere
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.supervisor import Supervisor

WHERE = "tcp://there:8786"


class Handle:
    def __init__(self) -> None:
        self.standing = "waiting"
        self.error: JobError | None = None
        self.closed = False

    def close(self) -> None:
        self.closed = True


class Scheduler:
    """Takes jobs, or answers with an error."""

    def __init__(self) -> None:
        self.problem: BackSplitError | None = None
        self.tries: list[str] = []
        self.delay: threading.Event | None = None
        self.handles: list[Handle] = []

    def run_on(self, where: str, folder: Path) -> Handle:
        assert where == WHERE
        self.tries.append(folder.name)
        if self.problem is not None:
            raise self.problem
        if self.delay is not None:
            self.delay.wait(10)
        self.handles.append(Handle())
        return self.handles[-1]


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


@pytest.fixture
def look(
    project: Path, scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], bool]:
    """Let the supervisor look once."""
    monkeypatch.setattr(elsewhere, "BACK_OFF_S", 0.001)
    (project / "jobs").mkdir()
    return Supervisor(project / "jobs", ("/no/such",), Elsewhere(scheduler.run_on)).look


@pytest.fixture
def job(project: Path) -> Job:
    return listed(project, "epochs", where=WHERE, device="cuda")


def put(job: Job, *states: State) -> None:
    files = JobFolder(job.folder)
    files.heartbeat_file.touch()
    for state in states:
        changes = {"worker": mark()} if state is State.RUNNING else {}
        files.write_record(files.read_record().moved(state, **changes))


def handed(scheduler: Scheduler, look: Callable[[], bool], times: int) -> None:
    """Look until the scheduler has taken a job so often."""
    until(lambda: look() and len(scheduler.handles) == times)


def test_all_that_can_run_is_handed_over_once(project, scheduler, look, job):
    """However many GPUs the scheduler has; which of its workers takes what is its business."""
    second = listed(project, "epochs", where=WHERE, device="cuda")
    last = listed(project, "epochs", where=WHERE, device="cuda", needs=[job.id, second.id])
    handed(scheduler, look, 2)
    time.sleep(0.05)  # Longer than the rest between two tries.
    for _ in range(5):
        assert look()
    assert sorted(scheduler.tries) == [job.id, second.id]
    for one in (job, second):
        put(one, State.RUNNING, State.SUCCEEDED)
    handed(scheduler, look, 3)
    assert scheduler.tries[2:] == [last.id]
    assert [handle.closed for handle in scheduler.handles] == [True, True, False]
    put(last, State.RUNNING, State.SUCCEEDED)
    assert not look()


def test_settings_that_do_not_fit_are_said_with_their_remedy(scheduler, look, job):
    scheduler.problem = InputError("cluster.json does not fit.", "Remove the file.")
    until(lambda: not look())
    assert job.status().message == "cluster.json does not fit. Remove the file."


def test_a_job_that_ends_while_it_is_handed_over_leaves_no_connection(scheduler, look, job):
    scheduler.delay = threading.Event()
    until(lambda: look() and scheduler.tries)
    job.cancel()
    for _ in range(3):
        look()
    scheduler.delay.set()
    until(lambda: scheduler.handles)
    until(lambda: look() or scheduler.handles[0].closed)
    assert scheduler.handles[0].closed


def test_a_cancelled_job_that_is_lost_there_stays_cancelled(scheduler, look, job):
    gone = mark().model_copy(update={"started": "before"})
    put(job, State.RUNNING)
    files = JobFolder(job.folder)
    files.write_record(files.read_record().model_copy(update={"worker": gone}))
    files.cancel_file.touch()
    until(lambda: not look())
    assert job.status().state is State.CANCELLED
    assert scheduler.tries == []


def test_a_scheduler_that_is_away_for_a_while(scheduler, look, job):
    scheduler.problem = JobError("No Dask scheduler answers.", "Check the address.")
    until(lambda: look() and len(scheduler.tries) >= 2)
    scheduler.problem = None
    handed(scheduler, look, 1)
    assert job.status().state is State.PENDING


def test_a_scheduler_that_stays_away(scheduler, look, job):
    scheduler.problem = JobError("No Dask scheduler answers.", "Check the address.")
    until(lambda: not look())
    status = job.status()
    assert status.state is State.FAILED
    assert status.message == "No Dask scheduler answers. Check the address."
    assert len(scheduler.tries) == MOST_TRIES


def test_a_scheduler_that_lost_the_job_is_asked_again(scheduler, look, job):
    handed(scheduler, look, 1)
    scheduler.handles[0].standing = "gone"
    handed(scheduler, look, 2)
    assert scheduler.handles[0].closed
    assert scheduler.tries == [job.id, job.id]


def test_a_job_that_the_scheduler_gave_up_has_failed(scheduler, look, job):
    handed(scheduler, look, 1)
    scheduler.handles[0].standing = "failed"
    scheduler.handles[0].error = JobError("The Dask worker was lost.", "See its log.")
    until(lambda: not look())
    assert job.status().message == "The Dask worker was lost. See its log."


def test_what_is_lost_there_is_resumed_there(scheduler, look, job):
    """The scheduler does that by itself: the supervisor opens no new attempt."""
    handed(scheduler, look, 1)
    gone = mark().model_copy(update={"started": "before"})
    put(job, State.RUNNING)
    files = JobFolder(job.folder)
    files.write_record(files.read_record().model_copy(update={"worker": gone}))
    for _ in range(3):
        assert look()
    assert (job.status().state, job.status().attempt) == (State.LOST, 1)
    assert scheduler.tries == [job.id]
