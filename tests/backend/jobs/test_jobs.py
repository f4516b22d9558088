"""Jobs as real, tiny child processes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from job_support import COMMAND, ENV, child_of, lives, reaches, until, works

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import (
    Job,
    JobStatus,
    Metric,
    Note,
    Phase,
    Progress,
    State,
    follow,
    list_jobs,
    submit,
)
from napari_backsplit.backend.jobs.runner import run_here

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's process sessions")


def again(job: Job) -> None:
    job.resume(env=ENV, command=COMMAND)


def workers_exit(pid: int | None) -> None:
    until(lambda: not lives(pid))


def test_success(run, own_environment):
    job = run("succeed", {"a": 1, "b": 2}, title="Add")
    status = job.wait(20)
    assert (status.state, status.result, status.message) == (State.SUCCEEDED, {"sum": 3}, "")
    assert status.started < status.ended
    events, position = job.events()
    assert [type(e) for e in events] == [Phase, Metric, *[Progress] * 3, Note]
    assert job.events(position) == ([], position)
    assert job.log_tail() == "a line in the log"
    workers_exit(status.pid)
    names = {p.name for p in job.folder.iterdir() if not p.name.startswith(".lock")}
    assert names == {
        "control",
        "events.jsonl",
        "heartbeat",
        "job.json",
        "launch.json",
        "log.txt",
        "status.json",
    }
    with pytest.raises(JobError, match="SUCCEEDED cannot be resumed"):
        job.resume()


def test_the_task_has_a_process_group_and_an_environment_of_its_own(run, own_environment):
    result = run("environment").wait(20).result
    assert result == {
        "threads": "1",
        "unbuffered": "1",
        "session": True,
        "torch": False,
        "path": False,
        "stdin": "",
    }


FAILURES = {
    "raise_remedy": ("The spacing is 0 mm.", "Correct the header."),
    "raise_plain": ("ValueError: bad value in images/case_001.nii.gz.", "log"),
    "crash": ("signal 11", "log"),
    "leave": ("exit code 7", "log"),
    "killed": ("memory runs out", "batch size"),
    "no_memory": ("MemoryError", "patch size"),
    "cuda_memory": ("CUDA out of memory", "patch size"),
    "missing": ("No module named 'no_such_module'", "log"),
    "unknown": ("There is no task named 'unknown'.", "The tasks are"),
    "bad_result": ("result of the task is not plain JSON", "numbers"),
    "full_events": ("no space left", "Free some space"),
    "full_device": ("no space left", "Free some space"),
}


@pytest.fixture(scope="module")
def failures(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Job]:
    folder = tmp_path_factory.mktemp("failures")
    return {task: submit(folder, task, {}, env=ENV, command=COMMAND) for task in FAILURES}


@pytest.mark.parametrize("task", FAILURES)
def test_failures(failures, task):
    error, remedy = FAILURES[task]
    status = failures[task].wait(30)
    assert status.state is State.FAILED
    assert error in status.error
    assert remedy in status.remedy
    assert "\n" not in status.message


def test_the_log_holds_the_traceback_and_the_stack_of_a_crash(failures):
    plain, crashed = failures["raise_plain"], failures["crash"]
    assert plain.wait(20).final
    assert crashed.wait(20).final
    assert "Traceback" in plain.log_tail()
    assert "second line" in plain.log_tail()
    assert "Segmentation fault" in crashed.log_tail()


def test_output_of_the_task(run):
    job = run("print_lines")
    job.wait(20)
    assert job.log_tail(3).splitlines() == ["line 29", "100%", "to stderr"]


def test_multiprocessing_in_a_task(run):
    pool, fork = run("pool"), run("fork_terminate")
    assert pool.wait(30).result == {"squares": [1, 4, 9]}
    assert fork.wait(20).result == {"exit": -signal.SIGTERM}


def test_cancel_lets_the_task_save(run):
    job = run("loop")
    works(job)
    job.cancel()
    status = job.wait(20)
    assert (status.state, status.error) == (State.CANCELLED, "The job was cancelled.")
    assert int((job.folder / "saved").read_text()) > 0


def test_a_task_cannot_swallow_a_cancellation(run):
    job = run("swallow")
    reaches(job, State.RUNNING)
    job.cancel()
    assert job.wait(20).state is State.CANCELLED


@linux
def test_cancel_ends_grandchildren_that_ignore_sigterm(run):
    jobs = [run(task) for task in ("family", "escape", "silent_family")]
    children = [child_of(job) for job in jobs]
    assert all(map(lives, children))
    for job in jobs:
        job.cancel()
    for job in jobs:
        status = job.wait(20)
        assert status.state is State.CANCELLED
        workers_exit(status.pid)
    assert not any(map(lives, children))


@linux
def test_cancel_ends_a_task_that_never_looks(run):
    job = run("stubborn")
    child, began = child_of(job), time.monotonic()
    job.cancel(grace_s=20)
    job.cancel(grace_s=0)  # asked again: now
    status = job.wait(20)
    assert status.state is State.CANCELLED
    assert "by force" in status.error
    assert time.monotonic() - began < 10
    assert not lives(child)
    assert not lives(status.task_pid)


@linux
def test_a_process_left_behind_by_a_success_is_ended(run):
    job = run("linger")
    status = job.wait(20)
    assert status.state is State.SUCCEEDED
    workers_exit(status.pid)
    assert not lives(child_of(job))


def test_pause_and_go_on(run):
    job = run("loop")
    works(job)
    job.pause()
    reaches(job, State.PAUSED)
    beat, events = (job.folder / "heartbeat").stat().st_mtime_ns, job.events()[0]
    until(lambda: (job.folder / "heartbeat").stat().st_mtime_ns > beat)
    assert job.events()[0] == events
    job.unpause()
    reaches(job, State.RUNNING)
    until(lambda: len(job.events()[0]) > len(events))
    job.pause()
    reaches(job, State.PAUSED)
    job.cancel()
    assert job.wait(20).state is State.CANCELLED


def test_a_killed_worker_is_lost_at_once_and_the_job_resumes(run):
    job = run("count", {"to": 60})
    works(job)
    status = job.status()
    os.kill(status.pid, signal.SIGKILL)
    until(lambda: not lives(status.pid))
    lost = job.status()
    assert lost.state is State.LOST
    assert lost.resumable
    assert not lost.final
    assert list_jobs(job.folder.parent.parent)[0].status().state is State.LOST
    until(lambda: not lives(status.task_pid))
    again(job)
    done = job.wait(20)
    assert done.state is State.SUCCEEDED
    assert 0 < done.result["start"] < done.result["end"] == 60
    assert done.attempt == done.result["attempt"] == 2
    assert [a.state for a in done.attempts] == [State.LOST]


@linux
def test_a_killed_worker_takes_the_family_with_it(run):
    job = run("silent_family")
    child = child_of(job)
    os.kill(job.status().pid, signal.SIGKILL)
    until(lambda: not lives(child))


@linux
def test_what_a_killed_worker_and_task_leave_is_ended_on_sight(run):
    job = run("escape")
    child, status = child_of(job), job.status()
    for pid in (status.pid, status.task_pid):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not lives(status.pid))
    assert job.status().state is State.LOST
    assert not lives(child)
    job.cancel()
    assert job.status().state is State.CANCELLED


@linux
def test_a_silent_worker_is_lost_and_is_ended_by_resume(run):
    job = run("count", {"to": 10_000})
    works(job)
    before = job.status()
    os.kill(before.pid, signal.SIGSTOP)
    impatient = Job(job.folder, stale_s=0.5)
    reaches(impatient, State.LOST)
    assert lives(before.pid)  # Silence is shown; only resume ends it.
    impatient.resume(env=ENV, command=COMMAND)
    reaches(job, State.RUNNING)
    assert not lives(before.pid)
    until(lambda: job.status().task_pid not in (None, before.task_pid))
    assert not lives(before.task_pid)


@linux
def test_a_signal_to_the_worker_leaves_no_process(run):
    jobs = {n: run("family") for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    children = [child_of(job) for job in jobs.values()]
    for number, job in jobs.items():
        works(job)
        os.kill(job.status().pid, number)
    for number, job in jobs.items():
        status = job.wait(20)
        assert status.state is State.CANCELLED
        assert f"stopped by signal {int(number)}" in status.error
        assert (job.folder / "saved").exists()
        workers_exit(status.pid)
        assert not lives(status.task_pid)
    assert not any(map(lives, children))


@linux
def test_the_whole_group_may_be_told_at_once(run):
    """As a scheduler does: the worker and the task both get the signal."""
    job = run("loop")
    works(job)
    status = job.status()
    for pid in (status.task_pid, status.pid):
        os.kill(pid, signal.SIGTERM)
    assert "stopped by signal 15" in job.wait(20).error
    assert (job.folder / "saved").exists()


def test_resume_after_a_cancellation_keeps_history_and_events(run):
    job = run("count", {"to": 60})
    works(job)
    job.cancel()
    first = job.wait(20)
    again(job)
    done = job.wait(20)
    assert (first.state, done.state) == (State.CANCELLED, State.SUCCEEDED)
    assert done.attempts[0].error == "The job was cancelled."
    assert [e.done for e in job.events()[0]] == list(range(1, 61))


def test_a_second_worker_is_refused(run):
    job = run("loop")
    reaches(job, State.RUNNING)
    second = subprocess.run(
        [*COMMAND, job.folder], env={**os.environ, **ENV}, capture_output=True, text=True
    )
    assert second.returncode == 3
    assert f"Another worker holds the job {job.id}" in second.stderr
    with pytest.raises(JobError, match="RUNNING cannot be resumed"):
        again(job)
    with pytest.raises(JobError, match="Cancel it first"):
        job.delete()
    assert job.status().state is State.RUNNING


def test_a_finished_job_is_not_run_again(run):
    job = run("succeed", {"a": 1, "b": 1})
    workers_exit(job.wait(20).pid)
    before = (job.folder / "status.json").read_bytes()
    worker = [sys.executable, "-m", "napari_backsplit.backend.jobs.worker", str(job.folder)]
    second = subprocess.run(worker, capture_output=True, text=True)
    assert second.returncode == 3
    assert second.stderr == f"The job {job.id} is SUCCEEDED, not PENDING. {_RESUME}\n"
    assert (job.folder / "status.json").read_bytes() == before


_RESUME = "Resume it before a worker runs it."


@pytest.mark.parametrize(
    ("task", "code"), [("succeed", 0), ("raise_plain", 1), ("cancelled_before", 2)]
)
def test_the_worker_runs_a_job_anywhere(run, task, code):
    job = run(task, {"a": 1, "b": 2}, start=False)
    if code == 2:
        (job.folder / "control" / "cancel").touch()
    assert job.status().state is State.PENDING
    worker = subprocess.run([*COMMAND, job.folder], env={**os.environ, **ENV})
    assert worker.returncode == code
    assert job.status().final


def test_a_worker_that_dies_before_it_begins_is_lost(run, project):
    job = run("succeed", {"a": 1, "b": 2}, start=False)
    job.start(command=[sys.executable, "-c", "raise SystemExit('no such library')"])
    reaches(job, State.LOST)
    until(lambda: "no such library" in job.log_tail())
    again(job)
    assert job.wait(20).state is State.SUCCEEDED


def test_follow_yields_all_events_and_then_the_end(run):
    seen = list(follow(run("succeed", {"a": 1, "b": 2}), poll_s=0.02))
    assert isinstance(seen[-1], JobStatus)
    assert seen[-1].state is State.SUCCEEDED
    states = [s.state for s in seen if isinstance(s, JobStatus)]
    assert states == sorted(set(states), key=list(State).index)
    assert [type(e) for e in seen if not isinstance(e, JobStatus)][-1] is Note


def test_follow_ends_where_the_job_is_lost(run):
    job = run("loop")
    works(job)
    os.kill(job.status().pid, signal.SIGKILL)
    assert list(follow(job))[-1].state is State.LOST


def test_run_here(run):
    job = run("succeed", {"a": 2, "b": 2}, start=False)
    tasks = {"succeed": "tiny_tasks:succeed"}
    assert run_here(job, tasks) is State.SUCCEEDED
    assert job.status().result == {"sum": 4}
    with pytest.raises(JobError, match="SUCCEEDED, not PENDING"):
        run_here(job, tasks)
    assert run_here(run("other", start=False), tasks) is State.FAILED


def test_a_job_outlives_who_asked_for_it(project):
    code = (
        "import sys; from pathlib import Path; from job_support import COMMAND, ENV;"
        "from napari_backsplit.backend.jobs import submit;"
        "submit(Path(sys.argv[1]), 'count', {}, env=ENV, command=COMMAND)"
    )
    env = {**os.environ, **ENV}
    subprocess.run([sys.executable, "-c", code, project], env=env, check=True)
    (job,) = list_jobs(project)
    assert not job.status().final
    assert job.wait(20).result["end"] == 40


def test_the_room_imports_no_heavy_library():
    code = (
        "import sys, napari_backsplit.backend.jobs, napari_backsplit.backend.jobs.runner;"
        "heavy = {'torch', 'nnunetv2', 'numpy', 'SimpleITK', 'napari', 'qtpy'};"
        "sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def _mount(folder: Path) -> str:
    """Mount a small disk; say why not."""
    if sys.platform != "linux":
        return "mounting a tmpfs needs Linux"
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, text=True
    )
    return made.stderr.strip()


def test_a_full_disk(run, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if problem := _mount(disk):
        pytest.skip(f"no small disk can be mounted here: {problem}")
    try:
        job = run("full_file", folder=disk)
        status = job.wait(20)
        assert status.state is State.FAILED
        assert "no space left on the disk of the job 0001-full_file" in status.error
        workers_exit(status.pid)
        (job.folder / "big").unlink()
        again(job)
        assert job.wait(20).attempt == 2
        workers_exit(job.status().pid)
    finally:
        until(lambda: subprocess.run(["umount", disk], capture_output=True).returncode == 0)


@pytest.mark.soak
def test_a_job_killed_again_and_again_gets_done(run):
    job = run("count", {"to": 400})
    kills = 0
    while job.status().state is not State.SUCCEEDED:
        if job.status().state is State.LOST:
            again(job)
        time.sleep(0.3 + 0.1 * (kills % 7))
        status = job.status()
        if status.state is State.RUNNING:
            os.kill(status.pid if kills % 2 else status.task_pid or status.pid, signal.SIGKILL)
            kills += 1
            reached = job.wait(20)
            assert reached.state in (State.LOST, State.FAILED, State.SUCCEEDED)
            if reached.state is State.FAILED:
                again(job)
    assert job.status().attempt > 3
    assert [e.done for e in job.events()[0]][-1] == 400
    token_owners = [p for p in psutil.process_iter() if str(job.folder) in " ".join(_argv(p))]
    until(lambda: not any(lives(p.pid) for p in token_owners))


def _argv(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.mark.soak
@linux
def test_a_signal_ends_a_task_that_never_looks(run):
    job = run("stubborn")
    child, before = child_of(job), job.status()
    os.kill(before.pid, signal.SIGTERM)
    assert "stopped by signal 15" in job.wait(30).error
    assert not any(map(lives, (child, before.task_pid)))


def test_a_worker_whose_folder_is_gone_ends_with_its_task(project):
    code = (
        "import napari_backsplit.backend.jobs.worker as worker; worker.GONE_GRACE_S = 0.5;"
        + COMMAND[2]
    )
    job = submit(project, "loop", {}, env=ENV, command=(sys.executable, "-c", code))
    works(job)
    status = job.status()
    shutil.rmtree(job.folder)
    until(lambda: not lives(status.pid) and not lives(status.task_pid))


def test_a_job_is_cancelled_on_a_full_disk_too(run, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = run("loop")
    works(job)
    monkeypatch.setattr("napari_backsplit.backend.jobs.job.write_text", full)
    job.cancel()
    assert job.wait(20).state is State.CANCELLED
