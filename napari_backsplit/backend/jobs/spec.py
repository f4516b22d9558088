"""What a job is, how it stands, and which changes of its state are legal."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_backsplit.backend.errors import JobError

FORMAT_VERSION = 1
STOPPED = "The job was stopped by signal"
GRACE_S = 20.0  # between a request to cancel and the end of the process group


class State(StrEnum):
    """A job's state. LOST is only ever shown, never written as the state of a job."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    LOST = "LOST"


Cause = Literal[
    "",
    "gpu memory",
    "memory",
    "workers died",
    "not a number",
    "killed",
    "disk full",
    "refused",
    "stopped",
]
"""Kinds of failure. "refused" is an input that was not accepted, "stopped" a person's or the
system's wish; "" anything else."""

FINAL = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
RESUMABLE = frozenset({State.FAILED, State.CANCELLED, State.LOST})
NEXT: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: FINAL | {State.PAUSED},
    State.PAUSED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset(),
    State.CANCELLED: frozenset(),
}


def now() -> datetime:
    """Return the time with its zone (UTC)."""
    return datetime.now(UTC)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class JobSpec(_Frozen):
    """The frozen content of job.json.

    Attributes
    ----------
    task : str
        A name of the task registry.
    params : dict
        JSON values; paths are relative to the project folder.
    needs : tuple of str
        Ids of the jobs that must have succeeded before this one runs.
    chain : str
        Id of the first job of the chain that this one is a link of; "" for a job on its own.
    device : str
        What the job occupies while it runs: cpu, mps, cuda or cuda:N. One job a device.
    where : str
        Address of the Dask scheduler that runs it; "" for this machine.
    replaces : str
        Id of the job whose place in the chain it takes, with other parameters.
    versions : dict
        Versions of Python, this package and the packages that decide a result.
    """

    format_version: int = FORMAT_VERSION
    id: str
    task: str
    params: dict[str, Any]
    title: str = ""
    needs: tuple[str, ...] = ()
    chain: str = ""
    device: str = "cpu"
    where: str = ""
    replaces: str = ""
    created: datetime = Field(default_factory=now)
    versions: dict[str, str] = {}
    platform: str = ""


class ProcessMark(_Frozen):
    """A process that is not mistaken for a later one with the same number."""

    pid: int
    started: str
    host: str


class Attempt(_Frozen):
    """How an earlier attempt ended.

    Attributes
    ----------
    progressed : bool
        Whether it came further than those before it.
    """

    number: int
    state: State
    error: str = ""
    started: datetime | None = None
    ended: datetime | None = None
    progressed: bool = True

    @property
    def interrupted(self) -> bool:
        """Whether neither the task nor a person ended it."""
        return self.state is State.LOST or self.error.startswith(STOPPED)


class Record(_Frozen):
    """The content of status.json.

    Attributes
    ----------
    worker, task : ProcessMark or None
        The process that watches the job, and the one that does its work.
    token : str
        In the environment of each process of the present attempt, to recognise left-overs.
    since : int
        Where the events of the present attempt start, in bytes.
    attempts : tuple of Attempt
        The attempts before the present one.
    """

    state: State = State.PENDING
    attempt: int = 1
    error: str = ""
    remedy: str = ""
    cause: Cause = ""
    result: dict[str, Any] | None = None
    started: datetime | None = None
    ended: datetime | None = None
    worker: ProcessMark | None = None
    task: ProcessMark | None = None
    token: str = ""
    since: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def final(self) -> bool:
        """Whether the attempt is over."""
        return self.state in FINAL

    def moved(self, state: State, **changes: Any) -> Record:
        """Return the record in another state.

        Raises
        ------
        JobError
            The change is not legal; a final state never changes.
        """
        if state not in NEXT[self.state]:
            raise JobError(f"A job that is {self.state} cannot become {state}.")
        if state in FINAL:
            changes = {"ended": now(), **changes}
        return self.model_copy(update={"state": state, **changes})

    def reopened(self, *, lost: bool = False, progressed: bool = True) -> Record:
        """Return the record of a new attempt, the present one added to the history.

        Parameters
        ----------
        lost : bool
            The attempt never reached a final state and its worker is gone.
        progressed : bool
            It came further than those before it.

        Raises
        ------
        JobError
            There is nothing to resume.
        """
        state = State.LOST if lost and not self.final else self.state
        if state not in RESUMABLE:
            raise JobError(
                f"A job that is {state} cannot be resumed.",
                "Only a failed, cancelled or lost job can.",
            )
        ended = Attempt(
            number=self.attempt,
            state=state,
            error=self.error,
            started=self.started,
            ended=self.ended,
            progressed=progressed,
        )
        return Record(attempt=self.attempt + 1, attempts=(*self.attempts, ended))


_GONE: dict[str, Any] = {
    "state": State.LOST,
    "error": "The job's worker is gone or silent.",
    "remedy": "Resume the job to continue.",
}


class JobStatus(_Frozen):
    """How a job stands, as a person sees it.

    Attributes
    ----------
    error, remedy : str
        What went wrong and what to do; empty when nothing did.
    cause : str
        Which kind of failure it was, for what can be offered to do about it.
    result : dict or None
        What the task returned, once it succeeded.
    pid, task_pid : int or None
        The processes of the present attempt (`host` says where).
    heartbeat_age_s : float or None
        Seconds since the last sign of life; None before the first.
    """

    state: State
    error: str = ""
    remedy: str = ""
    cause: Cause = ""
    result: dict[str, Any] | None = None
    started: datetime | None = None
    ended: datetime | None = None
    attempt: int = 1
    attempts: tuple[Attempt, ...] = ()
    pid: int | None = None
    task_pid: int | None = None
    host: str = ""
    heartbeat_age_s: float | None = None

    @classmethod
    def of(cls, record: Record, *, lost: bool, heartbeat_age_s: float | None) -> JobStatus:
        """Return how a job stands by its record, unless its worker is gone."""
        worker, task = record.worker, record.task
        said = {"error": record.error, "remedy": record.remedy, "cause": record.cause}
        return cls(
            **(_GONE if lost else {"state": record.state, **said}),
            result=record.result,
            started=record.started,
            ended=record.ended,
            attempt=record.attempt,
            attempts=record.attempts,
            pid=worker.pid if worker else None,
            task_pid=task.pid if task else None,
            host=worker.host if worker else "",
            heartbeat_age_s=heartbeat_age_s,
        )

    @property
    def final(self) -> bool:
        """Whether the job is over, well or not. A lost job is not: it can be resumed."""
        return self.state in FINAL

    @property
    def resumable(self) -> bool:
        """Whether `Job.resume` would start it again."""
        return self.state in RESUMABLE

    @property
    def message(self) -> str:
        """What went wrong with its remedy, in one line."""
        return f"{self.error} {self.remedy}".strip()
