"""`backsplit jobs repeat`: a job again with other parameters, checked before it is queued."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import BaseModel

from napari_backsplit.backend.errors import InputError
from napari_backsplit.backend.training.spec import PlanSpec, RunSpec
from napari_backsplit.cli.data import ProjectOption
from napari_backsplit.cli.jobs import JobArgument, commands, find_job
from napari_backsplit.cli.options import make_spec, pairs

if TYPE_CHECKING:
    from napari_backsplit.backend.jobs import Job

SPECS: dict[str, type[BaseModel]] = {"run": RunSpec, "plan": PlanSpec}
"""Parameters that are specs of their own."""


@commands.command()
def repeat(
    job: JobArgument,
    project: ProjectOption = Path(),
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="A parameter to change: run.epochs=50. Can be repeated."),
    ] = None,
    title: Annotated[str | None, typer.Option(help="Its title; that of the job.")] = None,
) -> None:
    """Do a job again with other parameters, and what needs it; both wait in the queue."""
    from napari_backsplit.backend.jobs import repeat as again
    from napari_backsplit.cli.console import say

    found = find_job(project, job)
    wanted = _nested(pairs(changes))
    _take_recipes(found, wanted)
    _require_fit(found, wanted)
    made = again(found, wanted, title=title)
    say(f"Queued {made.id}: {made.spec.title}. Follow it with: backsplit jobs follow {made.id}")


def _take_recipes(job: Job, changes: dict[str, Any]) -> None:
    """Add what other recipes of a run change, beside what is said."""
    from napari_backsplit.backend.training.recipe_defaults import exchanged, spoken
    from napari_backsplit.backend.training.recipes import recipe_names

    run = changes.get("run")
    if not isinstance(run, dict) or "recipe" not in run or "run" not in job.spec.params:
        return
    before = make_spec(RunSpec, job.spec.params["run"])
    own = {"plan_set": run.get("plan_set", before.plan_set)}
    with spoken():
        fields = exchanged(before.model_copy(update=own), recipe_names(run["recipe"]))
    changed = {name: value for name, value in fields.items() if value != getattr(before, name)}
    changes["run"] = {**changed, **run, "recipe": list(fields["recipe"])}


def _require_fit(job: Job, changes: dict[str, Any]) -> None:
    """Refuse parameters that the job does not have, and values that they do not take.

    Raises
    ------
    InputError
    """
    params = job.spec.params
    for name, value in changes.items():
        if name not in params:
            known = ", ".join(f"{key}.…" if key in SPECS else key for key in params)
            raise InputError(f"{job.id} has no parameter {name!r}.", f"It has: {known}.")
        if name in SPECS:
            if not isinstance(value, dict):
                raise InputError(f"{name} is no single value.", f"Write --set {name}.NAME=VALUE.")
            unknown = sorted(set(value) - set(SPECS[name].model_fields))
            if unknown:
                raise InputError(
                    f"{job.id} has no parameter {name}.{unknown[0]}.",
                    f"See: backsplit {job.spec.task} --help",
                )
            make_spec(SPECS[name], {**params[name], **value})


def _nested(values: dict[str, str]) -> dict[str, Any]:
    """Return {"run": {"epochs": 50}} for {"run.epochs": "50"}."""
    nested: dict[str, Any] = {}
    for path, text in values.items():
        *above, name = path.split(".")
        place = nested
        for key in above:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise InputError(f"--set gives {path} and a part of it.", "Give one of the two.")
        place[name] = _value(text)
    return nested


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
