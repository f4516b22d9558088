"""Jobs that need one another, as the one thing that a person asked for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from napari_backsplit.backend.errors import JobError
from napari_backsplit.backend.jobs.folder import JobFolder
from napari_backsplit.backend.jobs.job import Job
from napari_backsplit.backend.jobs.order import changing, locked, read_order
from napari_backsplit.backend.jobs.queue import (
    device_of,
    ensure_supervisor,
    list_jobs,
    make,
    take,
    views,
)
from napari_backsplit.backend.jobs.schedule import View, Views, waits_for
from napari_backsplit.backend.jobs.spec import GRACE_S, State

_SHOWN = (State.RUNNING, State.PAUSED, State.LOST, State.FAILED, State.CANCELLED, State.PENDING)


class ChainStatus(NamedTuple):
    """How a chain stands.

    Attributes
    ----------
    done, total : int
        Links that have succeeded, and all of them.
    current : Job or None
        The link to look at: the one that runs, or that stands in the way; None once all is done.
    message : str
        What went wrong, or what it waits for.
    """

    state: State
    done: int
    total: int
    current: Job | None
    message: str


@dataclass(frozen=True)
class Chain:
    """A chain of jobs; a job on its own is a chain of one.

    Attributes
    ----------
    name : str
        Id of its first job.
    title : str
        For people: the first job's title up to its colon.
    jobs : tuple of Job
        The links, oldest first, without those that others have replaced.
    replaced : tuple of Job
        Links that were repeated with changes, before that.
    """

    name: str
    title: str
    jobs: tuple[Job, ...]
    replaced: tuple[Job, ...] = ()

    def status(self) -> ChainStatus:
        """Return how the chain stands."""
        seen = views(self.jobs)
        if any(view.state is State.PENDING for view in seen.values()):
            seen = {**views(list_jobs(self._project)), **seen}  # It may wait for another chain.
        return self.status_among(seen)

    def status_among(self, seen: Views) -> ChainStatus:
        """Return how the chain stands, where all jobs of the project were looked at."""
        links = [(job, seen.get(job.id, View(None))) for job in self.jobs]
        done = sum(view.state is State.SUCCEEDED for _, view in links)
        if done == len(links):
            return ChainStatus(State.SUCCEEDED, done, done, None, "")
        state, current = _worst(links)
        message = current.status().message if state is not None else "Its files cannot be read."
        if state is State.PENDING:
            message = waits_for(current.id, read_order(self._jobs), seen)
        return ChainStatus(state or State.FAILED, done, len(links), current, message)

    def cancel(self, grace_s: float = GRACE_S) -> None:
        """End the link that runs or is next, and take the rest from the queue.

        Parameters
        ----------
        grace_s : float
            As for `Job.cancel`.
        """
        take(self._project, [job.id for job in self.jobs])
        live = [
            job for job in self.jobs if _state(job) in (State.RUNNING, State.PAUSED, State.LOST)
        ]
        ended = [job for job in self.jobs if _state(job) in (State.FAILED, State.CANCELLED)]
        pending = [job for job in self.jobs if _state(job) is State.PENDING]
        live += [job for job in pending if job.launched]
        for job in live or ([] if ended else pending[:1]):
            job.cancel(grace_s)

    def pause(self) -> None:
        """Hold the link that runs.

        Raises
        ------
        JobError
            None does.
        """
        running = [job for job in self.jobs if _state(job) is State.RUNNING]
        if not running:
            raise JobError(f"No link of {self.name} runs.", "Only a running one can be paused.")
        for job in running:
            job.pause()

    def unpause(self) -> None:
        """Let what was paused go on."""
        for job in self.jobs:
            job.unpause()

    def go_on(
        self, *, env: Mapping[str, str] | None = None, command: Sequence[str] | None = None
    ) -> None:
        """Go on where the chain ended: its failed, cancelled or lost links, then the rest.

        Parameters
        ----------
        env, command
            As for `ensure_supervisor`.

        Raises
        ------
        JobError
            All links have succeeded, or one that was cancelled has not ended yet.
        """
        states = [(job, _state(job)) for job in self.jobs]
        if all(state is State.SUCCEEDED for _, state in states):
            raise JobError(f"All links of {self.name} have succeeded.", "Repeat it with changes.")
        for job, state in states:
            if state in (State.RUNNING, State.PAUSED) and _is_ending(job):
                raise JobError(f"The job {job.id} is still ending.", "Try again in a moment.")
        for job, state in states:
            if state in (State.FAILED, State.CANCELLED, State.LOST):
                job.resume(start=False)
        waiting = [job.id for job in self.jobs if _state(job) is State.PENDING]
        with changing(self._jobs) as order:
            order[:] = [*waiting, *order]
        ensure_supervisor(self._project, env=env, command=command)

    def delete(self) -> int:
        """Remove all links, and return the bytes that this freed.

        Raises
        ------
        JobError
            One runs, or a job of another chain needs one.
        """
        every = sorted((*self.replaced, *self.jobs), key=lambda job: job.id)
        with locked(self._jobs):
            for job in every:
                job.require_unused()
                job.require_unneeded({job.id for job in every})
        take(self._project, [job.id for job in every])
        return sum(job.delete() for job in reversed(every))

    def size_bytes(self) -> int:
        """Return the space that deleting the chain frees."""
        return sum(job.size_bytes() for job in (*self.replaced, *self.jobs))

    @property
    def _jobs(self) -> Path:
        return self.jobs[0].folder.parent

    @property
    def _project(self) -> Path:
        return self._jobs.parent


def chains(project_folder: Path) -> list[Chain]:
    """Return the chains of a project, oldest first; jobs that cannot be read are left out."""
    return grouped(list_jobs(project_folder))


def grouped(jobs: Iterable[Job]) -> list[Chain]:
    """Return the chains of jobs given oldest first; those that cannot be read are left out."""
    found: dict[str, list[Job]] = {}
    for job in jobs:
        try:
            found.setdefault(job.spec.chain or job.id, []).append(job)
        except JobError:
            continue
    return [_chain(name, jobs) for name, jobs in sorted(found.items())]


def repeat(
    job: Job,
    changes: Mapping[str, Any],
    *,
    title: str | None = None,
    env: Mapping[str, str] | None = None,
    command: Sequence[str] | None = None,
) -> Job:
    """Do a job again with other parameters.

    The links of its chain that need it, directly or not, are made anew with it and name the new
    jobs instead of the old. In a chain that has not succeeded they take the old ones' places,
    and those that have not run are cancelled; one that has succeeded stays, and the repetition
    is a chain of its own.

    Parameters
    ----------
    job : Job
        One that does not run.
    changes : mapping
        Merged into its parameters, mappings key by key.
    title : str, optional
        The new job's title; the old one's by default.
    env, command
        As for `ensure_supervisor`.

    Returns
    -------
    Job
        The new job, in the queue.

    Raises
    ------
    JobError
        The job, or one that needs it, runs; or it was repeated before.
    """
    chain = _chain_of(job)
    _require_present(job, chain)
    old = _needing(job, chain.jobs)
    for link in old:
        link.require_unused()
    within = chain.status().state is not State.SUCCEEDED
    made: dict[str, Job] = {}
    for link in old:
        asked = (changes, title) if link.id == job.id else ({}, None)
        made[link.id] = _anew(link, made, chain.name if within else "", *asked)
    _swap(job.folder.parent, {name: new.id for name, new in made.items()})
    for link in old if within else ():
        link.cancel()  # Also one that began meanwhile.
    ensure_supervisor(job.folder.parent.parent, env=env, command=command)
    return made[job.id]


def _anew(
    link: Job,
    made: Mapping[str, Job],
    chain: str,
    changes: Mapping[str, Any],
    title: str | None,
) -> Job:
    """Make a link again, naming those already made instead of the old ones.

    Parameters
    ----------
    chain : str
        The chain in which it replaces the old one; "" for a chain of their own.
    """
    spec, new = link.spec, {name: job.id for name, job in made.items()}
    params = renamed(merge(spec.params, changes), new)
    return make(
        link.folder.parent.parent,
        spec.task,
        params,
        spec.title if title is None else title,
        known=True,
        needs=tuple(new.get(need, need) for need in spec.needs),
        chain=chain or next(iter(new.values()), ""),
        replaces=link.id if chain else "",
        device=device_of(params, spec.device),
        where=spec.where,
    )


def merge(params: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with changes; mappings are merged key by key, all else is replaced."""
    both = {
        key: merge(params[key], value)
        for key, value in changes.items()
        if isinstance(value, Mapping) and isinstance(params.get(key), Mapping)
    }
    return {**params, **changes, **both}


def renamed(value: Any, new: Mapping[str, str]) -> Any:
    """Return JSON with ids of jobs replaced wherever a text holds them."""
    if isinstance(value, str) and new:
        every = "|".join(map(re.escape, new))
        return re.sub(rf"(?<!\w)({every})(?![\w-])", lambda found: new[found[1]], value)
    if isinstance(value, Mapping):
        return {key: renamed(item, new) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(item, new) for item in value]
    return value


def _swap(jobs: Path, new: Mapping[str, str]) -> None:
    """Put new jobs where the first of the old ones was queued, or last."""
    with changing(jobs) as order:
        places = [order.index(job) for job in new if job in order]
        place = min(places, default=len(order))
        order[place:place] = new.values()
        order[:] = [job for job in order if job not in new]


def _chain(name: str, jobs: Sequence[Job]) -> Chain:
    gone = {job.spec.replaces for job in jobs}
    title = jobs[0].spec.title.partition(":")[0] or jobs[0].id
    if len(jobs) == 1:
        title = jobs[0].spec.title or jobs[0].id
    present = tuple(job for job in jobs if job.id not in gone)
    return Chain(name, title, present, tuple(job for job in jobs if job.id in gone))


def _chain_of(job: Job) -> Chain:
    name = job.spec.chain or job.id
    return next(c for c in chains(job.folder.parent.parent) if c.name == name)


def _require_present(job: Job, chain: Chain) -> None:
    for other in (*chain.replaced, *chain.jobs):
        if other.spec.replaces == job.id:
            raise JobError(f"{other.id} has taken the place of {job.id}.", f"Repeat {other.id}.")


def _is_ending(job: Job) -> bool:
    return JobFolder(job.folder).cancel_file.exists()


def _needing(job: Job, links: Sequence[Job]) -> list[Job]:
    """Return a job and the links that need it, directly or not; ids grow along needs."""
    found = {job.id: job}
    for link in links:
        if not found.keys().isdisjoint(link.spec.needs):
            found[link.id] = link
    return list(found.values())


def _state(job: Job) -> State | None:
    try:
        return job.status().state
    except JobError:
        return None


def _worst(links: Sequence[tuple[Job, View]]) -> tuple[State | None, Job]:
    """Return the state that a person should see first, with its first link."""
    for state in _SHOWN:
        for job, view in links:
            if view.state is state:
                return state, job
    return None, next(job for job, view in links if view.state is None)
