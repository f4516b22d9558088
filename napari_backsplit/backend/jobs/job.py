"""A job as those see it who asked for it: how it stands, and what it may be told."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.files import remove_torn, write_text
from napari_backsplit.backend.jobs.events import Event, read_events
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.processes import (
    TOKEN,
    end,
    end_marked,
    family,
    is_alive,
    mark,
    own_group,
)
from napari_backsplit.backend.jobs.spec import GRACE_S, JobSpec, JobStatus, Record, State

STALE_S = 30.0
_WORKER = (sys.executable, "-P", "-m", "napari_backsplit.backend.jobs.worker")
_TAIL_BYTES = 1 << 18


class Job:
    """A job folder, seen from any process and any machine that sees the folder.

    Parameters
    ----------
    folder : Path
        The job's folder, <project>/jobs/<id>.
    stale_s : float, optional
        Seconds without a sign of life after which the job is shown as LOST.
    """

    def __init__(self, folder: Path, *, stale_s: float = STALE_S) -> None:
        self.folder = Path(folder).resolve()
        self.stale_s = stale_s
        self._files = JobFolder(self.folder)
        self._swept: set[str] = set()

    def __repr__(self) -> str:
        return f"Job({str(self.folder)!r})"

    @property
    def id(self) -> str:
        """The name of the folder."""
        return self.folder.name

    @cached_property
    def spec(self) -> JobSpec:
        """What was asked for; it never changes."""
        return self._files.read_spec()

    @property
    def launched(self) -> bool:
        """Whether a worker was started for the present attempt."""
        return self._files.read_launch() is not None

    def status(self) -> JobStatus:
        """Return how the job stands.

        A job whose worker died, or gave no sign of life for long, is LOST. What a dead worker
        of this machine left running is ended.
        """
        record, lost = self._settled()
        if lost:
            self._sweep(record)
        return _status(record, State.LOST if lost else record.state, self._files)

    def events(self, since: int = 0) -> tuple[list[Event], int]:
        """Return the events after the position `since`, and the position to pass next time."""
        return read_events(self._files.events_file, since)

    def log_tail(self, lines: int = 50) -> str:
        """Return the last lines of the log; of a redrawn line only what stands there last."""
        try:
            with self._files.log_file.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
                text = file.read().decode("utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        shown = (line.rstrip("\r").rpartition("\r")[2] for line in text.rstrip().split("\n"))
        return "\n".join(list(shown)[-lines:])

    def wait(self, timeout_s: float | None = None) -> JobStatus:
        """Wait until the job is over or lost, at most `timeout_s`, and return how it stands."""
        limit = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        while not ((status := self.status()).final or status.state is State.LOST):
            if time.monotonic() >= limit:
                break
            time.sleep(0.1)
        return status

    def start(
        self, *, env: Mapping[str, str] | None = None, command: Sequence[str] | None = None
    ) -> None:
        """Start a detached worker for the pending job; it outlives the present process.

        Parameters
        ----------
        env : mapping, optional
            Environment variables to set on top of the present ones, for the job alone.
        command : sequence of str, optional
            The worker's argv without the job folder; this package's own worker by default.

        Raises
        ------
        JobError
            The worker cannot be started.
        """
        process = self._launch(command or _WORKER, _environment(env))
        with suppress(OSError):
            write_text(self._files.launch_file, mark(process.pid).model_dump_json())
        threading.Thread(target=process.wait, name=f"reap {self.id}", daemon=True).start()

    def cancel(self, grace_s: float = GRACE_S) -> None:
        """Ask the job to end, and return at once; `wait` tells when it did.

        Parameters
        ----------
        grace_s : float
            How long the task may take; then its worker ends it by force. Asking again with 0
            ends it now.
        """
        record, lost = self._settled()
        if record.final:
            return
        write_text(self._files.cancel_file, f"{grace_s}\n")
        if lost:
            self._clear(record)
        if lost or record.state is State.PENDING:
            self._close_unworked(record)

    def pause(self) -> None:
        """Ask the job to hold at its next checkpoint; it keeps its memory.

        Raises
        ------
        JobError
            The job is over or lost.
        """
        status = self.status()
        if status.resumable or status.final:
            raise JobError(f"The job {self.id} is {status.state} and cannot be paused.")
        self._files.pause_file.touch()

    def unpause(self) -> None:
        """Let a paused job go on."""
        self._files.pause_file.unlink(missing_ok=True)

    def resume(
        self,
        *,
        start: bool = True,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Start a new attempt of a failed, cancelled or lost job, in the same folder.

        What the last attempt left running on this machine is ended first.

        Raises
        ------
        JobError
            The job is in another state, or its worker on another machine still holds it.
        """
        record, lost = self._settled()
        reopened = record.reopened(lost=lost)
        self._clear(record)
        with self._files.hold(15.0):
            self._require_unchanged(record)
            self._reopen(reopened)
        if start:
            self.start(env=env, command=command)

    def delete(self) -> None:
        """Remove the folder of a job that nobody works on.

        Raises
        ------
        JobError
            The job is running or paused.
        """
        status = self.status()
        if status.state in (State.RUNNING, State.PAUSED):
            raise JobError(f"The job {self.id} is {status.state}.", "Cancel it first.")
        with self._files.hold(5.0):
            pass
        trash = self.folder.with_name(f".deleted-{self.id}-{secrets.token_hex(4)}")
        self.folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)

    def _settled(self) -> tuple[Record, bool]:
        """Return the record and whether the job is lost, read again after looking for life."""
        record = self._files.read_record()
        if not self._seems_lost(record):
            return record, False
        again = self._files.read_record()
        return again, again == record

    def _seems_lost(self, record: Record) -> bool:
        if record.final:
            return False
        if record.state is State.PENDING:
            launch = self._files.read_launch()
            return launch is not None and is_alive(launch) is False
        if record.worker is None or is_alive(record.worker) is False:
            return True
        age_s = self._files.heartbeat_age_s()
        return age_s is None or age_s > self.stale_s

    def _sweep(self, record: Record) -> None:
        """End what a dead worker of this machine left running."""
        dead = record.worker is not None and is_alive(record.worker) is False
        if dead and record.token not in self._swept and _end_family(record):
            self._swept.add(record.token)

    def _clear(self, record: Record) -> None:
        """End all that is left of an attempt on this machine, a silent worker included."""
        if record.worker is not None and not record.final:
            end_marked(record.worker)
        _end_family(record)

    def _close_unworked(self, record: Record) -> None:
        with suppress(JobError), self._files.hold(0.2):
            if self._files.read_record() == record:
                self._files.write_record(
                    record.moved(State.CANCELLED, error="The job was cancelled.")
                )

    def _require_unchanged(self, record: Record) -> None:
        if self._files.read_record() != record:
            raise JobError(f"The job {self.id} changed meanwhile.", "Look at it again.")

    def _reopen(self, record: Record) -> None:
        for file in (self._files.cancel_file, self._files.pause_file, self._files.launch_file):
            file.unlink(missing_ok=True)
        remove_torn(self.folder)
        self._files.make_reserve()
        self._files.write_record(record)

    def _launch(self, command: Sequence[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        try:
            with self._files.log_file.open("ab") as log:
                return subprocess.Popen(
                    [*command, str(self.folder)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    cwd=self.folder,
                    env=env,
                    **own_group(),
                )
        except OSError as error:
            raise JobError(f"The worker of the job {self.id} cannot start: {error}.") from error


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    values = {**os.environ, **(env or {}), "PYTHONUNBUFFERED": "1"}
    values.pop(TOKEN, None)
    return values


def _end_family(record: Record) -> bool:
    return end(lambda: family(record.task, record.token))


def _status(record: Record, state: State, files: JobFolder) -> JobStatus:
    lost = state is State.LOST
    return JobStatus(
        state=state,
        error="The job's worker is gone or silent." if lost else record.error,
        remedy="Resume the job to continue." if lost else record.remedy,
        result=record.result,
        started=record.started,
        ended=record.ended,
        attempt=record.attempt,
        attempts=record.attempts,
        pid=record.worker.pid if record.worker else None,
        task_pid=record.task.pid if record.task else None,
        host=record.worker.host if record.worker else "",
        heartbeat_age_s=files.heartbeat_age_s(),
    )
