"""What the tests of jobs share."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from napari_backsplit.backend.jobs import Job, State, submit
from napari_backsplit.backend.jobs.order import changing

HERE = Path(__file__).parent
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from napari_backsplit.backend.jobs.worker import main;"
    "from tiny_tasks import TASKS; sys.exit(main(sys.argv[1], tasks=TASKS))",
)
ENV = {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}
HOW: dict[str, Any] = {"env": ENV, "command": COMMAND}


def until(condition: Callable[[], Any], limit_s: float = 20.0) -> None:
    """Wait until `condition` holds."""
    deadline = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.02)


def lives(pid: int | None) -> bool:
    """Whether a process runs and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def reaches(job: Job, state: State) -> None:
    until(lambda: job.status().state is state)


def works(job: Job) -> None:
    """Wait for the task's first sign of progress."""
    until(lambda: job.events()[0])


def child_of(job: Job) -> int:
    """Wait for the number of the process that the task started."""
    file = job.folder / "child"
    until(lambda: file.exists() and file.read_text())
    return int(file.read_text())


def supervisor_of(project: Path) -> int | None:
    """Return the number of a project's living supervisor."""
    file = project / "jobs" / "supervisor.json"
    try:
        pid = int(json.loads(file.read_text())["pid"])
    except (OSError, ValueError):
        return None
    return pid if lives(pid) else None


def end_supervisor(project: Path) -> None:
    pid = supervisor_of(project)
    if pid not in (None, os.getpid()):  # Some tests supervise in their own process.
        os.kill(pid, signal.SIGKILL)
        until(lambda: not lives(pid))


def processes_of(project: Path) -> list[int]:
    """Return the living processes that name a project on their command line."""
    return [p.pid for p in psutil.process_iter() if str(project) in _argv(p) and lives(p.pid)]


def _argv(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def succeeds(job: Job, limit_s: float = 40.0) -> None:
    until(lambda: job.status().state is State.SUCCEEDED, limit_s)


def epochs_of(job: Job) -> list[int]:
    return [int(line) for line in (job.folder / "epochs").read_text().split()]


def rests(project: Path) -> None:
    """Wait until nothing of the project runs any more."""
    until(lambda: not processes_of(project))


def listed(project: Path, task: str, **how: Any) -> Job:
    """Put a job into the queue without a supervisor."""
    job = submit(project, task, how.pop("params", {}), start=False, command=COMMAND, **how)
    with changing(project / "jobs") as order:
        order.append(job.id)
    return job


def started(project: Path) -> list[str]:
    """Return the ids of the jobs in the order in which their tasks began."""
    file = project / "started"
    return file.read_text().split() if file.exists() else []
