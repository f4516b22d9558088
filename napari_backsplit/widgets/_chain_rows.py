"""What the history shows of each chain; those that are over are read once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs import Chain, ChainStatus, Job, JobStatus, State, move, queued
from napari_backsplit.backend.jobs.chain import grouped
from napari_backsplit.backend.jobs.queue import views
from napari_backsplit.backend.jobs.schedule import View
from napari_backsplit.backend.jobs.spec import RESUMABLE
from napari_backsplit.widgets._numbers import duration
from napari_backsplit.widgets._states import WORDS

OVER = (State.SUCCEEDED, State.FAILED, State.CANCELLED)
_Key = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ChainRow:
    """A line of the history.

    Attributes
    ----------
    chain : Chain
    place : int
        Its place in the queue, from 1; 0 where it does not wait there.
    created : datetime
        When it was asked for.
    ran_s : float, optional
        Seconds from its first start to its end, or to now; None before it.
    said : str
        Result, cause of the failure, or what goes on.
    found_by : str
        What a search looks through, in small letters.
    """

    chain: Chain
    state: State
    place: int
    created: datetime
    ran_s: float | None
    said: str
    found_by: str

    @property
    def name(self) -> str:
        """The name of the chain."""
        return self.chain.name

    @property
    def title(self) -> str:
        """Its title, for a person."""
        return self.chain.title or self.chain.name

    @property
    def word(self) -> str:
        """Its state, for a person."""
        if self.state is State.PENDING and self.place:
            return "next in the queue" if self.place == 1 else f"{self.place} in the queue"
        return WORDS[self.state]

    def told(self, now: datetime) -> str:
        """Return all but the title, in one line."""
        parts = [self.word, when(self.created, now)]
        if self.ran_s is not None:
            parts.append(duration(self.ran_s))
        return " · ".join((*parts, self.said) if self.said else parts)

    @property
    def over(self) -> bool:
        """Whether nothing is left to do."""
        return self.state in OVER

    @property
    def resumable(self) -> bool:
        """Whether it can go on from where it ended."""
        return self.state in RESUMABLE or (self.state is State.PENDING and not self.place)

    @property
    def cancellable(self) -> bool:
        """Whether it is still at work, or will be."""
        return not self.over and self.state is not State.LOST

    def needs(self, other: ChainRow) -> bool:
        """Whether it has work left that names a job of another chain."""
        return not self.over and any(job.id in self.found_by for job in other.chain.jobs)

    def matches(self, words: Iterable[str]) -> bool:
        """Whether every word, in small letters, is found in titles, ids, states or parameters."""
        known = f"{self.word} {self.said} {self.found_by}".casefold()
        return all(word in known for word in words)


def when(time: datetime, now: datetime) -> str:
    """Return a time for a person, in the zone of `now`: 16:03, yesterday 16:03, 3 Nov 16:03."""
    local = time.astimezone(now.tzinfo)
    days = (now.date() - local.date()).days
    if days == 0:
        return f"{local:%H:%M}"
    if days == 1:
        return f"yesterday {local:%H:%M}"
    year = f" {local.year}" if local.year != now.year else ""
    return f"{local.day} {local:%b}{year} {local:%H:%M}"


@dataclass(frozen=True)
class _Seen:
    """A job as it was seen last, and when its status was written then."""

    written_ns: int
    view: View
    status: JobStatus


class ChainRows:
    """Reads the chains of a project, again and again; what is over is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._jobs: dict[str, Job] = {}  # Kept: they know how long their workers are silent.
        self._seen: dict[str, _Seen] = {}
        self._over: dict[str, tuple[_Key, ChainRow]] = {}
        self._found_by: dict[str, str] = {}

    def read(self) -> list[ChainRow]:
        """Return a row for each chain, the newest first."""
        self._look()
        looked = {job: seen.view for job, seen in self._seen.items()}
        chains = grouped(job for name, job in self._jobs.items() if name in self._seen)
        rows = [self._row(chain, looked) for chain in chains]
        return with_places(rows, queued(self.folder))[::-1]

    def _look(self) -> None:
        """Look at every job that is not known to be over; one that cannot be read is left out."""
        place = self.folder / "jobs"
        names = sorted(os.listdir(place)) if place.exists() else []  # noqa: PTH208  # of thousands
        known, self._jobs = self._jobs, {}
        for name in names:
            if name in known or (name[:1].isdigit() and (place / name / "job.json").exists()):
                self._jobs[name] = known.get(name) or Job(place / name)
        before, self._seen = self._seen, {}
        for name, job in self._jobs.items():
            with suppress(JobError, OSError):
                self._seen[name] = _look(job, before.get(name))

    def _row(self, chain: Chain, looked: Mapping[str, View]) -> ChainRow:
        key = tuple((job.id, self._seen[job.id].written_ns) for job in chain.jobs)
        known = self._over.get(chain.name)
        if known is not None and known[0] == key:
            return known[1]
        row = self._read(chain, chain.status_among(looked))
        if row.over:
            self._over[chain.name] = (key, row)
        return row

    def _read(self, chain: Chain, status: ChainStatus) -> ChainRow:
        each = [self._seen[job.id].status for job in chain.jobs]
        return ChainRow(
            chain,
            status.state,
            0,
            chain.jobs[0].spec.created,
            _ran_s(each, status.state in OVER),
            _said(chain, status, each),
            self._text(chain),
        )

    def _text(self, chain: Chain) -> str:
        for job in chain.jobs:
            if job.id not in self._found_by:
                params = json.dumps(job.spec.params, ensure_ascii=False)
                self._found_by[job.id] = f"{job.id} {job.spec.title} {params}"
        texts = (self._found_by[job.id] for job in chain.jobs)
        return " ".join((chain.name, chain.title, *texts)).casefold()


def _look(job: Job, before: _Seen | None) -> _Seen:
    if before is not None and before.status.state is State.SUCCEEDED:
        return before  # Nothing begins it again.
    written_ns = os.stat(f"{job.folder}/status.json").st_mtime_ns  # noqa: PTH116  # the quickest
    if before is not None and before.written_ns == written_ns and _rests(job, before):
        return before
    return _Seen(written_ns, views([job])[job.id], job.status())


def _rests(job: Job, seen: _Seen) -> bool:
    """Whether a job stands as it was seen as long as its status is not written."""
    waited = seen.status.state is State.PENDING and not seen.view.launched
    return seen.status.final or (waited and not job.launched)


def with_places(rows: list[ChainRow], order: list[str]) -> list[ChainRow]:
    """Return the rows with their places in the queue: a chain that waits counts as one.

    Parameters
    ----------
    order : list of str
        Ids of the queued jobs.
    """
    waiting = [r for r in rows if r.state is State.PENDING and first_in(r.chain, order) is not None]
    waiting.sort(key=lambda row: first_in(row.chain, order) or 0)
    places = {row.name: place for place, row in enumerate(waiting, start=1)}
    return [replace(row, place=places.get(row.name, 0)) for row in rows]


def first_in(chain: Chain, order: list[str]) -> int | None:
    """Return where the first of a chain's jobs is in the order; None where none is."""
    return next((n for n, job in enumerate(order) if job in {j.id for j in chain.jobs}), None)


def _ran_s(each: list[JobStatus], over: bool) -> float | None:
    started = [status.started for status in each if status.started]
    if not started:
        return None
    ended = [status.ended for status in each if status.ended]
    end = max(ended) if over and ended else datetime.now(started[0].tzinfo)
    return max(0.0, (end - min(started)).total_seconds())


def _said(chain: Chain, status: ChainStatus, each: list[JobStatus]) -> str:
    if status.state is State.SUCCEEDED:
        return result_words(chain.jobs[-1].spec.task, each[-1].result or {})
    if status.state in (State.RUNNING, State.PAUSED) and status.current is not None:
        what = status.current.spec.title.rpartition(":")[2].strip() or status.current.id
        step = f"step {status.done + 1} of {status.total}"
        return f"{step}: {what}" if status.total > 1 else ""
    return status.message


def result_words(task: str, result: Mapping[str, Any]) -> str:
    """Return what a task came to, in a few words; "" where nothing needs to be said."""
    if task == "compare" and result.get("verdict"):
        return " ".join(result["verdict"])  # All: the first alone may claim too much.
    cases = result.get("cases")
    count = len(cases) if isinstance(cases, list | dict) else cases
    if isinstance(count, int):
        return f"{count} case{'s' * (count != 1)}"
    return ""


def put_before(folder: Path, chain: Chain, other: Chain) -> None:
    """Let a chain that waits in the queue come before another one that does."""
    order = queued(folder)
    place = first_in(other, order)
    mine = [job for job in order if job in {j.id for j in chain.jobs}]
    if place is not None:
        for n, job in enumerate(mine):
            move(folder, job, place + n)
