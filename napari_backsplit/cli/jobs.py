"""Commands for jobs: list, follow, pause, continue, cancel, resume."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from napari_backsplit.backend.errors import JobError
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, require_project

if TYPE_CHECKING:
    from napari_backsplit.backend.jobs import Job

commands = typer.Typer(help="Follow, pause, cancel and resume jobs.", no_args_is_help=True)
app.add_typer(commands, name="jobs", rich_help_panel="4 Jobs")

JobArgument = Annotated[str, typer.Argument(help="Number or id of the job.")]


def find_job(project: Path, number: str, task: str | None = None) -> Job:
    """Return a job by its number ("3") or id ("0003-train").

    Raises
    ------
    JobError, ProjectError
        There is none, it does another task, or there is no such project.
    """
    from napari_backsplit.backend.jobs import list_jobs

    require_project(project)
    for job in list_jobs(project):
        if job.id == number or (number.isdigit() and int(job.id.partition("-")[0]) == int(number)):
            if task not in (None, job.spec.task):
                raise JobError(f"Job {job.id} is no {task} job.", "See: backsplit jobs list")
            return job
    raise JobError(f"The project has no job {number!r}.", "See them with: backsplit jobs list")


@commands.command("list")
def list_(project: ProjectOption = Path(), as_json: JsonOption = False) -> None:
    """Show all jobs and how they stand."""
    from napari_backsplit.backend.jobs import list_jobs
    from napari_backsplit.cli.console import show, table

    require_project(project)
    columns = ("job", "title", "state", "message")
    statuses = [(job, job.status()) for job in list_jobs(project)]
    rows = [(job.id, job.spec.title, str(s.state), s.message) for job, s in statuses]
    show([dict(zip(columns, row, strict=True)) for row in rows], as_json)
    if not as_json:
        table(columns, rows)


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
    from napari_backsplit.cli.console import follow_job

    follow_job(find_job(project, job), cancel_on_interrupt=cancel_on_interrupt)


@commands.command()
def pause(job: JobArgument, project: ProjectOption = Path()) -> None:
    """Hold a job at its next iteration; it keeps its memory."""
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    found.pause()
    say(f"{found.id} holds at its next iteration. Go on with: backsplit jobs continue {found.id}")


@commands.command("continue")
def unpause(job: JobArgument, project: ProjectOption = Path()) -> None:
    """Let a paused job go on."""
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    status = found.status()
    if status.final or status.resumable:
        raise JobError(f"{found.id} is {status.state}.", "Only a paused job can be continued.")
    found.unpause()
    say(f"{found.id} goes on.")


@commands.command()
def cancel(
    job: JobArgument,
    project: ProjectOption = Path(),
    grace_s: Annotated[float, typer.Option(help="Seconds before it is ended by force.")] = 20.0,
) -> None:
    """End a job; what it has saved is kept, and it can be resumed."""
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    found.cancel(grace_s)
    say(f"{found.id} {found.wait(grace_s + 10).state}")


@commands.command()
def resume(
    job: JobArgument,
    project: ProjectOption = Path(),
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for it.")] = False,
) -> None:
    """Go on with a failed, cancelled or lost job from its last checkpoint."""
    from napari_backsplit.cli.console import follow_job

    found = find_job(project, job)
    found.resume()
    if not detach:
        follow_job(found)


@commands.command()
def log(
    job: JobArgument,
    project: ProjectOption = Path(),
    lines: Annotated[int, typer.Option(help="How many lines from the end.")] = 50,
) -> None:
    """Print the end of a job's log."""
    typer.echo(find_job(project, job).log_tail(lines))
