"""A job as those see it who asked for it: how it stands, and what it may be told."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from napari_backsplit.backend.errors import JobError, ProjectError
from napari_backsplit.backend.files import remove_torn, write_text
from napari_backsplit.backend.jobs.events import Event, read_events
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.gauges import Gauges, read_gauges
from napari_backsplit.backend.jobs.log import read_piece
from napari_backsplit.backend.jobs.losses import in_a_row, progressed
from napari_backsplit.backend.jobs.order import changing, locked
from napari_backsplit.backend.jobs.processes import (
    end,
    end_marked,
    environment,
    family,
    is_alive,
    mark,
    own_group,
)
from napari_backsplit.backend.jobs.pulse import Pulse
from napari_backsplit.backend.jobs.spec import (
    GRACE_S,
    STOPPED,
    Cause,
    JobSpec,
    JobStatus,
    Record,
    State,
)

STALE_S = 30.0
_WORKER = (sys.executable, "-P", "-m", "napari_backsplit.backend.jobs.worker")


class Job:
    """A job folder, seen from any process and any machine that sees the folder.

    Parameters
    ----------
    folder : Path
        The job's folder, <project>/jobs/<id>.
    stale_s : float, optional
        Seconds without a sign of life after which the job is shown as LOST. While its worker
        is alive on this machine they are counted by who looks, so keep the Job and look often.
    """

    def __init__(self, folder: Path, *, stale_s: float = STALE_S) -> None:
        self.folder = Path(folder).resolve()
        self.stale_s = stale_s
        self._files = JobFolder(self.folder)
        self._swept: set[str] = set()
        self._pulse = Pulse()

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
    def queued(self) -> bool:
        """Whether it is left to the supervisor, which resumes it where it is lost."""
        return self._files.queued_file.exists()

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
        return JobStatus.of(record, lost=lost, heartbeat_age_s=self._files.heartbeat_age_s())

    def events(self, since: int = 0) -> tuple[list[Event], int]:
        """Return the events after the position `since`, and the position to pass next time."""
        return read_events(self._files.events_file, since)

    def log_tail(self, lines: int = 50) -> str:
        """Return the last lines of the log; of a redrawn line only what stands there last."""
        text = read_piece(self._files.log_file).text
        return "\n".join(text.rstrip().split("\n")[-lines:])

    def gauges(self) -> Gauges | None:
        """Return what the job takes of its machine, as its worker measured it last."""
        return read_gauges(self.folder)

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
        process = self._launch(command or _WORKER, environment(env))
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
        if record.final and not self.interrupted:
            return
        try:
            write_text(self._files.cancel_file, f"{grace_s}\n")
        except OSError:  # On a full disk there is still room for a name.
            self._files.cancel_file.touch()
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
        keep_wishes: bool = False,
        env: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ) -> None:
        """Start a new attempt of a failed, cancelled or lost job, in the same folder.

        What the last attempt left running on this machine is ended first.

        Parameters
        ----------
        start : bool
            False leaves it pending.
        keep_wishes : bool
            A job that was told to hold or to end does so in the new attempt too.
        env, command
            As for `start`.

        Raises
        ------
        JobError
            The job is in another state, or its worker on another machine still holds it.
        """
        record, lost = self._settled()
        reopened = record.reopened(lost=lost, progressed=self._progressed(record))
        self._clear(record)
        with self._files.hold(15.0):
            self._require_unchanged(record)
            self._reopen(reopened, keep_wishes)
        if start:
            self.start(env=env, command=command)

    def losses(self) -> int:
        """Return how often in a row a worker was lost without getting any further.

        The present attempt counts where it is lost.
        """
        record, lost = self._settled()
        ended, further = lost or self.interrupted, self._progressed(record)
        return in_a_row(record.attempts, lost_now=ended, progressed_now=further)

    @property
    def interrupted(self) -> bool:
        """Whether a queued job was stopped by a signal and nobody cancelled it.

        As where the machine is shut down: that is no end.
        """
        if self._files.cancel_file.exists() or not self.queued:
            return False
        record = self._files.read_record()
        return record.state is State.CANCELLED and record.error.startswith(STOPPED)

    def give_up(self, error: str, remedy: str, cause: Cause = "") -> None:
        """Let a job that is lost or that cannot be started have failed.

        Raises
        ------
        JobError
            The job is over, or a worker holds it.
        """
        record, _ = self._settled()
        self._clear(record)
        with self._files.hold(5.0):
            self._require_unchanged(record)
            failed = record.moved(State.FAILED, error=error, remedy=remedy, cause=cause)
            self._files.write_record(failed)

    def size_bytes(self) -> int:
        """Return the space that deleting the job frees."""
        return self._files.size_bytes()

    def delete(self) -> int:
        """Remove the folder of a job that nobody works on, and return the bytes this freed.

        Raises
        ------
        JobError
            The job is running or paused, or one that has not succeeded needs it.
        """
        jobs = self.folder.parent
        with locked(jobs):  # A supervisor starts nothing meanwhile.
            self.require_unused()
            self.require_unneeded()
            with self._files.hold(5.0):
                freed = self.size_bytes()
            trash = self.folder.with_name(f".deleted-{self.id}-{secrets.token_hex(4)}")
            self.folder.rename(trash)
        shutil.rmtree(trash, ignore_errors=True)
        with suppress(ProjectError), changing(jobs) as order:  # A missing job is skipped anyway.
            order[:] = [job for job in order if job != self.id]
        return freed

    def require_unused(self) -> None:
        """Refuse to touch a job that a worker holds or will hold in a moment.

        Raises
        ------
        JobError
            It is running, paused, or just begins.
        """
        state = self.status().state
        coming = state is State.PENDING and self.launched
        if coming or state in (State.RUNNING, State.PAUSED):
            raise JobError(f"The job {self.id} is {state}.", "Cancel it first.")

    def require_unneeded(self, besides: Collection[str] = ()) -> None:
        """Refuse to remove a job that one which has not succeeded needs.

        Parameters
        ----------
        besides : collection of str
            Ids of jobs that are removed with it.

        Raises
        ------
        JobError
            Another job needs it.
        """
        for file in sorted(self.folder.parent.glob("[0-9]*/job.json")):
            other = Job(file.parent)
            if other.id not in besides and self._is_needed_by(other):
                raise JobError(
                    f"{other.id} needs the job {self.id} and has not succeeded.",
                    f"Delete {other.id} first, or the whole chain.",
                )

    def _is_needed_by(self, other: Job) -> bool:
        with suppress(JobError):
            done = (State.SUCCEEDED, State.CANCELLED)
            return self.id in other.spec.needs and other.status().state not in done
        return False

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
        alive = record.worker is not None and is_alive(record.worker)
        if alive is False:
            return True
        silent_s = self._pulse.silent_s(self._files.heartbeat(), self.stale_s)
        if alive or self._pulse.moved:
            return silent_s > self.stale_s
        age_s = self._files.heartbeat_age_s()  # The first looks at a worker elsewhere.
        return age_s is None or age_s > self.stale_s

    def _progressed(self, record: Record) -> bool:
        return progressed(self._files.events_file, record.since)

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
                    record.moved(State.CANCELLED, error="The job was cancelled.", cause="stopped")
                )

    def _require_unchanged(self, record: Record) -> None:
        if self._files.read_record() != record:
            raise JobError(f"The job {self.id} changed meanwhile.", "Look at it again.")

    def _reopen(self, record: Record, keep_wishes: bool) -> None:
        wishes = () if keep_wishes else (self._files.cancel_file, self._files.pause_file)
        for file in (self._files.launch_file, *wishes):
            file.unlink(missing_ok=True)
        remove_torn(self.folder)
        self._files.make_reserve()
        since = self._files.events_file.stat().st_size if self._files.events_file.exists() else 0
        self._files.write_record(record.model_copy(update={"since": since}))

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


def _end_family(record: Record) -> bool:
    return end(lambda: family(record.task, record.token))
