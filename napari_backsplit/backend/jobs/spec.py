"""What a job is, how it stands, and which changes of its state are legal."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from napari_backsplit.backend.errors import JobError

FORMAT_VERSION = 1
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
    versions : dict
        Versions of Python, this package and the packages that decide a result.
    """

    format_version: int = FORMAT_VERSION
    id: str
    task: str
    params: dict[str, Any]
    title: str = ""
    created: datetime = Field(default_factory=now)
    versions: dict[str, str] = {}
    platform: str = ""


class ProcessMark(_Frozen):
    """A process that is not mistaken for a later one with the same number."""

    pid: int
    started: str
    host: str


class Attempt(_Frozen):
    """How an earlier attempt ended."""

    number: int
    state: State
    error: str = ""
    started: datetime | None = None
    ended: datetime | None = None


class Record(_Frozen):
    """The content of status.json.

    Attributes
    ----------
    worker, task : ProcessMark or None
        The process that watches the job, and the one that does its work.
    token : str
        In the environment of each process of the present attempt, to recognise left-overs.
    attempts : tuple of Attempt
        The attempts before the present one.
    """

    state: State = State.PENDING
    attempt: int = 1
    error: str = ""
    remedy: str = ""
    result: dict[str, Any] | None = None
    started: datetime | None = None
    ended: datetime | None = None
    worker: ProcessMark | None = None
    task: ProcessMark | None = None
    token: str = ""
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

    def reopened(self, *, lost: bool = False) -> Record:
        """Return the record of a new attempt, the present one added to the history.

        Parameters
        ----------
        lost : bool
            The attempt never reached a final state and its worker is gone.

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
        )
        return Record(attempt=self.attempt + 1, attempts=(*self.attempts, ended))


class JobStatus(_Frozen):
    """How a job stands, as a person sees it.

    Attributes
    ----------
    error, remedy : str
        What went wrong and what to do; empty when nothing did.
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
    result: dict[str, Any] | None = None
    started: datetime | None = None
    ended: datetime | None = None
    attempt: int = 1
    attempts: tuple[Attempt, ...] = ()
    pid: int | None = None
    task_pid: int | None = None
    host: str = ""
    heartbeat_age_s: float | None = None

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
