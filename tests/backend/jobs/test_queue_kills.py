"""Workers and supervisors killed with -9 at random times: each job is done once, and well."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from job_support import (
    HOW,
    epochs_of,
    listed,
    lives,
    rests,
    succeeds,
    supervisor_of,
    until,
)

from napari_backsplit.backend.jobs import Job, State, ensure_supervisor, queued


def _kill_at_random(project: Path, rounds: int, seed: int) -> None:
    """Let two chains run while their workers, tasks and supervisors are killed."""
    chance = random.Random(seed)
    how = {"params": {"epochs": 12, "epoch_s": 0.05}}
    first = listed(project, "epochs", **how)
    jobs = [first, listed(project, "epochs", needs=[first.id], chain=first.id, **how)]
    jobs.append(listed(project, "epochs", device="cuda", **how))
    kills = dict.fromkeys((job.id for job in jobs), 0)
    for _ in range(rounds):
        ensure_supervisor(project, **HOW)
        time.sleep(chance.uniform(0.1, 1.2))
        _kill(project, chance, jobs, kills)
    ensure_supervisor(project, **HOW)
    for job in jobs:
        succeeds(job, 90)
        done = epochs_of(job)
        assert sorted(set(done)) == list(range(12))
        assert len(done) <= 12 + kills[job.id]  # At most one epoch repeated for each kill.
        assert job.status().attempt == 1 + len(job.status().attempts)
    assert not (project / "clash").exists()
    until(lambda: queued(project) == [])
    rests(project)


def _kill(project: Path, chance: random.Random, jobs: list[Job], kills: dict[str, int]) -> None:
    victim = chance.choice(("supervisor", "worker", "both"))
    pids = [] if victim == "worker" else [supervisor_of(project)]
    for job in jobs if victim != "supervisor" else ():
        status = job.status()
        if status.state is State.RUNNING:
            pids.append(status.pid)
            kills[job.id] += 1
    for pid in pids:
        if pid is not None and lives(pid):
            os.kill(pid, signal.SIGKILL)
            until(lambda: not lives(pid))  # noqa: B023


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_random_times(project, seed):
    _kill_at_random(project, 4, seed)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_random_times_for_long(project, seed):
    _kill_at_random(project, 10, 100 + seed)
