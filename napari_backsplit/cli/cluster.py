"""Commands for other machines: how a Dask scheduler is reached, and jobs as a SLURM array."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_backsplit.backend.cluster_settings import ClusterSettings, SbatchOptions
from napari_backsplit.backend.errors import InputError
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, open_project, require_project
from napari_backsplit.cli.jobs import commands as jobs
from napari_backsplit.cli.jobs import find_chain, find_job
from napari_backsplit.cli.options import make_spec, with_spec

if TYPE_CHECKING:
    from napari_backsplit.backend.jobs import Job

commands = typer.Typer(help="Run jobs on other machines, through Dask.", no_args_is_help=True)
app.add_typer(commands, name="cluster", rich_help_panel="4 Jobs")

KEPT = "as kept for this user"


@commands.command("set")
@with_spec(ClusterSettings, skip=(), first=(), **dict.fromkeys(ClusterSettings.model_fields, KEPT))
def set_(*, options: dict[str, Any]) -> None:
    """Keep how the scheduler is reached, for this user; '' clears a setting."""
    from napari_backsplit.backend.cluster_settings import read_settings, write_settings
    from napari_backsplit.cli.console import say

    if not options:
        raise InputError("There is nothing to set.", "See: backsplit cluster set --help")
    settings = make_spec(ClusterSettings, {**read_settings().model_dump(), **options})
    write_settings(settings)
    _say_all(settings, say)


@commands.command()
def show(as_json: JsonOption = False) -> None:
    """Show how the scheduler is reached."""
    from napari_backsplit.backend.cluster_settings import read_settings
    from napari_backsplit.cli.console import say
    from napari_backsplit.cli.console import show as print_

    settings = read_settings()
    if as_json:
        print_(settings.model_dump(), as_json)
    else:
        _say_all(settings, say)


def _say_all(settings: ClusterSettings, say: Callable[[str], None]) -> None:
    for name, value in settings.model_dump().items():
        say(f"{name.replace('_', '-'):18} {value}")


@commands.command()
def agree(
    address: Annotated[str, typer.Argument(help="Address of the scheduler.")],
    project: ProjectOption = Path(),
) -> None:
    """Agree that the machines of a scheduler run this project's jobs and read its images."""
    from napari_backsplit.backend.cluster_consent import give_consent
    from napari_backsplit.cli.console import say

    with open_project(project) as opened:
        say(f"The project's jobs may run at {give_consent(opened, address)}.")


@commands.command("test")
def ask_around(
    address: Annotated[
        str, typer.Argument(help="Address of the scheduler. [default: as set]")
    ] = "",
    project: Annotated[
        Path | None, typer.Option(help="A project that the workers should see.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Ask a scheduler for its workers: their versions, and whether they see a project."""
    from napari_backsplit.backend.cluster_settings import read_settings
    from napari_backsplit.backend.jobs.cluster import look_around
    from napari_backsplit.cli.console import show, table

    settings = read_settings()
    where = address or settings.address
    if not where:
        raise InputError("No scheduler is set.", "Set one: backsplit cluster set --address ADDRESS")
    if project:
        require_project(project)
    workers = look_around(where, settings, project and project.resolve())
    show(workers, as_json)
    if not as_json:
        columns = ("host", "python", "version", "sees the project", "GPUs")
        table(columns, (list(worker.values()) for worker in workers))
    _complain_of(workers, bool(project))


def _complain_of(workers: Sequence[dict[str, Any]], asked: bool) -> None:
    """Raise what keeps a job from running at these workers.

    Raises
    ------
    InputError
        There are none, or some do not see the project.
    """
    if not workers:
        raise InputError("The scheduler has no worker.", "Start one: dask worker ADDRESS")
    blind = sorted({worker["host"] for worker in workers if not worker["sees"]})
    if asked and blind:
        raise InputError(
            f"{', '.join(blind)} does not see the project.",
            "Share its disk, or say its path there: backsplit cluster set --path-map HERE=THERE",
        )


@jobs.command()
@with_spec(SbatchOptions)
def export(
    job: Annotated[
        list[str], typer.Argument(help="Number or id of a job; of a chain's first: all of it.")
    ],
    *,
    sbatch: Annotated[Path, typer.Option("--sbatch", help="The script to write, such as run.sh.")],
    project: ProjectOption = Path(),
    only: Annotated[
        bool, typer.Option("--only", help="Only the jobs named, not the chains they begin.")
    ] = False,
    options: dict[str, Any],
) -> None:
    """Write jobs as a SLURM array: one task a job. They leave the queue of this machine."""
    from napari_backsplit.backend.cluster_settings import read_settings
    from napari_backsplit.backend.jobs.sbatch import export as write
    from napari_backsplit.cli.console import say

    found = list({j.id: j for name in job for j in _named(project, name, only)}.values())
    command = write(found, sbatch, make_spec(SbatchOptions, options), read_settings())
    say(f"Submit the {len(found)} jobs on the cluster with: {command}")


def _named(project: Path, name: str, only: bool) -> Iterable[Job]:
    from napari_backsplit.backend.jobs import State

    first = find_job(project, name)
    chain = find_chain(project, name, only)
    if chain is None:
        return [first]
    return [job for job in chain.jobs if job.status().state is not State.SUCCEEDED]
