"""Runs a job on another machine that sees its folder, through a Dask scheduler.

`python -m napari_backsplit.backend.jobs.cluster JOB_FOLDER` brings one job to its end, anywhere:
it resumes what an earlier worker left, and waits where another still works. A Dask worker runs
it as a process of its own, a SLURM script as its only line.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from napari_backsplit.backend.cluster_settings import (
    ClusterSettings,
    read_settings,
    require_trust,
    scheduler_address,
)
from napari_backsplit.backend.errors import BackSplitError, JobError
from napari_backsplit.backend.jobs import worker
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.processes import TOKEN, own_group
from napari_backsplit.backend.jobs.registry import TASKS
from napari_backsplit.backend.jobs.spec import State

if TYPE_CHECKING:
    from distributed import Client, Future, Security

CONNECT_S = 8.0
RETRIES = 3  # of a job whose process was killed while its Dask worker lives
LEASH = "--leashed"
_COMMAND = ("-P", "-m", "napari_backsplit.backend.jobs.cluster")
_LIVE = ("waiting", "no-worker", "queued", "processing")
_ADVICE = (
    "Check the address, that the scheduler runs, and the network or SSH tunnel to it: "
    "backsplit cluster test"
)
_LOG = logging.getLogger(__name__)

Standing = Literal["waiting", "done", "failed", "gone"]


class SchedulerAway(JobError):
    """No scheduler answers now; one may later, and the job is as it was."""


def main(arguments: Sequence[str], tasks: Mapping[str, str] = TASKS) -> int:
    """Bring the job in a folder to its end; return the worker's exit code.

    Parameters
    ----------
    arguments : sequence of str
        The job's folder. With "--leashed" the process ends when its standard input does, that is,
        with the process that started it.
    tasks : mapping, optional
        As for the worker.
    """
    folder, *options = arguments
    if LEASH in options:
        threading.Thread(target=_end_with_input, name="leash", daemon=True).start()
    try:
        return _bring_to_end(Job(Path(folder)), tasks)
    except JobError as error:
        _LOG.error("%s", error)
        return worker.REFUSED


def _end_with_input() -> None:
    # The job is lost then, as when its machine dies; the task's process ends with its worker.
    while os.read(0, 64):
        pass
    os._exit(1)


def _bring_to_end(job: Job, tasks: Mapping[str, str]) -> int:
    while not _is_over(job):
        if _is_free(job):
            code = worker.main(job.folder, tasks)
            if code != worker.REFUSED:
                return code
        time.sleep(0.5)
    return 0 if job.status().state is State.SUCCEEDED else 1


def _is_over(job: Job) -> bool:
    """Whether nothing is to be done: a stop that no person asked for is no end."""
    return job.status().final and not _was_stopped(job)


def _was_stopped(job: Job) -> bool:
    by_hand = JobFolder(job.folder).cancel_file.exists()
    return job.status().state is State.CANCELLED and not by_hand


def _is_free(job: Job) -> bool:
    """Whether the job is pending, if need be after resuming it; False while another works on it."""
    if job.status().state is State.LOST or _was_stopped(job):
        with suppress(JobError):  # Somebody else was faster, or a dying worker still holds it.
            job.resume(start=False, keep_wishes=True)
    return job.status().state is State.PENDING


def carry_out(folder: str, command: Sequence[str] = ()) -> None:
    """Run a job to its end in a process of its own, on a Dask worker.

    Raises
    ------
    JobError
        This machine does not see the folder, or the process died: tried again, it goes on.
    """
    path = Path(folder)
    if not (path / "job.json").exists():
        raise JobError(
            f"The machine {platform.node()} does not see the folder {folder}.",
            "Let it share the project's disk; if that has another path there, say so with: "
            "backsplit cluster set --path-map HERE=THERE",
        )
    with (path / "log.txt").open("ab") as log:
        process = subprocess.Popen(
            [*(command or (sys.executable, *_COMMAND)), folder, LEASH],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=path,
            env={name: value for name, value in os.environ.items() if name != TOKEN},
            **own_group(),
        )
    code = process.wait()
    if not _is_over(Job(path)):
        raise JobError(
            f"The job's process on {platform.node()} ended with exit code {code}.",
            "The job's log may say why; resume the job to continue.",
        )


def look(folder: str = "") -> dict[str, Any]:
    """Return what a worker is and sees, for a test of the connection."""
    return {
        "host": platform.node(),
        "python": platform.python_version(),
        "version": version("napari-backsplit"),
        "sees": bool(folder) and Path(folder).is_dir(),
    }


class Handle:
    """A job that was handed to a scheduler. How the job stands is in its folder.

    The scheduler keeps the job when the handle is closed or its process ends; `run_on` finds it
    again.
    """

    def __init__(self, client: Client, future: Future) -> None:
        self._client = client
        self._future = future

    @property
    def standing(self) -> Standing:
        """How the scheduler has it; asks nobody, so it returns at once.

        "waiting": in its queue or at work; "done": the job's folder has the outcome; "failed":
        it gave up, `error` says why; "gone": the scheduler is, so hand the job over anew.
        """
        if not self.alive or self._future.status in ("cancelled", "lost"):
            return "gone"
        known: dict[str, Standing] = {"finished": "done", "error": "failed"}
        return known.get(self._future.status, "waiting")

    @property
    def alive(self) -> bool:
        """Whether the scheduler is connected."""
        return bool(self._client.status == "running")

    @property
    def done(self) -> bool:
        """Whether the scheduler has brought it to an end, well or not."""
        return self.standing in ("done", "failed")

    @property
    def error(self) -> JobError | None:
        """Why the scheduler gave up; None if it did not."""
        if self.standing != "failed":
            return None
        return _failure(self._future.exception(timeout=5))

    def close(self) -> None:
        """Let go of the connection; the job goes on."""
        with suppress(Exception):
            self._client.close(timeout=2)


def run_on(
    where: str,
    job_folder: Path,
    settings: ClusterSettings | None = None,
    *,
    command: Sequence[str] = (),
) -> Handle:
    """Hand a job to a Dask scheduler, or find it there again.

    Parameters
    ----------
    where : str
        Address of the scheduler.
    job_folder : Path
        On a disk that the workers share.
    settings : ClusterSettings, optional
        Those kept for this user by default.
    command : sequence of str, optional
        What runs the job on the worker, without the folder; this module by default.

    Raises
    ------
    SchedulerAway
        No scheduler answers within about ten seconds. The job is as it was: try again later.
    JobError
        It may not be trusted, is none, or Dask is not installed.
    """
    job = Job(job_folder)
    settings = settings or read_settings()
    client = connect(where, settings)
    try:
        return Handle(client, _submit(client, job, settings.there(job.folder), tuple(command)))
    except BackSplitError:
        client.close(timeout=2)
        raise
    except Exception as error:
        client.close(timeout=2)
        raise _unanswered(where, error) from error


def connect(where: str, settings: ClusterSettings) -> Client:
    """Return a client of the scheduler at an address.

    Raises
    ------
    SchedulerAway
        None answers.
    JobError
        It is no scheduler or may not be trusted, or Dask is not installed.
    """
    address = scheduler_address(where)
    require_trust(address, settings)
    security = _security(address, settings)
    try:
        asyncio.run(asyncio.wait_for(_greet(address, security), CONNECT_S))
        from distributed import Client

        return Client(address, security=security, timeout=CONNECT_S, set_as_default=False)
    except JobError:
        raise
    except Exception as error:
        raise _unanswered(address, error) from error


def look_around(
    where: str, settings: ClusterSettings, project: Path | None = None
) -> list[dict[str, Any]]:
    """Ask each worker of a scheduler what it is: host, versions, GPUs, whether it sees a project.

    Raises
    ------
    JobError
        No scheduler answers, or its workers do not.
    """
    folder = settings.there(project) if project else ""
    client = connect(where, settings)
    try:
        known = _ask(client, client.scheduler.identity, n_workers=-1)["workers"]
        seen = client.run(look, folder, on_error="return") if known else {}
    except Exception as error:
        raise _unanswered(where, error) from error
    finally:
        client.close(timeout=2)
    broken = next((answer for answer in seen.values() if isinstance(answer, Exception)), None)
    if broken is not None:
        raise _failure(broken)
    gpus = {address: worker["resources"].get("GPU", 0) for address, worker in known.items()}
    return [{**answer, "gpus": gpus.get(address, 0)} for address, answer in seen.items()]


def _security(address: str, settings: ClusterSettings) -> Security:
    try:
        from distributed import Security
    except ImportError:
        raise JobError(
            "Dask is not installed.", "Install it with: pip install napari-backsplit[cluster]"
        ) from None
    if not address.startswith("tls://"):
        return Security()
    return Security(
        tls_ca_file=settings.tls_ca,
        tls_client_cert=settings.tls_cert,
        tls_client_key=settings.tls_key,
        require_encryption=True,
    )


async def _greet(address: str, security: Security) -> None:
    """Ask who is there: Dask's own client waits for ever for an answer that is none."""
    from distributed.comm import connect as call

    comm = await call(address, timeout=CONNECT_S, **security.get_connection_args("client"))
    try:
        await comm.write({"op": "identity", "reply": True})
        answer = await comm.read()
    finally:
        comm.abort()
    kind = str(answer.get("type", "nothing")).lower()
    if "scheduler" not in kind:
        raise JobError(f"At {address} is no Dask scheduler but a {kind}.", _ADVICE)


def _submit(client: Client, job: Job, folder: str, command: tuple[str, ...]) -> Future:
    from distributed import fire_and_forget

    future = client.submit(
        carry_out,
        folder,
        command,
        key=_key(client, job, folder),
        retries=RETRIES,
        resources=_resources(client, job.spec.device),
    )
    fire_and_forget(future)
    return future


def _key(client: Client, job: Job, folder: str) -> str:
    """Return the name of the job at the scheduler, that of an attempt which it still has first.

    A job that moved to another worker has had more attempts than when it was handed over.
    """
    keys = [f"{folder} #{number}" for number in range(1, job.status().attempt + 1)]
    states = _ask(client, client.scheduler.get_task_status, keys=keys)
    return next((key for key in keys if states.get(key) in _LIVE), keys[-1])


def _resources(client: Client, device: str) -> dict[str, int]:
    workers = _ask(client, client.scheduler.identity, n_workers=-1)["workers"].values()
    declared = any("GPU" in worker["resources"] for worker in workers)
    return {"GPU": 1} if device.startswith("cuda") and declared else {}


def _ask(client: Client, question: Callable[..., Any], **how: Any) -> Any:
    return client.sync(question, callback_timeout=CONNECT_S, **how)


def _unanswered(where: str, error: BaseException) -> SchedulerAway:
    return SchedulerAway(f"No Dask scheduler answers at {where}: {_reason(error)}.", _ADVICE)


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "it does not answer")[:200].rstrip(".")


def _failure(error: BaseException | None) -> JobError:
    if isinstance(error, JobError):
        return error
    if type(error).__name__ == "KilledWorker":
        return JobError(
            "The job's Dask worker was lost several times.",
            "Its log or the cluster's may say why (memory, time limit); then resume the job.",
        )
    if isinstance(error, ImportError):
        return JobError(
            f"The cluster lacks a package: {_reason(error)}.",
            "Install the same version of napari-backsplit on the scheduler and on all workers.",
        )
    return JobError(
        f"The Dask worker failed: {_reason(error) if error else 'unknown'}.", "See its log."
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
