"""The command that looks before a fine-tune is begun: backsplit preflight MODEL."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_backsplit.backend.errors import BackSplitError
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.cli import app
from napari_backsplit.cli.data import JsonOption, ProjectOption, open_project
from napari_backsplit.cli.models import FIRST, TUNED, tuning_changes
from napari_backsplit.cli.options import with_spec

if TYPE_CHECKING:
    from napari_backsplit.backend.improvement import Improvement
    from napari_backsplit.backend.project import Project
    from napari_backsplit.backend.training.checks import Check
    from napari_backsplit.backend.training.estimate import Estimate

MARK = {"passed": "ok", "warned": "warning", "refused": "refused"}


@app.command(rich_help_panel="2 Train")
@with_spec(RunSpec, skip=("baseline",), first=FIRST, **TUNED)
def preflight(
    model: Annotated[
        str, typer.Argument(help="Number of a training job, or an nnU-Net model folder or zip.")
    ],
    *,
    project: ProjectOption = Path(),
    accept_unfit: Annotated[
        bool, typer.Option("--accept-unfit", help="The model fits although it seems not to.")
    ] = False,
    declare_unseen: Annotated[
        bool, typer.Option("--declare-unseen", help="The model was not trained on the test cases.")
    ] = False,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure time and memory first: about 30 s.")
    ] = False,
    as_json: JsonOption = False,
    options: dict[str, Any],
) -> None:
    """Look whether a fine-tune can begin: model, data, run and machine, each with its remedy.

    The exit code is 1 where something keeps it from being begun.
    """
    given = tuning_changes(options)
    with open_project(project, read_only=True) as opened:
        checks, takes = _look(opened, model, given, accept_unfit, declare_unseen, measure)
    _show(checks, takes, as_json)
    if any(check.level == "refused" for check in checks):
        raise typer.Exit(1)


def _look(
    project: Project,
    model: str,
    given: dict[str, Any],
    accept_unfit: bool,
    declare_unseen: bool,
    measure: bool,
) -> tuple[list[Check], Estimate | None]:
    """Return the lines, and what it takes; a model that does not fit is not taken over."""
    from napari_backsplit.backend.improvement import Improvement, propose
    from napari_backsplit.backend.training.checks import refused
    from napari_backsplit.backend.training.estimate import estimate, probe
    from napari_backsplit.backend.training.model_checks import model_checks
    from napari_backsplit.backend.training.preflight import preflight
    from napari_backsplit.backend.training.recipe_defaults import tuning_values

    plan = PlanSpec(accept_unfit=accept_unfit)
    draft = Improvement(model, RunSpec.model_validate(tuning_values(given, {})), plan)
    first = model_checks(project, draft)
    if any(check.level == "refused" for check in first):
        return first, None
    try:
        asked = propose(project, model, {**given, "declare_unseen": declare_unseen})
    except BackSplitError as error:
        return [*first, refused("proposal", error.problem, error.remedy)], None
    asked = _accepting(asked, accept_unfit)
    takes = probe(project, asked) if measure else estimate(project, asked)
    return preflight(project, asked, takes), takes


def _accepting(asked: Improvement, accept_unfit: bool) -> Improvement:
    if asked.plan is None or not accept_unfit:
        return asked
    return replace(asked, plan=asked.plan.model_copy(update={"accept_unfit": True}))


def _show(checks: list[Check], takes: Estimate | None, as_json: bool) -> None:
    from napari_backsplit.cli.console import say, show, table

    if as_json:
        value = {
            "checks": [asdict(check) for check in checks],
            "estimate": asdict(takes) if takes else None,
        }
        show(value, as_json)
        return
    rows = ((check.name, MARK[check.level], _words(check)) for check in checks)
    table(("look at", "", "what was found"), rows)
    if takes is not None:
        say(f"Time, memory and space: {takes.text}.")
    refused = sum(check.level == "refused" for check in checks)
    say(f"{refused} of {len(checks)} refused: nothing can begin." if refused else "It can begin.")


def _words(check: Check) -> str:
    return f"{check.text} {check.remedy}".strip()
