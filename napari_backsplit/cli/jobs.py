"""Commands for jobs: list, follow, pause, continue, cancel, resume, and the order of the queue."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_backsplit.backend.errors import JobError
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, require_project

if TYPE_CHECKING:
    from napari_backsplit.backend.jobs import Chain, Job, JobStatus
    from napari_backsplit.backend.jobs.schedule import View

commands = typer.Typer(help="Follow, order, pause, cancel and resume jobs.", no_args_is_help=True)
app.add_typer(commands, name="jobs", rich_help_panel="4 Jobs")

JobArgument = Annotated[str, typer.Argument(help="Number or id of the job.")]
ChainArgument = Annotated[
    str, typer.Argument(help="Number or id of the job; a chain has that of its first job.")
]
OnlyOption = Annotated[
    bool, typer.Option("--only", help="Only the job itself, not the chain that it begins.")
]
DetachOption = Annotated[bool, typer.Option("--detach", help="Do not wait for it.")]
COLUMNS = ("job", "title", "state", "step", "progress", "left", "message")
_TAIL_BYTES = 1 << 16


def find_job(project: Path, number: str, task: str | None = None) -> Job:
    """Return a job by its number ("3") or id ("0003-train").

    Raises
    ------
    JobError, ProjectError
        There is none, it does another task, or there is no such project.
    """
    from napari_backsplit.backend.jobs import list_jobs

    require_project(project)
    wanted = int(number) if number.isdecimal() else -1
    for job in list_jobs(project):
        if job.id == number or _number(job.id) == wanted:
            if task not in (None, job.spec.task):
                raise JobError(f"Job {job.id} is no {task} job.", "See: backsplit jobs list")
            return job
    raise JobError(f"The project has no job {number!r}.", "See them with: backsplit jobs list")


def find_chain(project: Path, number: str, only: bool = False) -> Chain | None:
    """Return the chain of several jobs that a job begins; None where it begins none."""
    from napari_backsplit.backend.jobs import chains

    if only:
        return None
    names = [chain for chain in chains(project) if len(chain.jobs) + len(chain.replaced) > 1]
    found = (c for c in names if number == c.name or _number(number) == _number(c.name))
    return next(found, None)


def _number(job: str) -> int | None:
    digits = job.partition("-")[0]
    return int(digits) if digits.isdecimal() else None


@commands.command("list")
def list_(
    project: ProjectOption = Path(),
    every: Annotated[bool, typer.Option("--all", help="Each link of a chain by itself.")] = False,
    find: Annotated[str, typer.Option(help="Only those with this text in name or title.")] = "",
    size: Annotated[bool, typer.Option("--size", help="What deleting each would free.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Show the jobs and how they stand; jobs that need one another are one line."""
    from napari_backsplit.cli.console import show, table

    require_project(project)
    columns = (*COLUMNS, *(("size",) if size else ()))
    rows = list((_job_rows if every else _chain_rows)(project, find.casefold(), size))
    show([dict(zip(columns, row, strict=True)) for row in rows], as_json)
    if not as_json:
        table(columns, ([_word(cell) for cell in row] for row in rows))


def _word(cell: Any) -> str:
    return size_words(cell) if isinstance(cell, int) else str(cell)


def _chain_rows(project: Path, find: str, size: bool) -> Iterable[list[Any]]:
    from napari_backsplit.backend.jobs import chains, list_jobs
    from napari_backsplit.backend.jobs.queue import views

    jobs = list_jobs(project)
    seen = views(jobs)
    every = " ".join(job.spec.id for job in jobs)  # One that cannot be read is not passed over.
    for chain in chains(project) if every else ():
        texts = [chain.title, *(f"{job.id} {job.spec.title}" for job in chain.jobs)]
        if find not in " ".join(texts).casefold():
            continue
        status = chain.status_among(seen)
        step = min(status.done + 1, status.total)
        steps = f"step {step} of {status.total}" if status.total > 1 else ""
        done = _progress(status.current or chain.jobs[-1])
        row = [chain.name, chain.title, str(status.state), steps, *done, status.message]
        yield row + ([chain.size_bytes()] if size else [])


def _job_rows(project: Path, find: str, size: bool) -> Iterable[list[Any]]:
    from napari_backsplit.backend.jobs import list_jobs, queued
    from napari_backsplit.backend.jobs.queue import views

    jobs = list_jobs(project)
    seen, order = views(jobs), queued(project)
    for job in jobs:
        if find not in f"{job.id} {job.spec.title}".casefold():
            continue
        status = job.status()
        message = _message(job.id, status, order, seen)
        row = [job.id, job.spec.title, str(status.state), "", *_progress(job), message]
        yield row + ([job.size_bytes()] if size else [])


def _message(job: str, status: JobStatus, order: list[str], seen: dict[str, View]) -> str:
    from napari_backsplit.backend.jobs import State
    from napari_backsplit.backend.jobs.schedule import waits_for

    waiting = status.state is State.PENDING
    return waits_for(job, order, seen) if waiting else status.message


def _progress(job: Job) -> tuple[str, str]:
    """Return how far a job came and how long it will take, in words."""
    from napari_backsplit.backend.jobs import Progress

    file = job.folder / "events.jsonl"
    size = file.stat().st_size if file.exists() else 0
    events = (e for e in job.events(max(0, size - _TAIL_BYTES))[0] if isinstance(e, Progress))
    last = max(events, key=lambda event: event.time, default=None)
    if last is None:
        return "", ""
    done = f"{100 * last.done // last.total} %" if last.total else str(last.done)
    left = "" if last.eta_s is None or job.status().final else time_words(last.eta_s)
    return done, left


def time_words(seconds: float) -> str:
    """Return a time to come for a person: "3 h 10 min"."""
    minutes = round(seconds / 60)
    if minutes < 1:
        return "under a minute"
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"


def size_words(size: float) -> str:
    """Return a size for a person: "1.2 GB"."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


@commands.command()
def run(project: ProjectOption = Path(), detach: DetachOption = False) -> None:
    """See to it that the queue goes on, and show its progress until nothing is left to do."""
    from napari_backsplit.backend.jobs import ensure_supervisor
    from napari_backsplit.cli.console import say

    require_project(project)
    ensure_supervisor(project)
    failed = not detach and _follow_queue(project)
    for name, words in _standing(project):
        say(f"{name} {words}".rstrip())
    if failed:
        raise typer.Exit(1)


def _follow_queue(project: Path) -> bool:
    """Follow what runs, one after another, while a supervisor does; whether a job failed."""
    from napari_backsplit.backend.jobs import list_jobs, queued
    from napari_backsplit.backend.jobs.queue import is_supervised, views
    from napari_backsplit.cli.console import follow_job

    failed = False
    while is_supervised(project):
        jobs = {job.id: job for job in list_jobs(project)}
        seen = views(jobs.values())
        active = [job for job in queued(project) if job in seen and seen[job].active]
        if not active:
            time.sleep(0.2)
            continue
        try:
            follow_job(jobs[active[0]])
        except typer.Exit as ended:
            if ended.exit_code != 1:
                raise
            failed = True
    return failed


def _standing(project: Path) -> list[tuple[str, str]]:
    """Return the queued jobs and what each waits for."""
    from napari_backsplit.backend.jobs import list_jobs, queued
    from napari_backsplit.backend.jobs.queue import views
    from napari_backsplit.backend.jobs.schedule import waits_for

    order, seen = queued(project), views(list_jobs(project))
    return [
        (job, waits_for(job, order, seen) or "runs" * seen[job].active)
        for job in order
        if job in seen and not seen[job].over
    ]


@commands.command("move")
def move_(
    job: ChainArgument,
    place: Annotated[int, typer.Argument(min=1, help="1 is the first.")],
    project: ProjectOption = Path(),
    only: OnlyOption = False,
) -> None:
    """Give a queued job, or the links of a chain, another place in the queue."""
    from napari_backsplit.backend.jobs import move, queued
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    chain = find_chain(project, found.id, only)
    order = queued(project)
    links = [link.id for link in chain.jobs if link.id in order] if chain else []
    move(project, links or [found.id], place - 1)
    say("The queue is now: " + ", ".join(queued(project)))


@commands.command()
def delete(
    job: ChainArgument,
    project: ProjectOption = Path(),
    only: OnlyOption = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a job with all that it made, or a whole chain; says the space that this freed."""
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    target = find_chain(project, found.id, only) or found
    name = found.id
    if sys.stdin.isatty() and not yes:
        size = size_words(target.size_bytes())
        typer.confirm(f"Delete {name} with its models and predictions ({size})?", abort=True)
    say(f"Deleted {name}: {size_words(target.delete())} are free again.")


@commands.command()
def follow(
    job: JobArgument,
    project: ProjectOption = Path(),
    cancel_on_interrupt: Annotated[
        bool,
        typer.Option("--cancel-on-interrupt", help="Ctrl-C cancels the job, not only this view."),
    ] = False,
) -> None:
    """Show a job's progress until it is over; Ctrl-C leaves it running."""
    from napari_backsplit.backend.jobs import ensure_supervisor, queued
    from napari_backsplit.cli.console import follow_job

    found = find_job(project, job)
    if queued(project):
        ensure_supervisor(project)
    follow_job(found, cancel_on_interrupt=cancel_on_interrupt)


@commands.command()
def pause(job: ChainArgument, project: ProjectOption = Path(), only: OnlyOption = False) -> None:
    """Hold a job, or the link of a chain that runs, at its next iteration; it keeps its memory."""
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    (find_chain(project, found.id, only) or found).pause()
    say(f"{found.id} holds at its next iteration. Go on with: backsplit jobs continue {found.id}")


@commands.command("continue")
def unpause(job: ChainArgument, project: ProjectOption = Path(), only: OnlyOption = False) -> None:
    """Let a paused job go on."""
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    chain = find_chain(project, found.id, only)
    if chain is None:
        _require_live(found)
    (chain or found).unpause()
    say(f"{found.id} goes on.")


def _require_live(job: Job) -> None:
    status = job.status()
    if status.final or status.resumable:
        raise JobError(f"{job.id} is {status.state}.", "Only a paused job can be continued.")


@commands.command()
def cancel(
    job: ChainArgument,
    project: ProjectOption = Path(),
    grace_s: Annotated[float, typer.Option(help="Seconds before it is ended by force.")] = 20.0,
    only: OnlyOption = False,
) -> None:
    """End a job or a chain; what it has saved is kept, and it can be resumed."""
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    chain = find_chain(project, found.id, only)
    if chain is None:
        found.cancel(grace_s)
        say(f"{found.id} {found.wait(grace_s + 10).state}")
        return
    chain.cancel(grace_s)
    current = chain.status().current
    say(f"{found.id} {current.wait(grace_s + 10).state if current else 'SUCCEEDED'}")


@commands.command()
def resume(
    job: ChainArgument,
    project: ProjectOption = Path(),
    detach: DetachOption = False,
    only: OnlyOption = False,
) -> None:
    """Go on with a failed, cancelled or lost job or chain; it is put in front of the queue."""
    from napari_backsplit.backend.jobs import go_on
    from napari_backsplit.cli.console import follow_job, say

    found = find_job(project, job)
    chain = find_chain(project, found.id, only)
    if chain is not None:
        chain.go_on()
        if not detach and _follow_queue(project):
            raise typer.Exit(1)
        return
    go_on(found)
    if detach:
        say(f"{found.id} is in front of the queue.")
    else:
        follow_job(found)


@commands.command()
def log(
    job: JobArgument,
    project: ProjectOption = Path(),
    lines: Annotated[int, typer.Option(help="How many lines from the end.")] = 50,
) -> None:
    """Print the end of a job's log."""
    typer.echo(find_job(project, job).log_tail(lines))
