"""What a task says while it runs: one JSON line each in events.jsonl."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import to_json

from napari_backsplit.backend.errors import JobError


@dataclass(frozen=True)
class Phase:
    """The task enters a named part of its work."""

    name: str
    time: float = Field(default_factory=time.time)
    kind: Literal["phase"] = "phase"


@dataclass(frozen=True)
class Progress:
    """`done` of `total` units are finished; about `eta_s` seconds remain."""

    done: int
    total: int
    text: str = ""
    eta_s: float | None = None
    time: float = Field(default_factory=time.time)
    kind: Literal["progress"] = "progress"


@dataclass(frozen=True)
class Metric:
    """A point of a curve. The value may be NaN or infinite."""

    name: str
    step: int
    value: float
    time: float = Field(default_factory=time.time)
    kind: Literal["metric"] = "metric"


@dataclass(frozen=True)
class Note:
    """A sentence for the person who follows the job."""

    level: Literal["info", "warning", "error"]
    text: str
    time: float = Field(default_factory=time.time)
    kind: Literal["note"] = "note"


@dataclass(frozen=True)
class Picture:
    """A picture to look at: `file` lies in the job's folder; `step` as of a metric."""

    file: str
    step: int
    text: str = ""
    time: float = Field(default_factory=time.time)
    kind: Literal["picture"] = "picture"


Event = Phase | Progress | Metric | Note | Picture
_ADAPTER: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="kind")])


def to_line(event: Event) -> bytes:
    """Return the event as one line of strict JSON (a NaN becomes the string "NaN")."""
    return to_json(vars(event), inf_nan_mode="strings") + b"\n"


def from_line(line: bytes) -> Event | None:
    """Read one line; None for a torn one or a kind that a newer version wrote."""
    try:
        return _ADAPTER.validate_json(line)
    except ValidationError:
        return None


class EventLog:
    """Appends events to a file, each with a single write.

    A line that an earlier writer left half written is closed first, so that it costs no
    later event.
    """

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        self._torn = _ends_torn(path)

    def append(self, event: Event) -> None:
        """Write one event.

        Raises
        ------
        OSError
            The disk is full; the torn line is dropped by every reader.
        """
        line = b"\n" * self._torn + to_line(event)
        self._torn = True
        written = os.write(self._descriptor, line)
        if written < len(line):
            os.write(self._descriptor, line[written:])
        self._torn = False

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)


def _ends_torn(path: Path) -> bool:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def read_events(path: Path, since: int = 0) -> tuple[list[Event], int]:
    """Read the events after a position.

    Parameters
    ----------
    path : Path
        The file; a missing one holds no events.
    since : int
        The position that an earlier call returned, in bytes.

    Returns
    -------
    events : list of Event
        A last line without its end is left for the next call; unreadable lines are dropped.
    position : int
        What to pass as `since` next time.
    """
    try:
        with path.open("rb") as file:
            file.seek(since)
            data = file.read()
    except FileNotFoundError:
        return [], since
    whole = data[: data.rfind(b"\n") + 1]
    events = (from_line(line) for line in whole.splitlines() if line)
    return [event for event in events if event is not None], since + len(whole)


def plain(value: dict[str, Any], what: str) -> dict[str, Any]:
    """Return `value` as JSON holds it: tuples become lists, NumPy's numbers plain ones.

    Raises
    ------
    JobError
        JSON cannot hold it; says what it was meant for.
    """
    try:
        copy: dict[str, Any] = json.loads(json.dumps(value, default=_number))
    except (TypeError, ValueError) as error:
        raise JobError(f"{what} is not plain JSON: {error}.", "Use numbers and texts.") from error
    return copy


def _number(value: Any) -> Any:
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no JSON value")
