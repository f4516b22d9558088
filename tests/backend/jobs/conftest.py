from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from napari_backsplit.backend.jobs import Job, enqueue, list_jobs, submit

sys.path.append(str(Path(__file__).parent))
from job_support import COMMAND, ENV, end_supervisor


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    """A project folder; jobs that a failed test left running are ended."""
    yield tmp_path
    end_supervisor(tmp_path)
    for job in list_jobs(tmp_path):
        job.cancel(grace_s=0)
        job.wait(10)


@pytest.fixture
def run(project: Path) -> Callable[..., Job]:
    """Submit a tiny task."""

    def start(task: str, params: dict[str, Any] | None = None, **how: Any) -> Job:
        return submit(
            how.pop("folder", project), task, params or {}, env=ENV, command=COMMAND, **how
        )

    return start


@pytest.fixture
def queue(project: Path) -> Callable[..., Job]:
    """Put a tiny task into the queue."""

    def add(task: str, params: dict[str, Any] | None = None, **how: Any) -> Job:
        return enqueue(
            how.pop("folder", project), task, params or {}, env=ENV, command=COMMAND, **how
        )

    return add


@pytest.fixture
def own_environment() -> Iterator[None]:
    """The environment of this process, which no job may change."""
    before = dict(os.environ)
    yield
    ours = {k: v for k, v in os.environ.items() if k != "PYTEST_CURRENT_TEST"}
    before.pop("PYTEST_CURRENT_TEST", None)
    assert ours == before
