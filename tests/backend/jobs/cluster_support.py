"""A Dask scheduler and its workers on loopback, each a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
from job_support import ENV, until

from napari_backsplit.backend.cluster_settings import ClusterSettings
from napari_backsplit.backend.jobs import Job
from napari_backsplit.backend.jobs.cluster import Handle, connect, run_on

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from napari_backsplit.backend.jobs.cluster import main;"
    "from tiny_tasks import TASKS; sys.exit(main(sys.argv[1:], tasks=TASKS))",
)
_QUICK = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "30",
}


class Cluster:
    """Starts and ends processes of Dask; `options` go to each of them."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        self.workers: list[subprocess.Popen[bytes]] = []
        self.scheduler: subprocess.Popen[bytes] | None = None
        self.address = ""

    def start_scheduler(self, port: int = 0) -> str:
        file = self.folder / "scheduler.json"
        file.unlink(missing_ok=True)
        self.scheduler = self._start(
            "scheduler", "--host", "127.0.0.1", "--port", str(port), "--scheduler-file", str(file)
        )
        until(lambda: file.exists() and file.read_text())
        self.address = json.loads(file.read_text())["address"]
        return self.address

    def start_workers(self, count: int = 1, *options: str) -> None:
        place = str(self.folder / "dask")
        how = ("--no-nanny", "--nthreads", "1", "--memory-limit", "0", "--local-directory", place)
        for _ in range(count):
            self.workers.append(self._start("worker", self.address, *how, *options))

    def await_workers(self, count: int) -> None:
        """Wait with one connection: each costs a tenth of a second."""
        client = connect(self.address, ClusterSettings())
        until(lambda: len(client.scheduler_info(n_workers=-1)["workers"]) == count)
        client.close()

    def _start(self, what: str, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--no-dashboard"]
        with (self.folder / f"{what}.log").open("ab") as log:
            return subprocess.Popen(
                [*command, *arguments, *self.options],
                stdout=log,
                stderr=log,
                env={**os.environ, **ENV, **_QUICK},
            )

    def holder(self, pid: int) -> subprocess.Popen[bytes]:
        """Return the Dask worker that a process descends from."""
        line = {p.pid for p in psutil.Process(pid).parents()}
        return next(worker for worker in self.workers if worker.pid in line)

    def end_scheduler(self) -> None:
        assert self.scheduler
        self.scheduler.kill()
        self.scheduler.wait()

    def end(self) -> None:
        for process in (*self.workers, self.scheduler):
            if process:
                with suppress(OSError):
                    process.kill()
                process.wait()


def hand_over(cluster: Cluster, job: Job, **settings: Any) -> Handle:
    return run_on(cluster.address, job.folder, ClusterSettings(**settings), command=COMMAND)


def tasks_of(handle: Handle, job: Job) -> list[str]:
    """Return the names under which the scheduler has a job."""
    keys = [f"{job.folder} #{number}" for number in range(1, 6)]
    client = handle._client
    found = client.sync(client.scheduler.get_task_status, keys=keys)
    return [key for key, state in found.items() if state]
