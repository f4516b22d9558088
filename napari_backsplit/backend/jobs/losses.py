"""Whether a job that is lost again and again gets anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_backsplit.backend.jobs.events import Progress, read_events
from napari_backsplit.backend.jobs.spec import Attempt


def progressed(events_file: Path, since: int) -> bool:
    """Whether the events from a position on report more progress than all those before it."""
    new = _reports(events_file, since)
    every = _reports(events_file, 0)
    most: dict[int, int] = {}
    for event in every[: len(every) - len(new)]:
        most[event.total] = max(event.done, most.get(event.total, 0))
    return any(event.done > most.get(event.total, 0) for event in new)


def in_a_row(attempts: Sequence[Attempt], *, lost_now: bool, progressed_now: bool) -> int:
    """Return how many of the last attempts ended by a loss, none of them further than before."""
    vain = [attempt.interrupted and not attempt.progressed for attempt in attempts]
    vain += [not progressed_now] if lost_now else []
    return next((n for n, this in enumerate(reversed(vain)) if not this), len(vain))


def _reports(events_file: Path, since: int) -> list[Progress]:
    return [event for event in read_events(events_file, since)[0] if isinstance(event, Progress)]
