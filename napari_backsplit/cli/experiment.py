"""`backsplit experiment`: arms trained on several draws of the data, compared over the draws."""

from __future__ import annotations

import re
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_backsplit.backend.errors import InputError
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, require_project

if TYPE_CHECKING:
    from napari_backsplit.backend.experiments.forecast import Forecast
    from napari_backsplit.backend.experiments.outcomes import DrawResult
    from napari_backsplit.backend.experiments.plan import ExperimentPlan


@app.command(rich_help_panel="3 Compare")
def experiment(
    plan: Annotated[
        str | None, typer.Argument(help="A built-in plan or a TOML file; none lists the plans.")
    ] = None,
    folder: Annotated[
        Path | None,
        typer.Argument(help="Where its projects are kept.", show_default="experiments/PLAN"),
    ] = None,
    draws: Annotated[str, typer.Option(help="Other draws: 201-205 or 201,203.")] = "",
    project: Annotated[
        Path | None,
        typer.Option("--project", "-p", help="Run it on this project; a draw is then a seed."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder with images/ and labels/, for a plan on label maps.")
    ] = None,
    at_once: Annotated[int, typer.Option(min=1, help="Jobs side by side, one CPU core each.")] = 2,
    retry: Annotated[bool, typer.Option("--retry", help="Run again what failed.")] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Epochs of the arms that do not set their own.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Batches in an epoch.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List runs, hours and space; change nothing.")
    ] = False,
    page: Annotated[
        Path | None, typer.Option(help="Also write the tables into this Markdown file.")
    ] = None,
    list_plans: Annotated[bool, typer.Option("--list", help="List the built-in plans.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train several arms on several draws of the data, and measure them over the draws.

    Broken off, the same command goes on. A run that fails is an outcome: the others go on.
    """
    from napari_backsplit.backend.experiments.plan_files import read_plan

    if plan is None or list_plans:
        _list(as_json)
        return
    chosen = read_plan(plan) if project is None else _on_project(read_plan(plan), project, as_json)
    chosen = chosen.with_draws(draw_numbers(draws)) if draws else chosen
    budget = {"epochs": epochs, "iterations": iterations}
    chosen = chosen.with_run(**{name: value for name, value in budget.items() if value})
    if data is not None and chosen.data.kind != "labels":
        raise InputError(f"The plan {chosen.name} takes no --data.", "Leave it out.")
    folder = folder or Path("experiments") / chosen.name
    if dry_run:
        _forecast(chosen, folder, at_once, retry, as_json)
        return
    _run(chosen, folder, {"source": data, "at_once": at_once, "retry": retry}, page, as_json)


def _on_project(plan: ExperimentPlan, folder: Path, as_json: bool) -> ExperimentPlan:
    """Return a plan on a project, without the arms that ask for more supports than it has."""
    from napari_backsplit.backend.fusion.cases import project_scheme
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.project.copies import own_supports
    from napari_backsplit.cli.console import say

    require_project(folder)
    with Project.open(folder, read_only=True) as project:
        known = own_supports(project_scheme(project).supports, plan.sources)
    chosen, left_out = plan.on_project(folder.resolve()).for_supports(len(known))
    if left_out and not as_json:
        say(f"The project has {len(known)} supports, too few for: {', '.join(left_out)}.")
    return chosen


def draw_numbers(text: str) -> tuple[int, ...]:
    """Return the numbers of draws: "201-203,207" is 201, 202, 203 and 207.

    Raises
    ------
    InputError
        A part is neither a number nor a range.
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise InputError(f"--draws: {part!r} is no draw.", "Write --draws 201-205 or 201,203.")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return tuple(numbers)


def _list(as_json: bool) -> None:
    from napari_backsplit.backend.experiments.plan_files import built_in_plans
    from napari_backsplit.cli.console import say, show, table

    plans = built_in_plans()
    show([plan.model_dump(mode="json") for plan in plans], as_json)
    for group in () if as_json else sorted({plan.group for plan in plans}):
        say(f"\n{group}" if group else "\nOthers")
        own = [plan for plan in plans if plan.group == group]
        table(("plan", "title", "arms", "draws"), [_row(plan) for plan in own])


def _row(plan: ExperimentPlan) -> tuple[str, str, int, int]:
    return plan.name, plan.title, len(plan.arms), len(plan.data.draws)


def _forecast(plan: ExperimentPlan, folder: Path, at_once: int, retry: bool, as_json: bool) -> None:
    from napari_backsplit.backend.comparison.tables import without_nan
    from napari_backsplit.backend.experiments.forecast import forecast
    from napari_backsplit.cli.console import show, table

    expected = forecast(plan, folder, at_once=at_once, retry=retry)
    if not as_json:
        columns = ("draw", "arm", "iterations", "state")
        table(columns, [(r.draw, r.arm, r.iterations, r.outcome.text) for r in expected.runs])
    show(without_nan(asdict(expected)), as_json, [_expectation(expected, plan)])


def _expectation(expected: Forecast, plan: ExperimentPlan) -> str:
    hours = "hours unknown until the first run"
    if isfinite(expected.hours):
        hours = f"about {expected.hours:.1f} h"
        if expected.unknown:
            hours += f" without {expected.unknown} runs of kinds that have not run yet"
    space = "about" if expected.measured else "by arithmetic about"
    return (
        f"{expected.to_do} of {len(expected.runs)} runs to do, {expected.iterations} iterations, "
        f"{hours}, {space} {expected.needed_gb:.1f} GB; {expected.free_gb:.0f} GB are free."
        f"{' The time to click is not counted.' if plan.clicks else ''}"
    )


def _run(
    plan: ExperimentPlan, folder: Path, how: dict[str, Any], page: Path | None, as_json: bool
) -> None:
    from napari_backsplit.backend.experiments.report import around_tables, write_results
    from napari_backsplit.backend.experiments.runner import jobs_of, run_experiment
    from napari_backsplit.cli.console import say, show, teller

    if page is not None:
        around_tables(page, plan.name)
    say_if = (lambda text: None) if as_json else say
    try:
        results = run_experiment(plan, folder, tell=teller(as_json), say=say_if, **how)
    except KeyboardInterrupt:
        _interrupted(plan, folder)
        raise typer.Exit(130) from None
    jobs = jobs_of(plan, folder).values()
    show(write_results(plan, results, jobs, folder, page), as_json)
    if not as_json:
        _show_results(plan, results)
        say(f"All figures: {folder / plan.name}.md and {folder / plan.name}-results.json")
    if not any(result.summary or result.quality for result in results):
        raise typer.Exit(1)


def _show_results(plan: ExperimentPlan, results: list[DrawResult]) -> None:
    from napari_backsplit.backend.experiments.outcomes import FAILED
    from napari_backsplit.backend.experiments.tables import notes, tables
    from napari_backsplit.cli.console import say, table

    for one in tables(plan, results, brief=True):
        say(f"\n{one.title}")
        table(one.head, one.rows)
    say("")
    for line in notes(plan, results):
        say(line)
    failed = any(o.state in FAILED for r in results for o in r.outcomes.values())
    if failed or any("failed" in result.reason for result in results):
        say("What failed is run again with --retry.")


def _interrupted(plan: ExperimentPlan, folder: Path) -> None:
    """Leave the running jobs to themselves, or cancel them where a person asks for it."""
    from napari_backsplit.backend.experiments.runner import jobs_of
    from napari_backsplit.backend.jobs import State
    from napari_backsplit.cli.console import asked_to_cancel, err

    jobs = jobs_of(plan, folder).values()
    ends = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.LOST)
    running = [job for job in jobs if job.launched and job.status().state not in ends]
    if running and asked_to_cancel(f"the {len(running)} running job(s)"):
        for job in running:
            job.cancel()
        for job in running:
            job.wait(30)
        err.print(f"{len(running)} job(s) cancelled; what they saved is kept.")
    elif running:
        err.print(f"{len(running)} job(s) go on without this window; nothing new is started.")
    err.print("The same command goes on with the experiment.")
