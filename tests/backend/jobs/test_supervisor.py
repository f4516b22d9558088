"""The supervisor as a real process, with real workers, and what they survive."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
from job_support import (
    COMMAND,
    ENV,
    HOW,
    epochs_of,
    listed,
    lives,
    reaches,
    rests,
    started,
    succeeds,
    supervisor_of,
    until,
    works,
)

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import (
    Job,
    Note,
    State,
    chains,
    ensure_supervisor,
    follow,
    list_jobs,
    queued,
    repeat,
    supervisor,
)
from napari_backsplit.backend.jobs.supervisor import Supervisor


def test_a_queue_runs_in_its_order_one_a_device(project, queue):
    a = queue("epochs", {"epochs": 3, "epoch_s": 0.3})
    b = queue("epochs", {"epochs": 2})
    gpu = queue("epochs", {"epochs": 3}, device="cuda")
    last = queue("epochs", {"epochs": 2}, needs=[gpu.id], device="cuda:0")
    for job in (a, b, gpu, last):
        succeeds(job)
    order = started(project)
    assert sorted(order) == sorted(job.id for job in (a, b, gpu, last))
    assert order.index(a.id) < order.index(b.id)
    assert order.index(gpu.id) < order.index(last.id)
    assert gpu.status().started < a.status().ended  # Side by side.
    assert not (project / "clash").exists()
    until(lambda: queued(project) == [])
    rests(project)


def test_a_job_started_directly_is_waited_for(project, run, queue):
    direct = run("loop")
    works(direct)
    job = queue("epochs", {"epochs": 1})
    (chain,) = [c for c in chains(project) if c.name == job.id]
    until(lambda: supervisor_of(project))
    assert chain.status().message == f"waits for cpu, after {direct.id}"
    direct.cancel()
    succeeds(job)
    assert job.status().started >= direct.status().ended


def test_a_failed_link_holds_the_chain_until_it_is_mended(project, queue):
    first = queue("mendable", title="Try: first")
    second = queue("epochs", {"epochs": 1}, needs=[first.id], chain=first.id)
    (chain,) = chains(project)
    until(lambda: first.status().state is State.FAILED)
    rests(project)
    assert queued(project) == [second.id]
    assert second.status().state is State.PENDING
    assert chain.status()[:3] == (State.FAILED, 0, 2)
    assert chain.status().message == "Something is broken. Mend it."
    ensure_supervisor(project, **HOW)
    assert supervisor_of(project) is None  # There is nothing that it could do.
    (project / "mended").touch()
    chain.go_on(**HOW)
    succeeds(second)
    assert first.status().attempt == 2
    assert chain.status().state is State.SUCCEEDED


def test_a_chain_is_cancelled_and_goes_on(project, queue):
    first = queue("epochs", {"epochs": 100, "epoch_s": 0.02})
    second = queue("epochs", {"epochs": 1}, needs=[first.id], chain=first.id)
    (chain,) = chains(project)
    works(first)
    chain.cancel()
    reaches(first, State.CANCELLED)
    rests(project)
    assert (second.status().state, queued(project)) == (State.PENDING, [])
    chain.go_on(**HOW)
    succeeds(second)
    assert sorted(set(epochs_of(first))) == list(range(100))
    assert len(epochs_of(first)) == 100  # Nothing done is done again.


def test_a_failed_link_repeated_with_changes(project, queue):
    first = queue("mendable")
    queue("epochs", {"epochs": 1, "of": f"jobs/{first.id}"}, needs=[first.id], chain=first.id)
    reaches(first, State.FAILED)
    (project / "mended").touch()
    again = repeat(first, {"lr": 0.1}, **HOW)
    succeeds(list_jobs(project)[-1])
    assert again.status().state is State.SUCCEEDED
    assert list_jobs(project)[-1].spec.params["of"] == f"jobs/{again.id}"
    assert started(project) == [list_jobs(project)[-1].id]


def test_the_workers_outlive_the_supervisor_and_the_next_goes_on(project, queue):
    first = queue("epochs", {"epochs": 15, "epoch_s": 0.1})
    second = queue("epochs", {"epochs": 2}, needs=[first.id])
    works(first)
    pid, worker = supervisor_of(project), first.status().pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(pid))
    assert lives(worker)
    assert first.status().state is State.RUNNING
    for _ in range(5):
        ensure_supervisor(project, **HOW)
    assert supervisor_of(project) not in (None, pid)
    succeeds(second)
    assert first.status().attempt == 1
    assert started(project) == [first.id, second.id]


def test_a_killed_worker_is_resumed_from_its_checkpoint(project, queue):
    """Who follows the job sees it through the loss."""
    job = queue("epochs", {"epochs": 30, "epoch_s": 0.05})
    killed = False
    everything = []
    for seen in follow(job, poll_s=0.05):
        everything.append(seen)
        if not killed and job.status().state is State.RUNNING and job.events()[0]:
            os.kill(job.status().pid, signal.SIGKILL)
            killed = True
    assert killed
    assert (everything[-1].state, everything[-1].attempt) == (State.SUCCEEDED, 2)
    assert [a.state for a in job.status().attempts] == [State.LOST]
    assert len(epochs_of(job)) <= 31
    notes = [e.text for e in everything if isinstance(e, Note)]
    assert notes == ["The job's worker was gone; it goes on where it had saved last."]
    rests(project)


def test_a_machine_that_shuts_down_cancels_nothing(project, queue):
    """Its workers get SIGTERM; a person who cancels is heeded."""
    job = queue("epochs", {"epochs": 20, "epoch_s": 0.05})
    works(job)
    worker = job.status().pid
    os.kill(supervisor_of(project), signal.SIGTERM)
    os.kill(worker, signal.SIGTERM)
    until(lambda: not lives(worker) and supervisor_of(project) is None)
    assert "stopped by signal 15" in job.status().error
    ensure_supervisor(project, **HOW)
    succeeds(job)
    assert len(epochs_of(job)) <= 21


def test_a_paused_job_is_paused_after_a_loss_too(project, queue):
    job = queue("epochs", {"epochs": 20, "epoch_s": 0.05})
    works(job)
    job.pause()
    reaches(job, State.PAUSED)
    os.kill(job.status().pid, signal.SIGKILL)
    until(lambda: job.status().attempt == 2 and job.status().state is State.PAUSED)
    job.unpause()
    succeeds(job)


def test_a_person_s_wish_to_end_outlives_the_worker(project, queue):
    """Whether its worker was lost before it could end, or had been stopped by a signal."""
    lost, stopped = queue("deaf", device="cuda"), queue("loop")
    reaches(lost, State.RUNNING)
    works(stopped)
    os.kill(supervisor_of(project), signal.SIGKILL)
    lost.cancel(60)
    os.kill(lost.status().pid, signal.SIGKILL)
    os.kill(stopped.status().pid, signal.SIGTERM)
    until(lambda: lost.status().state is State.LOST and stopped.status().final)
    stopped.cancel()
    ensure_supervisor(project, **HOW)
    rests(project)
    assert [job.status().state for job in (lost, stopped)] == [State.CANCELLED] * 2
    assert [job.status().attempt for job in (lost, stopped)] == [1, 1]
    assert queued(project) == []


@pytest.fixture
def at_hand(project, monkeypatch) -> Supervisor:
    """A supervisor in this process, to be called step by step, that rests for a moment only."""
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(supervisor, "BACK_OFF_S", 0.01)
    return Supervisor(project / "jobs", COMMAND)


def test_a_job_that_is_lost_again_and_again_is_given_up(project, at_hand, monkeypatch):
    monkeypatch.setattr(supervisor, "MOST_LOSSES", 2)
    job, after = listed(project, "lost_again"), listed(project, "epochs", params={"epochs": 1})
    while at_hand.look():
        time.sleep(0.02)
    status = job.status()
    assert (status.state, status.attempt, status.cause) == (State.FAILED, 3, "killed")
    assert "lost 2 times in a row without getting any further" in status.error
    assert after.status().state is State.SUCCEEDED
    job.resume(start=False)
    assert job.losses() == 0  # A person who resumes it gives it new chances.


def test_a_loss_after_progress_starts_the_count_anew(project, at_hand):
    job = listed(project, "epochs", params={"epochs": 1000, "epoch_s": 0.01})
    for attempt in range(1, 3):
        until(lambda: at_hand.look() and job.status().state is State.RUNNING)
        before = len(job.events()[0])
        until(lambda: len(job.events()[0]) > before + 5)  # noqa: B023
        os.kill(job.status().pid, signal.SIGKILL)
        reaches(job, State.LOST)
        assert (job.losses(), job.status().attempt) == (0, attempt)


def test_a_worker_that_cannot_start_is_a_failure(project, at_hand):
    at_hand._command = ("/no/such/program",)
    job = listed(project, "epochs", params={"epochs": 1})
    assert not at_hand.look()
    assert job.status().state is State.FAILED
    assert "cannot start" in job.status().error
    assert not at_hand.look()
    assert queued(project) == []


def test_a_long_history_is_read_once(project, at_hand, monkeypatch):
    over = [listed(project, "epochs") for _ in range(5)]
    for job in over:
        job.cancel()
    listed(project, "loop", device="cuda")
    until(lambda: at_hand.look() and queued(project) == ["0006-loop"])
    read = []
    status = Job.status
    monkeypatch.setattr(Job, "status", lambda job: read.append(job.id) or status(job))
    for _ in range(3):
        assert at_hand.look()
    assert set(read) == {"0006-loop"}
    over[0].resume(start=False)
    read.clear()
    at_hand.look()
    assert over[0].id in read


def test_what_cannot_be_read_stops_nobody(project, at_hand):
    broken, other = listed(project, "epochs"), listed(project, "epochs", params={"epochs": 1})
    (broken.folder / "status.json").write_text("{")
    until(lambda: not at_hand.look())
    assert other.status().state is State.SUCCEEDED
    with pytest.raises(JobError, match=r"status\.json is unusable"):
        broken.status()
    shutil.rmtree(broken.folder)


def test_a_deleted_project_is_not_made_again(project, queue):
    job = queue("loop")
    works(job)
    job.cancel(0)
    pid = supervisor_of(project)
    (project / "jobs").rename(project / "gone")
    until(lambda: not lives(pid))
    assert not (project / "jobs").exists()


def test_many_supervisors_at_once_start_each_job_once(project, queue):
    jobs = [listed(project, "epochs", params={"epochs": 2}) for _ in range(2)]
    argv = [sys.executable, "-P", "-m", "napari_backsplit.backend.jobs.supervisor", project]
    env = {**os.environ, **ENV}
    every = [subprocess.Popen([*argv, *COMMAND], env=env) for _ in range(3)]
    for job in jobs:
        succeeds(job)
    assert [process.wait(20) for process in every] == [0] * 3
    assert started(project) == [job.id for job in jobs]
    assert all(epochs_of(job) == [0, 1] for job in jobs)
