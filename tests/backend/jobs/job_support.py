"""What the tests of jobs share."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from napari_backsplit.backend.jobs import Job, State

HERE = Path(__file__).parent
COMMAND = (
    sys.executable,
    "-c",
    "import sys; from napari_backsplit.backend.jobs.worker import main;"
    "from tiny_tasks import TASKS; sys.exit(main(sys.argv[1], tasks=TASKS))",
)
ENV = {"PYTHONPATH": str(HERE), "OMP_NUM_THREADS": "1"}


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
