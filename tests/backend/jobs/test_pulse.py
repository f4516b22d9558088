"""Silence is what an observer saw, not what the clock of the machine says."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from job_support import works

from napari_backsplit.backend.jobs import Job, State, pulse, submit
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import mark
from napari_backsplit.backend.jobs.pulse import Pulse
from napari_backsplit.backend.jobs.spec import now


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pulse, "time", clock)
    return clock


def test_a_still_heartbeat_is_silence(clock):
    seen = Pulse()
    silences = []
    for _ in range(10):
        silences.append(seen.silent_s(7, 30))
        clock.now += 5
    assert silences == [5.0 * n for n in range(10)]
    assert seen.silent_s(8, 30) == 0
    assert seen.moved


def test_a_night_asleep_is_no_silence(clock):
    seen = Pulse()
    seen.silent_s(7, 30)
    clock.now += 8 * 3600  # Some systems count sleep.
    assert seen.silent_s(7, 30) < 30


HOUR_S = 3600


@pytest.mark.parametrize("shift_s", [-9000 * HOUR_S, 9000 * HOUR_S])
def test_a_clock_that_jumped_makes_no_living_worker_lost(run, shift_s):
    job = run("loop")
    works(job)
    then = time.time() + shift_s
    for _ in range(5):
        os.utime(job.folder / "heartbeat", (then, then))
        assert job.status().state is State.RUNNING
        assert Job(job.folder).status().state is State.RUNNING


def _elsewhere(tmp_path: Path) -> Job:
    """A job that a worker on another machine runs."""
    job = submit(tmp_path, "compare", {}, start=False)
    there = mark().model_copy(update={"host": "another machine"})
    files = JobFolder(job.folder)
    files.heartbeat_file.touch()
    record = files.read_record().moved(State.RUNNING, worker=there, started=now())
    files.write_record(record)
    return job


def _beat(job: Job, time_s: float) -> None:
    os.utime(job.folder / "heartbeat", (time_s, time_s))


def test_a_worker_elsewhere_is_known_by_its_beats_only(tmp_path):
    job = _elsewhere(tmp_path)
    assert job.status().state is State.RUNNING
    _beat(job, time.time() - HOUR_S)
    assert Job(job.folder).status().state is State.LOST


def test_a_clock_elsewhere_that_is_wrong_counts_until_a_beat_was_seen(tmp_path, clock):
    job = _elsewhere(tmp_path)
    _beat(job, time.time() - HOUR_S)
    watched = Job(job.folder)
    assert watched.status().state is State.LOST
    _beat(job, time.time() - HOUR_S + 2)
    assert watched.status().state is State.RUNNING
    for _ in range(10):
        clock.now += 5
        state = watched.status().state
    assert state is State.LOST
