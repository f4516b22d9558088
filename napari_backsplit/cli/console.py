"""What the command prints: errors, tables, and a job while it runs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from napari_backsplit.backend.jobs import Job, JobStatus, Metric, Note, Phase, State, follow
from napari_backsplit.backend.jobs import Progress as ProgressEvent

out = Console()
err = Console(stderr=True)

LESION_COLUMNS = ("arm", "Dice", "NSD", "HD-95 mm", "found", "lesion F1", "FP a case", "AP")
FREE_COLUMNS = ("arm", "cases with a false positive", "FP a case", "FP ml a case")
STYLE = {"info": "", "warning": "yellow", "error": "red"}


def say(text: str) -> None:
    """Print a line for a person."""
    out.print(escape(text), highlight=False, soft_wrap=True)


def say_aside(text: str, style: str = "") -> None:
    """Print a line beside the result, on standard error."""
    err.print(escape(text), style=style, highlight=False, soft_wrap=True)


def complain(problem: str, remedy: str = "") -> None:
    """Print an error and, where there is one, its remedy; brackets in paths stay as they are."""
    err.print(f"[red]Error:[/] {escape(problem)}", highlight=False, soft_wrap=True)
    if remedy:
        err.print(remedy, highlight=False, soft_wrap=True, markup=False)


def show(value: Any, as_json: bool, lines: Iterable[str] = ()) -> None:
    """Print a result: as JSON where a program reads it, as lines where a person does."""
    if as_json:
        typer.echo(json.dumps(value, indent=2))
        return
    for line in lines:
        say(line)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table."""
    grid = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        grid.add_row(*(escape(str(cell)) for cell in row))
    out.print(grid)


def follow_job(job: Job, *, cancel_on_interrupt: bool = False, quiet: bool = False) -> JobStatus:
    """Show a job's progress until it is over.

    Ctrl-C leaves the job running (and says how to find it), or cancels it where that was asked.

    Raises
    ------
    typer.Exit
        The job did not succeed (code 1), or was left running (code 130).
    """
    try:
        status = _watch(job, quiet)
    except KeyboardInterrupt:
        _interrupted(job, cancel_on_interrupt)
        raise typer.Exit(130) from None
    if status.state is not State.SUCCEEDED:
        err.print(f"[red]{job.id} {status.state}[/]: {escape(status.message)}", soft_wrap=True)
        if status.resumable:
            err.print(f"Resume it with: backsplit jobs resume {job.id}", highlight=False)
        raise typer.Exit(1)
    return status


def _watch(job: Job, quiet: bool) -> JobStatus:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=err, disable=quiet, transient=True) as bars:
        bar = bars.add_task(job.spec.title or job.id, total=1, figures="")
        figures: dict[str, float] = {}
        for event in follow(job):
            match event:
                case JobStatus():
                    status = event
                case ProgressEvent(done=done, total=total, text=text):
                    bars.update(bar, completed=done, total=max(total, 1), description=text)
                case Phase(name=name):
                    bars.update(bar, description=name, completed=0, total=1)
                case Metric(name=name, value=value):
                    figures[name] = value
                    bars.update(bar, figures=_figures(figures))
                case Note(level=level, text=text):
                    bars.console.print(escape(text), style=STYLE[level], highlight=False)
    return status


@contextmanager
def counted(what: str, *, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Show a bar that (done, total) moves on."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    left = (TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, *left, console=err, disable=quiet, transient=True) as bars:
        bar = bars.add_task(what, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)


def _figures(figures: dict[str, float]) -> str:
    wanted = ("training loss", "target Dice")
    return "  ".join(f"{name} {figures[name]:.3f}" for name in wanted if name in figures)


def _interrupted(job: Job, cancel: bool) -> None:
    if cancel or asked_to_cancel(job.id):
        job.cancel()
        job.wait(30)
        err.print(f"{job.id} was cancelled. Resume it with: backsplit jobs resume {job.id}")
    else:
        err.print(
            f"{job.id} goes on without this window.\n"
            f"Follow it with: backsplit jobs follow {job.id}\n"
            f"End it with:    backsplit jobs cancel {job.id}",
            highlight=False,
        )


def asked_to_cancel(what: str) -> bool:
    """Ask a person at a terminal; a second Ctrl-C leaves the jobs running."""
    if not sys.stdin.isatty():
        return False
    try:
        return typer.confirm(f"\nCancel {what}? Otherwise it goes on by itself.", default=False)
    except typer.Abort:
        return False


def teller(quiet: bool) -> Callable[[str, JobStatus], None]:
    """Return what prints a line, with the time since now, as a step of a batch starts and ends."""
    began = time.monotonic()

    def tell(name: str, status: JobStatus) -> None:
        minutes, seconds = divmod(int(time.monotonic() - began), 60)
        err.print(
            f"[{minutes:3d}:{seconds:02d}] {name} {_word(status)}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )

    return (lambda name, status: None) if quiet else tell


def _word(status: JobStatus) -> str:
    if status.state is State.SUCCEEDED:
        return "ended"
    over = status.final or status.state is State.LOST
    return f"{status.state.lower()}: {status.error}" if over else "started"


def show_summary(summary: dict[str, Any]) -> None:
    """Print a comparison's figures, lesion cases and lesion-free cases apart, and its verdicts."""
    lesion = [s for s in summary["summaries"] if s["group"] == "lesion"]
    free = [s for s in summary["summaries"] if s["group"] == "lesion-free"]
    if lesion and lesion[0]["cases"]:
        say(f"Lesion cases ({lesion[0]['cases']}):")
        table(LESION_COLUMNS, (_lesion_row(s) for s in lesion))
    if free and free[0]["cases"]:
        say(f"Lesion-free cases ({free[0]['cases']}):")
        keys = ("any_false_positive", "false_positives", "false_positive_ml")
        table(FREE_COLUMNS, ([s["arm"], *(_number(s["means"][key]) for key in keys)] for s in free))
    for verdict in summary["verdicts"]:
        say(f"{verdict['arm']} against {verdict['against']}: {verdict['sentence']}")
    for note in summary.get("notes") or ():
        say(f"Note: {note}")
    say(summary["notice"])


def _lesion_row(summary: dict[str, Any]) -> list[str]:
    means = summary["means"]
    found = f"{summary['found_lesions']} of {summary['reference_lesions']}"
    before = [_number(means[key]) for key in ("dice", "nsd", "hd95_mm")]
    after = ("lesion_f1", "false_positives", "average_precision")
    return [summary["arm"], *before, found, *(_number(means[key]) for key in after)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
